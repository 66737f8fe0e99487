"""Waterfall of a stack's overhead: the factor of every layer, and their interaction."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vbench.plot.style import (
    COLOURS,
    INK,
    WIDTH,
    Sheet,
    log_axis,
    say,
    styled,
)
from vbench.plot.words import clean, fit, text_width, times

_PANEL, _LABELS = 1.5, 0.5
_ROLES = {"baseline": "#DDDDDD", "layer": COLOURS[0], "interaction": COLOURS[1], "total": "#BBBBBB"}
_HATCH = {"interaction": "////", "total": "...."}


@styled
def waterfall(
    steps: pd.DataFrame, *, title: str, clock: str, level: float = 0.95, note: str = "", lead: str = ""
) -> Figure:
    """Factors multiplied up step by step, one panel per workload, on a logarithmic axis.

    ``steps``: one row per step in drawing order, with panel (the panel's title), label, role ("layer", "interaction"
    or "total"), factor (1: costs nothing), low and high (of the factor; NaN: no interval), n (blocks). Layers and
    interactions start where the previous step ended; a total starts at 1. A step whose factor is NaN reads "n/a" and
    moves nothing. Raises ValueError if there are no steps.
    """
    if steps.empty:
        raise ValueError("there is nothing to draw")
    panels = list(dict.fromkeys(steps["panel"]))
    most = int(steps.groupby("panel").size().max())
    columns = max(1, min(len(panels), int((WIDTH - 0.6) // (0.4 + 0.55 * most))))
    width = (WIDTH - 0.65) / columns
    rows = -(-len(panels) // columns)
    cell = 0.3 + _PANEL + _LABELS
    sheet = Sheet(title, rows * cell, caption=_caption(steps, level, note), clock=clock, lead=lead)
    for number, name in enumerate(panels):
        x, y = 0.55 + width * (number % columns), cell * (number // columns) + 0.28
        part = steps[steps["panel"] == name]
        axes = sheet.panel(x, y, width - 0.3, _PANEL)
        _panel(axes, part, (width - 0.3) / len(part))
        axes.text(
            0,
            1.035,
            fit(name, width - 0.25, 9, bold=True),
            transform=axes.transAxes,
            weight="bold",
            fontsize=9,
            parse_math=False,
        )
        if number % columns == 0:
            axes.set_ylabel("cost / baseline's cost", fontsize=7.5)
    return sheet.figure


def _panel(axes: Axes, steps: pd.DataFrame, inches: float) -> None:
    reached, ends = 1.0, [1.0]
    bars: list[tuple[float, float]] = []
    for row in steps.to_dict("records"):
        start = 1.0 if row["role"] == "total" else reached
        end = start * row["factor"] if np.isfinite(row["factor"]) else start
        bars.append((start, end))
        ends += [end, *(start * edge for edge in (row["low"], row["high"]) if np.isfinite(edge))]
        reached = end
    low, high = min(ends), max(ends)
    span = max(high / low, 1.05)
    log_axis(axes.yaxis, low / span**0.12, high * span**0.2)
    axes.set_xlim(-0.5, len(steps) - 0.5)
    axes.grid(axis="y", color="#E2E2E2", linewidth=0.6)
    axes.axhline(1.0, color="black", linewidth=1.2, zorder=3)
    longest = max(text_width(word, 7.5) for label in steps["label"] for word in clean(label).split())
    size = 7.5 if longest <= inches else 6.5
    labels = ["\n".join(_wrap(clean(label), inches, size)) for label in steps["label"]]
    axes.set_xticks(range(len(steps)), labels, fontsize=size, parse_math=False)
    for x, (row, (start, end)) in enumerate(zip(steps.to_dict("records"), bars, strict=True)):
        if x and row["role"] != "total":
            axes.hlines(start, x - 1, x, color=INK, linewidth=0.6, linestyle=":", zorder=1)
        if not np.isfinite(row["factor"]):
            say(axes, x, start, "n/a", 0, 4, ha="center", style="italic", color="#444444")
            continue
        role = str(row["role"])
        axes.bar(
            x, end - start, 0.66, start,
            color=_ROLES[role], hatch=_HATCH.get(role, ""), edgecolor=INK, linewidth=0.7, zorder=2,
        )  # fmt: skip
        top = max(start, end)
        if np.isfinite(row["low"]):
            edges = [start * row["low"], start * row["high"]]
            axes.vlines(x, min(edges), max(edges), color="black", linewidth=1.1, zorder=4)
            axes.hlines(edges, x - 0.09, x + 0.09, color="black", linewidth=1.1, zorder=4)
            top = max(top, *edges)
        weight = "bold" if role == "total" else "normal"
        say(axes, x, top, times(row["factor"]), 0, 3, ha="center", va="bottom", fontsize=8, weight=weight)


def _wrap(label: str, inches: float, size: float) -> list[str]:
    lines = textwrap.wrap(label.replace("/", "/ "), max(9, int(inches / 0.066)), break_long_words=False)
    return [fit(line.replace("/ ", "/"), max(inches - 0.03, 0.3), size) for line in lines][:4]


def _caption(steps: pd.DataFrame, level: float, note: str) -> str:
    text = "Each bar multiplies the cost by its factor, from the baseline (1) up; logarithmic axis. "
    n = sorted({int(n) for n in steps["n"].dropna()})
    blocks = f"n = {n[0]}" + (f" to {n[-1]}" if len(n) > 1 else "") + " blocks. " if n else ""
    whiskers = (
        f"Whiskers: {level:.0%} interval of the step's own factor; " if steps["low"].notna().any() else ""
    )
    if (steps["low"].isna() & steps["factor"].notna()).any():
        whiskers += "no whisker: too few blocks for an interval; "
    return text + whiskers + blocks + note
