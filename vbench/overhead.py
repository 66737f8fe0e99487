"""What a stack costs over its baseline: ratios, intervals, verdicts. pandas in, pandas out, no I/O.

Per cell (stack, workload, params, metric) and block, the effect is log(cost of the child) minus log(cost of
the baseline), where cost is the value, or its inverse where higher is better: above 0 is costlier. The
baseline of a block is the mean log of its two measurements, A and A' (or of the one there is). Blocks are
the unit; warm-ups are left out. Values at or below 0 have no logarithm and drop their block.

Sources:
    Hodges & Lehmann, "Estimates of location based on rank tests", Ann. Math. Statist. 34 (1963).
    Hollander, Wolfe & Chicken, "Nonparametric Statistical Methods", 3rd ed. (2014), sections 3.1-3.3.
    Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Texts = NDArray[np.str_]

MIN_BLOCKS = 6  # the fewest that carry a 95% signed-rank interval; see min_blocks()
_CELL = ["workload", "params", "metric"]
_ROUNDING = 1e-12  # log-ratios of equal doubles differ by less: they count as 0
_EXACT = 500  # blocks up to which the null distribution is computed exactly
_CHUNK = 4_000_000  # Walsh averages held at once


@lru_cache(maxsize=64)
def _null_cdf(n: int) -> Floats:
    """P(W+ <= w) for w = 0 .. n(n+1)/2 under the null, by convolution (Hollander et al., section 3.1)."""
    p = np.zeros(n * (n + 1) // 2 + 1)
    p[0] = 1.0
    for rank in range(1, n + 1):
        shifted = np.zeros_like(p)
        shifted[rank:] = p[:-rank]
        p = (p + shifted) / 2
    return np.cumsum(p)


def min_blocks(level: float = 0.95) -> int:
    """The fewest blocks with an exact two-sided interval: 2^-n must not exceed (1 - level) / 2."""
    return math.ceil(-math.log2((1 - level) / 2) - 1e-9)


def interval_rank(n: int, level: float = 0.95) -> int:
    """The rank c such that the c-th smallest and c-th largest Walsh averages bound the interval; 0 if none.

    Exact up to 500 blocks, beyond by the normal approximation (Hollander et al., section 3.3).
    """
    alpha = (1 - level) / 2
    if n > _EXACT:
        sd = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return int(n * (n + 1) / 4 + float(stats.norm.ppf(alpha)) * sd)
    # The largest c with P(W+ <= c - 1) <= alpha.
    return int(np.searchsorted(_null_cdf(n), alpha * (1 + 1e-12), side="right"))


def _kth_walsh(x: Floats, ranks: list[int]) -> list[float]:
    """The k-th smallest Walsh averages (k from 1) of sorted ``x``, by bisection: O(n log n)."""
    out = []
    index = np.arange(x.size)
    for k in ranks:
        low, high = float(x[0]) - 1e-9, float(x[-1])
        while (middle := (low + high) / 2) not in (low, high):
            pairs = np.maximum(np.searchsorted(x, 2 * middle - x, side="right") - index, 0).sum()
            low, high = (low, middle) if pairs >= k else (middle, high)
        out.append(high)
    return out


def signed_rank(x: Floats, level: float = 0.95) -> Floats:
    """Hodges-Lehmann estimate and exact signed-rank interval of each row.

    ``x``: (cells, n), no NaN. Returns (cells, 3): estimate (the median of the n(n+1)/2 Walsh averages),
    low, high; low and high are NaN where n carries no interval at this level.
    """
    cells, n = x.shape
    rank = interval_rank(n, level)
    count = n * (n + 1) // 2
    out = np.full((cells, 3), np.nan)
    if n > _EXACT:
        for row, values in enumerate(np.sort(x, axis=1)):
            a, b, low, high = _kth_walsh(values, [(count + 1) // 2, count // 2 + 1, rank, count + 1 - rank])
            out[row] = (a + b) / 2, low, high
        return out
    i, j = np.triu_indices(n)
    step = max(1, _CHUNK // count)
    for start in range(0, cells, step):
        part = x[start : start + step]
        walsh = np.sort((part[:, i] + part[:, j]) / 2, axis=1)
        out[start : start + step, 0] = (walsh[:, (count - 1) // 2] + walsh[:, count // 2]) / 2
        if rank:
            out[start : start + step, 1] = walsh[:, rank - 1]
            out[start : start + step, 2] = walsh[:, count - rank]
    return out


def _student(x: Floats, level: float) -> Floats:
    """Mean, t interval and two-sided t-test p-value of each row: (cells, n) to (cells, 4)."""
    n = x.shape[1]
    mean = x.mean(axis=1)
    if n == 1:
        return np.column_stack([mean, np.full((mean.size, 3), np.nan)])
    error = x.std(axis=1, ddof=1) / math.sqrt(n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, 0.0, np.abs(mean) / error)  # counted instructions may repeat exactly: error 0
    return np.column_stack([mean, mean - half, mean + half, 2 * stats.t.sf(t, n - 1)])


def _estimate(effects: pd.DataFrame, by: list[str], level: float) -> pd.DataFrame:
    """One row per group of ``effects`` (columns ``by`` + effect): n, then log-scale estimates."""
    names = ["log", "log_low", "log_high", "mean", "mean_low", "mean_high", "p"]
    effects = effects.dropna(subset=["effect"])
    x = effects["effect"].to_numpy(dtype=float)
    x = np.where(np.abs(x) < _ROUNDING, 0.0, x)
    groups = effects.groupby(by, sort=False)
    cell = groups.ngroup().to_numpy()
    x = x[np.argsort(cell, kind="stable")]
    out = groups.size().rename("n").reset_index()
    sizes = out["n"].to_numpy()
    starts = np.cumsum(sizes) - sizes
    values = np.full((len(out), len(names)), np.nan)
    for n in np.unique(sizes):  # cells with equally many blocks make one matrix
        rows = np.flatnonzero(sizes == n)
        matrix = x[starts[rows][:, None] + np.arange(n)]
        values[rows] = np.hstack([signed_rank(matrix, level), _student(matrix, level)])
    out[names] = values
    return out


def holm(p: Floats) -> Floats:
    """Holm's step-down adjusted p-values; NaN cells are not part of the family."""
    out = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    m = order.size
    out[order] = np.minimum(np.maximum.accumulate(p[order] * (m - np.arange(m))), 1.0)
    return out


def _per_block(samples: pd.DataFrame) -> pd.DataFrame:
    """Mean log cost per run, stack, cell, block and arm."""
    s = samples.loc[~samples["warmup"].astype(bool)]
    value = s["value"].to_numpy(dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(value > 0, np.log(value), np.nan)
    s = s.assign(cost=np.where(s["better"] == "higher", -log, log))
    by = ["run", "stack", "baseline", *_CELL, "block", "arm"]
    return s.groupby(by, sort=False, as_index=False).agg(cost=("cost", "mean"), clock=("clock", "first"))


def aa_floors(samples: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """The A/A floor of each cell of each stack that was measured twice a block.

    The floor is the largest effect that the method does not rule out between two measurements of one and the
    same environment: of the exact interval of log(A'/A) over the blocks, the bound further from 0. It holds
    noise and any bias of position alike, and shrinks with more blocks to the bias alone. A smaller effect
    cannot be told from nothing. (On A/A tests: Kohavi et al., Data Min. Knowl. Disc. 18 (2009).)

    Columns: stack, workload, params, metric, n, ratio, low, high (A' over A), floor (0.02: 2%).
    """
    return _aa(_per_block(samples), level)


def _aa(blocks: pd.DataFrame, level: float) -> pd.DataFrame:
    key = ["run", "stack", *_CELL, "block"]
    first, second = (blocks.loc[blocks["arm"] == arm, [*key, "cost"]] for arm in ("A", "A'"))
    pairs = first.merge(second, on=key, suffixes=("_a", "_b"))
    pairs["effect"] = pairs["cost_b"] - pairs["cost_a"]
    out = _estimate(pairs, ["stack", *_CELL], level)
    for name, log in (("ratio", "log"), ("low", "log_low"), ("high", "log_high")):
        out[name] = np.exp(out[log])
    out["floor"] = np.expm1(np.maximum(out["log_low"].abs(), out["log_high"].abs()))
    return out[["stack", *_CELL, "n", "ratio", "low", "high", "floor"]]


def overheads(
    samples: pd.DataFrame,
    *,
    level: float = 0.95,
    threshold: float = 0.0,
    kinds: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """What each stack costs over its baseline: one row per stack, baseline, workload, params and metric.

    Columns:
        n                             blocks in which child and baseline were both measured
        ratio, low, high              Hodges-Lehmann ratio, exact signed-rank interval; above 1 is costlier
        mean_ratio, mean_low, mean_high   exp of the mean log-ratio and its t interval: these multiply exactly
                                      along a stack
        p, p_holm                     t test of the mean log-ratio, and Holm's correction over all rows
        aa_floor                      see aa_floors(); 0.02 is 2%
        verdict, why, flag            below
        child, base, unit, better     medians of the values as measured (baseline: A and A' together)
        kind, clock, level

    Verdict: "costlier" or "cheaper" where the interval excludes 1, and p_holm is within 1 - level, and the
    effect exceeds both aa_floor and ``threshold`` (0.02: 2%); else "not distinguishable"; "undetermined"
    where there are too few blocks for an interval or a floor. Holm works on the t test because a signed-rank
    p-value cannot fall below 2^(1-n): with 6 blocks and 2 cells no effect, however large, could pass. A call
    still needs the exact interval. A cheaper child is flagged: it is usually an artefact.
    """
    cell = ["stack", "baseline", *_CELL]
    blocks = _per_block(samples)
    children = blocks[blocks["stack"] != blocks["baseline"]]
    key = ["run", "stack", *_CELL, "block"]
    bases = blocks.groupby(key, sort=False, as_index=False).agg(
        base=("cost", "mean"), base_clock=("clock", "first")
    )
    bases = bases.rename(columns={"stack": "baseline"})
    pairs = children.merge(bases, on=["run", "baseline", *_CELL, "block"], how="left")
    alien = pairs["base_clock"].notna() & (pairs["base_clock"] != pairs["clock"])
    pairs["effect"] = (pairs["cost"] - pairs["base"]).mask(alien)
    pairs["alien"], pairs["alone"] = alien, pairs["base"].isna()
    groups = pairs.groupby(cell, sort=False)
    out = groups.agg(clock=("clock", "first"), alien=("alien", "any"), alone=("alone", "all")).reset_index()
    out = out.merge(_estimate(pairs, cell, level), on=cell, how="left")
    floors = _aa(blocks, level)[["stack", *_CELL, "floor"]]
    floors = floors.rename(columns={"stack": "baseline", "floor": "aa_floor"})
    out = out.merge(floors, on=["baseline", *_CELL], how="left")
    out["n"] = out["n"].fillna(0).astype(int)
    out["p"] = out["p"].where(out["n"] >= min_blocks(level))
    out["p_holm"] = holm(out["p"].to_numpy(dtype=float))
    out["level"] = level
    out["kind"] = [(kinds or {}).get(name, "other") for name in out["workload"]]
    out = _absolutes(samples, out)
    out["verdict"], out["why"] = _verdicts(out, level, threshold)
    artefact = "faster than its baseline: usually an artefact, look into it"
    out["flag"] = np.where(out["verdict"] == "cheaper", artefact, "")
    logs = ["log", "log_low", "log_high", "mean", "mean_low", "mean_high"]
    out[["ratio", "low", "high", "mean_ratio", "mean_low", "mean_high"]] = np.exp(out[logs].to_numpy())
    tail = ["child", "base", "unit", "better", "kind", "clock", "level"]
    shown = ["n", "ratio", "low", "high", "mean_ratio", "mean_low", "mean_high", "p", "p_holm", "aa_floor"]
    out = out[[*cell, *shown, "verdict", "why", "flag", *tail]]
    return out.sort_values(cell, ignore_index=True)  # the journal's order is random


def _absolutes(samples: pd.DataFrame, out: pd.DataFrame) -> pd.DataFrame:
    """Add the medians of the values as measured, with their unit."""
    s = samples.loc[~samples["warmup"].astype(bool)]
    groups = s.groupby(["stack", *_CELL], sort=False)
    medians = groups.agg(
        child=("value", "median"), unit=("unit", "first"), better=("better", "first")
    ).reset_index()
    out = out.merge(medians, on=["stack", *_CELL], how="left")
    medians = medians.rename(columns={"stack": "baseline", "child": "base"})[["baseline", *_CELL, "base"]]
    return out.merge(medians, on=["baseline", *_CELL], how="left")


def _verdicts(out: pd.DataFrame, level: float, threshold: float) -> tuple[Texts, Texts]:
    need, alpha = min_blocks(level), 1 - level
    limit = np.log1p(np.maximum(out["aa_floor"], threshold))
    reasons: list[tuple[pd.Series, str, str]] = [
        (out["alien"], "undetermined", "its baseline is timed by another kind of clock"),
        (
            out["alone"],
            "undetermined",
            "its baseline was not measured in the same blocks, or has no positive value",
        ),
        (out["n"] == 0, "undetermined", "no value above 0, so no ratio"),
        (out["n"] < need, "undetermined", f"needs at least {need} blocks"),
        (
            out["aa_floor"].isna(),
            "undetermined",
            f"needs at least {need} blocks with the baseline measured twice",
        ),
        ((out["log_low"] <= 0) & (out["log_high"] >= 0), "not distinguishable", "the interval includes 1"),
        (out["log"].abs() <= limit, "not distinguishable", "within the A/A floor or the threshold"),
        (out["p_holm"] > alpha, "not distinguishable", "not after correction for the number of comparisons"),
        (out["log"] > 0, "costlier", ""),
    ]
    tests = [test.to_numpy(dtype=bool) for test, _, _ in reasons]
    verdict = np.select(tests, [verdict for _, verdict, _ in reasons], "cheaper")
    return verdict, np.select(tests, [why for _, _, why in reasons], "")


_INVOCATION = ["run", "stack", "workload", "params", "block", "order", "arm"]


def clock_disagreement(samples: pd.DataFrame, bound: float = 0.05, *, slack_s: float = 0.0) -> pd.DataFrame:
    """Where the environment's own clock and its parent's disagree: one row per stack, workload and params.

    An invocation disagrees where |guest_s - parent_s| > slack_s + bound * parent_s; ``slack_s`` allows for
    what the parent sees besides the work (a connection, a fork). Instruction-counted environments are left
    out: their second is not a wall-clock second. Only rows with a disagreement are returned.

    Columns: stack, workload, params, n (invocations with both clocks), disagree, median and worst
    (guest_s / parent_s; worst is the one furthest from 1).
    """
    s = samples.loc[~samples["warmup"].astype(bool) & (samples["clock"] == "wall")]
    s = s.dropna(subset=["guest_s"]).drop_duplicates(_INVOCATION)
    share = s["guest_s"] / s["parent_s"]
    off = (s["guest_s"] - s["parent_s"]).abs() > slack_s + bound * s["parent_s"]
    with np.errstate(divide="ignore"):
        distance = np.abs(np.log(share.clip(lower=0).to_numpy()))
    s = s.assign(share=share, off=off, distance=distance)
    by = ["stack", "workload", "params"]
    out = s.groupby(by, sort=False).agg(
        n=("off", "size"), disagree=("off", "sum"), median=("share", "median")
    )
    worst = s.sort_values("distance", kind="stable").groupby(by, sort=False)["share"].last().rename("worst")
    out = out.join(worst).reset_index()
    return out[out["disagree"] > 0].reset_index(drop=True)


def footprint(samples: pd.DataFrame) -> pd.DataFrame:
    """What an environment takes from its host: one row per stack and workload.

    Columns: stack, workload, n (invocations), cpu_per_s (median CPU seconds used on the host per second of
    work by the environment's own clock, by the parent's where it has none), rss_mib (largest seen).
    """
    s = samples.loc[~samples["warmup"].astype(bool)].drop_duplicates(_INVOCATION)
    seconds = s["guest_s"].fillna(s["parent_s"])
    s = s.assign(cpu_per_s=s["host_cpu_s"] / seconds.where(seconds > 0))
    groups = s.groupby(["stack", "workload"], sort=False)
    return groups.agg(
        n=("block", "size"), cpu_per_s=("cpu_per_s", "median"), rss_mib=("rss_mib", "max")
    ).reset_index()
