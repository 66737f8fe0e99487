"""Ratios, shares and intervals as text, for the terminal and the decision aid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


def number(ratio: float) -> str:
    """A ratio to three significant digits: 0.0400, 1.53, 2.10, 12.3, 240; from 1000 on a whole number: 1234."""
    return f"{ratio:#.3g}".rstrip(".") if ratio < 999.5 else f"{ratio:.0f}"


def share(value: float) -> str:
    """A non-negative share in percent, to two significant digits, and never as 0.00%."""
    return (
        "less than 0.01%"
        if value < 1e-4
        else f"{100 * value:.2g}%"
        if value < 0.995
        else f"{100 * value:.0f}%"
    )


def signed(ratio: float) -> str:
    """A ratio near 1 as a change: +0.6%, -12%."""
    return f"{100 * (ratio - 1):+.2g}%"


def cost(ratio: float | None) -> str:
    """A ratio on its own: +0.58%, 2.81x; n/a if there is none."""
    if ratio is None or math.isnan(ratio):
        return "n/a"
    return f"{100 * (ratio - 1):+.3g}%" if near_one(ratio) else f"{number(ratio)}x"


def added(seconds: float | None) -> str:
    """An added time to three significant digits, in the unit that suits it: +173 us, -0.4 ns; n/a if there is none."""
    if seconds is None or math.isnan(seconds):
        return "n/a"
    unit, size = next(((u, s) for u, s in _UNITS if abs(seconds) >= 0.9995 * s), _UNITS[-1])
    value = seconds / size
    return f"{value:+.3g} {unit}" if abs(value) >= 0.01 else f"{value:+.2f} {unit}"


def interval(low: float | None, high: float | None) -> str:
    """An interval of ratios: +0.57% to +0.59%; n/a if there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return "n/a"
    return f"{cost(low)} to {cost(high)}"


def listed(names: Sequence[str]) -> str:
    """Names joined for a sentence: a; a and b; a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def levels(attained: Iterable[float]) -> str:
    """The levels of intervals as text: 96.9%, or 95.8% to 96.9%; levels of 0 (no interval) are left out."""
    known = sorted({round(level, 3) for level in attained if level > 0})
    if not known:
        return "no"
    return f"{known[0]:.1%}" if len(known) == 1 else f"{known[0]:.1%} to {known[-1]:.1%}"


def near_one(*ratios: float) -> bool:
    """Whether all known ratios read better as percentage changes than as factors."""
    return all(0.5 < ratio < 1.5 for ratio in ratios if not math.isnan(ratio))


def against(ratio: float, low: float, high: float, other: str) -> str:
    """A cost and its interval relative to ``other``: 0.6% more than local (+0.5% to +0.7%); 2.3 times local."""
    known = not math.isnan(low)
    if not near_one(ratio, low, high):
        return f"{number(ratio)} times {other}" + (f" ({number(low)} to {number(high)})" if known else "")
    more = "more" if ratio >= 1 else "less"
    interval = f" ({signed(low)} to {signed(high)})" if known else ""
    return f"{share(abs(ratio - 1))} {more} than {other}{interval}"
