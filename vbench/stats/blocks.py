"""From samples to effects: the cost of a cell in each block, and estimates over blocks.

The cost of an invocation is the log of its value, negated where higher is better, so that more is always costlier.
Blocks are the unit of all statistics; warm-ups are excluded. Values at or below 0 have no logarithm and drop out of
their block.

Blocks measured in the same opening of an environment, or begun in the same boot of a deterministic machine, are alike:
their noise is that of a start, while the opening's is common to all of them. There the opening is the unit (a boot,
below): estimates are of the means of boots, by Student's t with as many degrees of freedom as there are boots less one.
Of a balanced nested design with random boots and starts this is the exact interval (Searle, Casella & McCulloch,
"Variance Components" (1992), section 3.5), and no assumption is made about which of the two varies more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
]  # identifies an invocation that counts, i.e. not a warm-up
ESTIMATES = ["log", "log_low", "log_high", "mean", "mean_low", "mean_high", "p"]

_ROUNDING = 1e-12  # smaller log-ratios are rounding errors between equal values and count as 0


def measured(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples that count: all except warm-ups."""
    return samples.loc[~samples["warmup"].astype(bool)]


def _coded(samples: pd.DataFrame) -> pd.DataFrame:
    """Text columns as categories, since grouping a million strings takes seconds; stack and baseline share a dtype."""
    stacks = pd.CategoricalDtype(pd.concat([samples["stack"], samples["baseline"]]).unique())
    names = dict.fromkeys(("run", *CELL, "arm", "clock"), "category")
    return samples.astype({**names, "stack": stacks, "baseline": stacks})


def costs(samples: pd.DataFrame, *, log: bool = True) -> pd.DataFrame:
    """Mean log cost per run, stack, cell, block and arm; without ``log``, the mean of the values themselves.

    Columns: run, stack, baseline, workload, params, metric, block, arm, cost (NaN without a positive value),
    clock, peer, boot, step; text columns are categories, with one dtype for stack and baseline. ``peer``: where the
    other end ran; ``step``: log of (reading plus one step of its resolution) over the reading (see
    ``workload/resolution.py``), or without ``log`` that step itself. Samples without the columns ``peer``, ``boot`` and
    ``resolution`` are taken to share one peer, to have a boot each block, and to be read exactly.
    """
    columns = ["run", "stack", "baseline", *CELL, "block", "arm", "clock", "value", "better"]
    s = measured(samples)
    extra = s.assign(
        peer=s.get("peer", ""), boot=s.get("boot", s["block"]), step=np.log1p(s.get("resolution", 0.0))
    )[["peer", "boot", "step"]]
    s = _coded(s[columns].join(extra.astype({"peer": "category"})))
    # Each run has boots of its own.
    s["boot"] = s.groupby(["run", "boot"], sort=False, observed=True).ngroup()
    value = s["value"].to_numpy(dtype=float)
    if log:
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.where(value > 0, np.log(value), np.nan)
    else:
        s["step"] = np.expm1(s["step"]) * value
    s = s.assign(cost=np.where(s["better"] == "higher", -value, value))
    by = ["run", "stack", "baseline", *CELL, "block", "arm"]
    return s.groupby(by, sort=False, as_index=False, observed=True).agg(
        cost=("cost", "mean"),
        clock=("clock", "first"),
        peer=("peer", "first"),
        boot=("boot", "first"),
        step=("step", "max"),
    )


def stack_costs(costs: pd.DataFrame) -> pd.DataFrame:
    """One cost per run, stack, cell and block: the mean of A and A' where a stack was measured twice.

    A block must contribute one value per stack: A and A' in two rows would count as two blocks. Columns: as
    :func:`costs` without arm.
    """
    by = ["run", "stack", "baseline", *CELL, "block"]
    return costs.groupby(by, sort=False, as_index=False, observed=True).agg(
        cost=("cost", "mean"),
        clock=("clock", "first"),
        peer=("peer", "first"),
        boot=("boot", "first"),
        step=("step", "max"),
    )


def paired_blocks(arms: pd.DataFrame) -> pd.DataFrame:
    """Each stack beside its baseline, a row per cell and block; ``arms`` as from :func:`costs`.

    Columns: those of :func:`stack_costs`; effect, by how much the stack's cost exceeds its baseline's, NaN where there
    is none; step, of both readings; and whether the baseline's clock is of another kind (alien), its peer elsewhere
    (apart), or the block without it (alone).
    """
    blocks = stack_costs(arms)
    children = blocks[blocks["stack"] != blocks["baseline"]]
    bases = blocks[["run", "stack", *CELL, "block", "cost", "clock", "peer", "step"]].rename(
        columns={
            "stack": "baseline",
            "cost": "base",
            "clock": "base_clock",
            "peer": "base_peer",
            "step": "base_step",
        }
    )
    pairs = children.merge(bases, on=["run", "baseline", *CELL, "block"], how="left")
    known = pairs["base_clock"].notna()
    alien = known & (pairs["base_clock"] != pairs["clock"])
    apart = known & (pairs["base_peer"] != pairs["peer"])
    pairs["effect"] = (pairs["cost"] - pairs["base"]).mask(alien | apart)
    pairs["step"] = pairs["step"] + pairs["base_step"]
    pairs["alien"], pairs["apart"], pairs["alone"] = alien, apart, pairs["base"].isna()
    return pairs


def rounded(effect: Floats) -> Floats:
    """Effects, with rounding errors set to 0."""
    return np.where(np.abs(effect) < _ROUNDING, 0.0, effect)


def estimate(effects: pd.DataFrame, by: Sequence[str], level: float) -> pd.DataFrame:
    """One row per group of ``effects`` (columns ``by`` + effect), text as plain text: n, then ESTIMATES, in log units.

    n: blocks. log, log_low, log_high: the Hodges-Lehmann estimate and its exact signed-rank interval; mean, mean_low,
    mean_high, p: the mean with its t interval and t test. ``boots``: those in which the blocks began. If ``effects``
    has a column ``boot``, and a group fewer boots than blocks, both are the mean over boots with its t interval. If
    ``effects`` has a column ``step`` (the resolution of its readings), every interval reaches at least its median to
    either side; that median is returned as ``step``.
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
    for n in np.unique(sizes):  # cells with the same number of blocks form one matrix
        rows = np.flatnonzero(sizes == n)
        matrix = x[starts[rows][:, None] + np.arange(n)]
        values[rows] = np.hstack([signed_rank(matrix, level), student(matrix, level)])
    out["boots"] = groups["boot"].nunique().to_numpy() if "boot" in effects else sizes
    if (nested := np.flatnonzero(out["boots"].to_numpy() < sizes)).size:
        boot = effects["boot"].to_numpy()[np.argsort(cell, kind="stable")]
        for row in nested:
            mine = slice(starts[row], starts[row] + sizes[row])
            told = student(by_boot(x[mine], boot[mine])[None, :], level)[0]
            values[row] = [*told[:3], *told]
    out[ESTIMATES] = values
    if "step" in effects:
        step = groups["step"].median().to_numpy(dtype=float)
        out = no_narrower(no_narrower(out, "log", step), "mean", step).assign(step=step)
    return texts(out)


def by_boot(effect: Floats, boot: NDArray[Any]) -> Floats:
    """The mean effect of each boot."""
    _, of = np.unique(boot, return_inverse=True)
    return np.bincount(of, weights=effect) / np.bincount(of)


def no_narrower(out: pd.DataFrame, middle: str, step: Floats) -> pd.DataFrame:
    """Widen the interval around the column ``middle`` to at least ``step`` on either side; NaN stays NaN."""
    log, low, high = (out[name].to_numpy(dtype=float) for name in (middle, f"{middle}_low", f"{middle}_high"))
    wide = {f"{middle}_low": np.minimum(low, log - step), f"{middle}_high": np.maximum(high, log + step)}
    return out.assign(**wide)


def texts(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert categories back to text, for results that will be merged with others."""
    return frame.astype(dict.fromkeys(frame.columns[frame.dtypes == "category"], "str"))
