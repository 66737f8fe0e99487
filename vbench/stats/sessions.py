"""Machines that were measured at different times, because both cannot be up at once: the session is the replicate.

All blocks of a session share what the session had of its own - where memory lay, what the firmware chose, how warm the
room was - so they are no replicates of each other. A session counts as one value, its mean log cost; the ratio is that
of the two machines' means over sessions, and its interval is Welch's, whose degrees of freedom follow from how much
sessions of either machine differ (Welch, Biometrika 34 (1947); Satterthwaite, Biometrics Bulletin 2 (1946)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from vbench.stats.blocks import CELL, costs, stack_costs

FEWEST = 3
"""Sessions of each machine that an interval takes: with two, it would rest on a single difference."""


def by_session(samples: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One row per session, stack and cell: run, stack, workload, params, metric, cost (mean log) and blocks.

    ``samples``: one frame per session, as of a loaded bundle.
    """
    frames = []
    for each in samples:
        table = stack_costs(costs(each)).dropna(subset=["cost"])
        told = table.groupby(["run", "stack", *CELL], as_index=False, observed=True)
        frames.append(told.agg(cost=("cost", "mean"), blocks=("block", "nunique")))
    return pd.concat(frames, ignore_index=True).astype(dict.fromkeys(("run", "stack", *CELL), str))


def paired(sessions: pd.DataFrame, stack: str, baseline: str, level: float = 0.95) -> pd.DataFrame:
    """The overhead of ``stack`` over ``baseline`` by sessions: one row per cell that both have.

    Columns: workload, params, metric, n and base_n (sessions), ratio, low, high (NaN with fewer than three sessions of
    either), between and base_between (standard deviation of sessions, as a share; NaN for a single one), why (there is
    no interval).
    """
    rows = []
    mine, base = (sessions[sessions["stack"] == name] for name in (stack, baseline))
    groups = {key: group["cost"].to_numpy(dtype=float) for key, group in base.groupby(CELL)}
    for key, group in mine.groupby(CELL):
        if key not in groups:
            continue
        x, y = groups[key], group["cost"].to_numpy(dtype=float)
        low, high, why = math.nan, math.nan, ""
        if min(x.size, y.size) < FEWEST:
            why = f"{min(x.size, y.size)} sessions are too few for an interval, {FEWEST} of each are needed"
        elif x.std() == 0 and y.std() == 0:
            low = high = float(y.mean() - x.mean())
        else:
            span = stats.ttest_ind(y, x, equal_var=False).confidence_interval(level)
            low, high = float(span.low), float(span.high)
        rows.append(
            {
                **dict(zip(CELL, key, strict=True)),
                "n": y.size,
                "base_n": x.size,
                "ratio": math.exp(y.mean() - x.mean()),
                "low": math.exp(low),
                "high": math.exp(high),
                "between": _spread(y),
                "base_between": _spread(x),
                "why": why,
            }
        )
    return pd.DataFrame(rows, columns=[*CELL, *_COLUMNS])


_COLUMNS = ["n", "base_n", "ratio", "low", "high", "between", "base_between", "why"]


def _spread(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return math.expm1(float(values.std(ddof=1))) if values.size > 1 else math.nan
