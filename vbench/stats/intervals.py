"""Estimates and intervals from rows of numbers: numpy in, numpy out. Each function names its source.

Hodges & Lehmann, "Estimates of location based on rank tests", Ann. Math. Statist. 34 (1963).
Hollander, Wolfe & Chicken, "Nonparametric Statistical Methods", 3rd ed. (2014).
Welch, "The generalization of 'Student's' problem ...", Biometrika 34 (1947).
Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

_EXACT = 500  # rows up to this long: exact null distribution, all Walsh averages
_EXACT_PAIRS = 10_000  # two samples with up to this many pairs: exact null distribution, all differences
_TOLERANCE = 1e-10
_CHUNK = 4_000_000  # averages or differences held in memory at once


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


@lru_cache(maxsize=64)
def _pair_null_cdf(m: int, n: int) -> Floats:
    """P(U <= u) for u = 0 .. mn under the null (Hollander et al., section 4.1).

    The largest of all m + n values comes from the first sample with probability m/(m+n), and then exceeds n values.
    """
    rows = [np.ones(1) for _ in range(n + 1)]  # 0 values in the first sample, 0 .. n in the second
    for i in range(1, m + 1):
        row = [np.ones(1)]
        for j in range(1, n + 1):
            p = np.zeros(i * j + 1)
            p[j:] = i / (i + j) * rows[j]
            p[: i * (j - 1) + 1] += j / (i + j) * row[j - 1]
            row.append(p)
        rows = row
    return np.cumsum(rows[n])


def min_blocks(level: float = 0.95) -> int:
    """The fewest blocks that allow an exact two-sided interval: 2^-n must not exceed (1 - level) / 2."""
    return math.ceil(-math.log2((1 - level) / 2) - 1e-9)


def interval_rank(n: int, level: float = 0.95) -> int:
    """The rank c such that the c-th smallest and c-th largest Walsh averages bound the interval; 0 if there is none.

    Exact up to 500 blocks; beyond that, the normal approximation (Hollander et al., section 3.3).
    """
    alpha = (1 - level) / 2
    if n > _EXACT:
        sd = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return int(n * (n + 1) / 4 + float(stats.norm.ppf(alpha)) * sd)
    # The largest c with P(W+ <= c - 1) <= alpha.
    return int(np.searchsorted(_null_cdf(n), alpha * (1 + 1e-12), side="right"))


def attained_level(n: int, level: float = 0.95, boots: int | None = None) -> float:
    """The actual confidence of the exact interval of n values: at least ``level``; 0 if there is none.

    That of n values from fewer ``boots`` is a t interval, which has the level asked for.
    """
    if boots is not None and boots < n:
        return level if boots > 1 else 0.0
    rank = interval_rank(n, level)
    if rank == 0:
        return 0.0
    return level if n > _EXACT else 1 - 2 * float(_null_cdf(n)[rank - 1])


def shift_rank(m: int, n: int, level: float = 0.95) -> int:
    """As :func:`interval_rank` for the mn differences between two samples (Hollander et al., section 4.3)."""
    alpha = (1 - level) / 2
    if m * n > _EXACT_PAIRS:
        sd = math.sqrt(m * n * (m + n + 1) / 12)
        return int(m * n / 2 + float(stats.norm.ppf(alpha)) * sd)
    return int(np.searchsorted(_pair_null_cdf(min(m, n), max(m, n)), alpha * (1 + 1e-12), side="right"))


def attained_shift_level(m: int, n: int, level: float = 0.95) -> float:
    """As :func:`attained_level` for the shift between two samples."""
    rank = shift_rank(m, n, level) if min(m, n) else 0
    if rank == 0:
        return 0.0
    return level if m * n > _EXACT_PAIRS else 1 - 2 * float(_pair_null_cdf(min(m, n), max(m, n))[rank - 1])


def _kth(count_to: Callable[[float], int], lowest: float, highest: float, ranks: list[int]) -> list[float]:
    """The k-th smallest value for each k in ``ranks`` (from 1), to within 1e-10, by bisection.

    ``count_to`` returns how many values do not exceed a bound.
    """
    out = []
    seen = [(lowest - _TOLERANCE, 0), (highest, max(ranks))]  # bounds and their counts, shared by all ranks
    for k in ranks:
        low = max(bound for bound, count in seen if count < max(k, 1))
        high = min((bound for bound, count in seen if count >= k and bound > low), default=highest)
        while high - low > _TOLERANCE:
            middle = (low + high) / 2
            seen.append((middle, count_to(middle)))
            low, high = (low, middle) if seen[-1][1] >= k else (middle, high)
        out.append(high)
    return out


def _walsh_to(x: Floats, bound: float) -> int:
    """How many Walsh averages of sorted ``x`` do not exceed a bound: O(n log n)."""
    return int(np.maximum(np.searchsorted(x, 2 * bound - x, side="right") - np.arange(x.size), 0).sum())


def _around(values: Floats, rank: int) -> Floats:
    """Median, and the values at ``rank`` from below and from above, of each row: (cells, count) to (cells, 3)."""
    count = values.shape[1]
    values = np.sort(values, axis=1)
    middle = (values[:, (count - 1) // 2] + values[:, count // 2]) / 2
    unknown = np.full(len(values), np.nan)
    return np.column_stack(
        [middle, values[:, rank - 1] if rank else unknown, values[:, count - rank] if rank else unknown]
    )


def _ranks(count: int, rank: int) -> list[int]:
    return [(count + 1) // 2, count // 2 + 1, rank, count + 1 - rank]


def signed_rank(x: Floats, level: float = 0.95) -> Floats:
    """Hodges-Lehmann estimate and exact signed-rank interval of each row (Hollander et al., 3.2 and 3.3).

    ``x``: (cells, n), no NaN. Returns (cells, 3): estimate (the median of the n(n+1)/2 Walsh averages),
    low, high; low and high are NaN where n is too small for an interval at this level.
    """
    cells, n = x.shape
    rank, count = interval_rank(n, level), n * (n + 1) // 2
    out = np.full((cells, 3), np.nan)
    if n > _EXACT:
        for row, v in enumerate(np.sort(x, axis=1)):
            a, b, low, high = _kth(lambda m, v=v: _walsh_to(v, m), v[0], v[-1], _ranks(count, rank))  # type: ignore[misc]
            out[row] = (a + b) / 2, low, high
        return out
    i, j = np.triu_indices(n)
    step = max(1, _CHUNK // count)
    for start in range(0, cells, step):
        part = x[start : start + step]
        out[start : start + step] = _around((part[:, i] + part[:, j]) / 2, rank)
    return out


def shift(x: Floats, y: Floats, level: float = 0.95) -> Floats:
    """How far ``y`` lies above ``x``, two independent samples per row: estimate and exact rank-sum interval.

    ``x``: (cells, m), ``y``: (cells, n), no NaN. Returns (cells, 3): the median of the mn differences y - x, low,
    high; NaN where m and n are too small for an interval (Hodges-Lehmann; Moses: Hollander et al., 4.2 and 4.3).
    """
    cells, m = x.shape
    n = y.shape[1]
    rank, count = shift_rank(m, n, level), m * n
    out = np.full((cells, 3), np.nan)
    if count > _EXACT_PAIRS:
        for row, (a, b) in enumerate(zip(np.sort(x, axis=1), np.sort(y, axis=1), strict=True)):
            found = _kth(
                lambda bound, a=a, b=b: int(np.searchsorted(b, a + bound, side="right").sum()),  # type: ignore[misc]
                b[0] - a[-1],
                b[-1] - a[0],
                _ranks(count, rank),
            )
            out[row] = (found[0] + found[1]) / 2, *found[2:]
        return out
    step = max(1, _CHUNK // count)
    for start in range(0, cells, step):
        rows = slice(start, start + step)
        out[rows] = _around((y[rows, None, :] - x[rows, :, None]).reshape(-1, count), rank)
    return out


def student(x: Floats, level: float = 0.95) -> Floats:
    """Mean, t interval and two-sided t-test p-value of each row: (cells, n) to (cells, 4).

    Rows of identical values (counted instructions may repeat exactly) have an interval of zero width; a single value
    has none.
    """
    n = x.shape[1]
    mean = x.mean(axis=1)
    if n == 1:
        return np.column_stack([mean, np.full((mean.size, 3), np.nan)])
    return _t(mean, x.std(axis=1, ddof=1) / math.sqrt(n), np.full(mean.size, n - 1.0), level)


def welch(x: Floats, y: Floats, level: float = 0.95) -> Floats:
    """Mean difference y - x of two independent samples per row, its interval and p-value (Welch 1947)."""
    m, n = x.shape[1], y.shape[1]
    mean = y.mean(axis=1) - x.mean(axis=1)
    if min(m, n) == 1:
        return np.column_stack([mean, np.full((mean.size, 3), np.nan)])
    a, b = x.var(axis=1, ddof=1) / m, y.var(axis=1, ddof=1) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = (a + b) ** 2 / (a**2 / (m - 1) + b**2 / (n - 1))
    return _t(mean, np.sqrt(a + b), np.where(np.isfinite(freedom), freedom, m + n - 2.0), level)


def _t(mean: Floats, error: Floats, freedom: Floats, level: float) -> Floats:
    half = stats.t.ppf((1 + level) / 2, freedom) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, 0.0, np.abs(mean) / error)
    return np.column_stack([mean, mean - half, mean + half, 2 * stats.t.sf(t, freedom)])


def holm(p: Floats, family: NDArray[Any] | None = None) -> Floats:
    """Holm's step-down adjusted p-values, over all values or within each ``family`` (one number per value).

    NaN values belong to no family. (statsmodels has this too, but runs the garbage collector on every call: 0.1 s per
    family.)
    """
    out = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    of = np.zeros(known.size, dtype=np.int64) if family is None else family[known]
    order = np.lexsort((p[known], of))
    of = of[order]
    first = np.flatnonzero(np.diff(of, prepend=of[:1] - 1))
    sizes = np.diff(first, append=of.size)
    rank = np.arange(of.size) - np.repeat(first, sizes)
    adjusted = np.minimum(p[known][order] * (np.repeat(sizes, sizes) - rank), 1.0)
    # A running maximum that restarts with each family: all values are within 0 and 1.
    step = 2.0 * np.repeat(np.arange(first.size), sizes)
    out[known[order]] = np.maximum.accumulate(adjusted + step) - step
    return out
