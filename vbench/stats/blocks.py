"""From samples to effects: what a block says of a cell, and what the blocks say together.

The cost of an invocation is the log of its value, or minus that where higher is better: more is costlier.
Blocks are the unit of all statistics; warm-ups are left out. Values at or below 0 have no logarithm and
drop out of their block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vbench.stats.intervals import Floats, signed_rank, student

CELL = ["workload", "params", "metric"]
INVOCATION = [
    "run",
    "stack",
    "workload",
    "params",
    "block",
    "order",
    "arm",
]  # of those that count: no warm-up
ESTIMATES = ["log", "log_low", "log_high", "mean", "mean_low", "mean_high", "p"]

_ROUNDING = 1e-12  # log-ratios of equal doubles differ by less: they count as 0


def measured(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples that count: all but warm-ups."""
    return samples.loc[~samples["warmup"].astype(bool)]


def _coded(samples: pd.DataFrame) -> pd.DataFrame:
    """Text as categories, of equal type for stacks and baselines: grouping a million texts takes seconds."""
    stacks = pd.CategoricalDtype(pd.concat([samples["stack"], samples["baseline"]]).unique())
    names = dict.fromkeys(("run", *CELL, "arm", "clock"), "category")
    return samples.astype({**names, "stack": stacks, "baseline": stacks})


def costs(samples: pd.DataFrame) -> pd.DataFrame:
    """Mean log cost per run, stack, cell, block and arm.

    Columns: run, stack, baseline, workload, params, metric, block, arm, cost (NaN without a positive value),
    clock, peer, step; texts as categories, that of stack and baseline the same. ``peer``: where the other end ran;
    ``step``: log of one more step of the reading over the reading (see ``workload/resolution.py``). Samples without the
    columns ``peer`` and ``resolution`` have one place for all peers, and readings as fine as can be.
    """
    columns = ["run", "stack", "baseline", *CELL, "block", "arm", "clock", "value", "better"]
    s = measured(samples)
    extra = s.assign(peer=s.get("peer", ""), step=np.log1p(s.get("resolution", 0.0)))[["peer", "step"]]
    s = _coded(s[columns].join(extra.astype({"peer": "category"})))
    value = s["value"].to_numpy(dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(value > 0, np.log(value), np.nan)
    s = s.assign(cost=np.where(s["better"] == "higher", -log, log))
    by = ["run", "stack", "baseline", *CELL, "block", "arm"]
    return s.groupby(by, sort=False, as_index=False, observed=True).agg(
        cost=("cost", "mean"), clock=("clock", "first"), peer=("peer", "first"), step=("step", "max")
    )


def stack_costs(costs: pd.DataFrame) -> pd.DataFrame:
    """One cost per run, stack, cell and block: where a stack was measured twice, the mean of A and A'.

    A block says one thing of a stack: A and A' as two rows would count as two blocks. Columns: as
    :func:`costs` without arm.
    """
    by = ["run", "stack", "baseline", *CELL, "block"]
    return costs.groupby(by, sort=False, as_index=False, observed=True).agg(
        cost=("cost", "mean"), clock=("clock", "first"), peer=("peer", "first"), step=("step", "max")
    )


def rounded(effect: Floats) -> Floats:
    """Effects with rounding errors taken for what they are: 0."""
    return np.where(np.abs(effect) < _ROUNDING, 0.0, effect)


def estimate(effects: pd.DataFrame, by: Sequence[str], level: float) -> pd.DataFrame:
    """One row per group of ``effects`` (columns ``by`` + effect; texts as text): n, then ESTIMATES, in log units.

    log, log_low, log_high: Hodges-Lehmann and its exact signed-rank interval; mean, mean_low, mean_high, p:
    the mean with its t interval and t test. Where ``effects`` has a column ``step``, what its readings cannot tell
    apart, no interval is narrower than its median on either side; it is returned as ``step``.
    """
    effects = effects.dropna(subset=["effect"])
    x = rounded(effects["effect"].to_numpy(dtype=float))
    groups = effects.groupby(list(by), sort=False, observed=True)
    cell = groups.ngroup().to_numpy()
    x = x[np.argsort(cell, kind="stable")]
    out = groups.size().rename("n").reset_index()
    sizes = out["n"].to_numpy()
    starts = np.cumsum(sizes) - sizes
    values = np.full((len(out), len(ESTIMATES)), np.nan)
    for n in np.unique(sizes):  # cells with equally many blocks make one matrix
        rows = np.flatnonzero(sizes == n)
        matrix = x[starts[rows][:, None] + np.arange(n)]
        values[rows] = np.hstack([signed_rank(matrix, level), student(matrix, level)])
    out[ESTIMATES] = values
    if "step" in effects:
        step = groups["step"].median().to_numpy(dtype=float)
        out = no_narrower(no_narrower(out, "log", step), "mean", step).assign(step=step)
    return texts(out)


def no_narrower(out: pd.DataFrame, middle: str, step: Floats) -> pd.DataFrame:
    """With the interval around the column ``middle`` reaching at least ``step`` to either side; NaN stays unknown."""
    log, low, high = (out[name].to_numpy(dtype=float) for name in (middle, f"{middle}_low", f"{middle}_high"))
    wide = {f"{middle}_low": np.minimum(low, log - step), f"{middle}_high": np.maximum(high, log + step)}
    return out.assign(**wide)


def texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Categories as the texts that they are: for results, which are merged with others."""
    return frame.astype(dict.fromkeys(frame.columns[frame.dtypes == "category"], "str"))
