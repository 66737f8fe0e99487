"""The statistics: ratios, intervals and verdicts from samples. pandas in, pandas out, no I/O."""
