"""Text and numbers for figures: safe to draw, cut to fit, and with no more digits than are useful."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from vbench.stats import wording

TIMES = "\N{MULTIPLICATION SIGN}"


def clean(text: object, limit: int = 80) -> str:
    """Text made safe to draw: printable, and at most ``limit`` characters."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """The width in inches of a line of text at ``size`` points."""
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    width: float = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return width / 72


def fit(text: object, inches: float, size: float, *, bold: bool = False, end: bool = False) -> str:
    """:func:`clean` text cut to a width; ``end`` keeps the end, which is where paths differ."""
    line = clean(text, 200)
    if text_width(line, size, bold=bold) <= inches:
        return line
    for keep in range(min(len(line), int(inches / size * 180)), 0, -1):
        shown = "…" + line[-keep:] if end else line[:keep] + "…"
        if text_width(shown, size, bold=bold) <= inches:
            return shown
    return "…"


def number_text(value: float) -> str:
    """A number as text: two decimals near 1, two significant digits far below, no superfluous ones far above."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}" if value >= 1e-4 else f"{value:.0e}"


def times(ratio: float) -> str:
    """A ratio as a factor, about three significant digits: times 0.983, 1.034, 2.31, 63.2, 1240."""
    return TIMES + bare(ratio)


def bare(ratio: float) -> str:
    """The digits of :func:`times`."""
    if 0.9 < ratio < 1.1:
        return f"{ratio:.3f}"
    if 0.1 <= ratio < 10:
        return f"{ratio:.2f}"
    return f"{ratio:.1f}" if 10 <= ratio < 100 else f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.2g}"


def interval_text(low: float, high: float) -> str:
    """An interval of ratios in brackets, or words if there is none."""
    return f"[{bare(low)}, {bare(high)}]" if np.isfinite(low) and np.isfinite(high) else "(no interval)"


def blocks_text(counts: Iterable[int], boots: Iterable[float] = ()) -> str:
    """How many blocks a figure is based on: "n = 12 blocks", "n = 6 to 12 blocks".

    ``boots``: the openings or boots that the blocks of each cell are of; where they are fewer, that is what the figure
    rests on.
    """
    counts = [int(count) for count in counts]
    known = sorted(set(counts))
    if not known:
        return "n = no blocks"
    text = f"n = {known[0]} blocks" if len(known) == 1 else f"n = {known[0]} to {known[-1]} blocks"
    fewer = sorted({int(few) for few, n in zip(boots, counts, strict=False) if 0 < few < n})
    if not fewer:
        return text
    span = f"{fewer[0]}" if len(fewer) == 1 else f"{fewer[0]} to {fewer[-1]}"
    return f"{text}; of those in {span} openings or boots, the mean over these and its t interval"


def level_text(frame: pd.DataFrame) -> str:
    """The level of a table's intervals: the one attained by their number of blocks, if the table has it."""
    if "attained" in frame and (frame["attained"] > 0).any():
        return wording.levels(frame["attained"])
    return f"{frame['level'].iloc[0]:.0%}"


def value_text(value: float) -> str:
    """A value as measured, to four significant digits, with thousands separated."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e12 else f"{value:.4g}"
