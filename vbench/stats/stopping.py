"""The stopping rule: how many blocks are enough, judged by the width of intervals and never by significance.

Stopping as soon as a difference is significant finds one between identical systems far more often than the nominal
level (Armitage, McPherson & Rowe, "Repeated significance tests on accumulating data", J. R. Stat. Soc. A 132 (1969)).
Stopping once intervals are narrow considers precision only and leaves their coverage nearly unchanged (Chow &
Robbins, "On the asymptotic theory of fixed-width sequential confidence intervals", Ann. Math. Statist. 36 (1965)). It
needs a cap, because some cells never get there. ``benchmarks/simulation.py`` shows both rates.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from vbench.stats.blocks import CELL, costs, estimate, stack_costs, texts
from vbench.stats.intervals import attained_level, min_blocks

CAP = 1000  # never recommend more blocks than this
_EFFICIENCY = 3 / math.pi  # of signed ranks relative to t, for normal noise (Hodges & Lehmann, 1956 and 1963)


def widths(samples: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """How precisely each cell's ratio is known so far: one row per stack, baseline, workload, params and metric.

    Columns: these, n (blocks), boots (openings; n, unless blocks share one), sd (of the log-ratio over these) and
    width, the half-width of the interval as a share of the ratio (0.02: known within 2%), NaN while there are too few
    blocks for an interval. Cells without a baseline in the same blocks have no row.
    """
    blocks = texts(stack_costs(costs(samples)))
    bases = blocks[["run", "stack", *CELL, "block", "cost"]].rename(
        columns={"stack": "baseline", "cost": "base"}
    )
    pairs = blocks[blocks["stack"] != blocks["baseline"]].merge(bases, on=["run", "baseline", *CELL, "block"])
    pairs["effect"] = pairs["cost"] - pairs["base"]
    by = ["stack", "baseline", *CELL]
    out = estimate(pairs, by, level)
    each = pairs.groupby([*by, "boot"], sort=False, as_index=False)["effect"].mean()
    out = out.merge(each.groupby(by, sort=False)["effect"].std().rename("sd").reset_index(), on=by)
    out["width"] = np.expm1((out["log_high"] - out["log_low"]) / 2)
    return out[[*by, "n", "boots", "sd", "width"]].sort_values(by, ignore_index=True)


def narrow_enough(samples: pd.DataFrame, target: float, *, level: float = 0.95) -> bool:
    """Whether every cell with a baseline is known within ``target`` (0.02: 2%); False if there is no such cell."""
    width = widths(samples, level=level)["width"]
    return bool(len(width)) and bool((width <= target).all())


def recommended_blocks(
    pilot: pd.DataFrame, target: float, *, level: float = 0.95, assurance: float = 0.8
) -> pd.DataFrame:
    """How many blocks each cell needs to be known within ``target``, estimated from the samples of a pilot run.

    Columns: as :func:`widths`, plus ``blocks``: the fewest whose expected half-width is within the target. Where blocks
    share an opening, so many openings are needed of as many blocks as the pilot's have. The
    standard deviation used is the upper confidence bound, at level ``assurance``, of the pilot's, because one from few
    blocks is itself uncertain (Browne, "On the use of a pilot sample for sample size determination", Stat. Med. 14
    (1995)). NaN if the pilot has fewer than two blocks, or if more than 1000 would be needed. Spikes in a pilot count
    as lasting noise, so the number errs on the large side.
    """
    out = widths(pilot, level=level)
    freedom = (out["boots"] - 1).to_numpy(dtype=float)
    share = (out["n"] / out["boots"]).to_numpy(dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = out["sd"] * np.sqrt(freedom / stats.chi2.ppf(1 - assurance, freedom))
    counts = np.arange(min_blocks(level), CAP + 1)
    # Exact intervals over few blocks are wider than requested; over more than 30, hardly.
    attained = np.array([attained_level(int(n), level) if n <= 30 else level for n in counts])
    half = stats.t.ppf((1 + attained) / 2, counts - 1) / np.sqrt(_EFFICIENCY * counts)
    alone = _fewest(counts, bound.to_numpy()[:, None] * half <= math.log1p(target))
    openings = np.arange(2, CAP + 1)
    half = stats.t.ppf((1 + level) / 2, openings - 1) / np.sqrt(openings)
    shared = _fewest(openings, bound.to_numpy()[:, None] * half <= math.log1p(target))
    blocks = np.where(share > 1, np.maximum(np.ceil(shared * share), min_blocks(level)), alone)
    out["blocks"] = np.where(blocks <= CAP, blocks, np.nan)
    return out


def _fewest(counts: NDArray[np.int64], fits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The first of the counts that fits, in each row; NaN if none does."""
    return np.where(fits.any(axis=1), counts[fits.argmax(axis=1)], np.nan)
