"""Added time: how much longer an operation takes than on the baseline.

A ratio belongs to the baseline that it was measured over. Where a technique adds a fixed amount of work to each call or
request, it is the added time that is the same over a faster or a slower one.
"""

from __future__ import annotations

import pandas as pd

from vbench.stats.blocks import CELL, costs, estimate, paired_blocks

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Units of time, in seconds."""
ADDED = ["added_s", "added_low_s", "added_high_s"]


def added(samples: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """One row per stack, baseline and cell whose metric is a time, with these and ADDED, in seconds.

    The difference from the baseline, found over blocks as the ratio is (``vbench.stats.overhead``): the
    Hodges-Lehmann estimate and its exact signed-rank interval, or where blocks share an opening or a boot, the mean
    over these and its t interval. NaN where the two cannot be compared, or blocks are too few for an interval.
    """
    by = ["stack", "baseline", *CELL]
    timed = samples[samples["unit"].isin(SECONDS) & (samples["better"] == "lower")]
    if timed.empty:
        return pd.DataFrame({name: pd.Series(dtype="str" if name in by else float) for name in [*by, *ADDED]})
    told = estimate(paired_blocks(costs(timed, log=False)), by, level)
    unit = timed.groupby(CELL, as_index=False)["unit"].first()
    told = told.merge(unit, on=CELL)
    found = told[["log", "log_low", "log_high"]].mul(told["unit"].map(SECONDS).astype(float), axis=0)
    return told[by].assign(**dict(zip(ADDED, found.to_numpy().T, strict=True)))
