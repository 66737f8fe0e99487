"""From samples to statements: pandas in, pandas out, no I/O."""
