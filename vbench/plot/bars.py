"""Bar chart of relative performance by technique."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from vbench.plot.groups import (
    GAP,
    LABEL_FLAT,
    LABEL_TURNED,
    LEFT,
    LEVEL,
    PANEL,
    RIGHT,
    Group,
    Scale,
    groups_of,
    rows_of,
    scale_of,
)
from vbench.plot.style import (
    CLOCKS,
    INK,
    WIDTH,
    Palette,
    badge,
    one_clock,
    styled,
)
from vbench.plot.words import blocks_text, clean, level_text, number_text

# Inches.
_BAR, _GROUP_MIN = 0.24, 0.95
_ABOVE, _LINE = 0.32, 0.14


@styled
def relative_performance(
    overheads: pd.DataFrame,
    *,
    kinds: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
    primary: Mapping[str, str] | None = None,
    stacks: Sequence[str] | None = None,
    techniques: Mapping[str, str] | None = None,
) -> Figure:
    """Relative performance by technique, after Figure 3 of "Xen and the Art of Virtualization" (2003).

    ``overheads``: as returned by ``vbench.stats.overhead.overheads``, of one clock (ValueError otherwise, or if
    empty). Relative performance is 1 / ratio: 1 is the baseline, higher is better. By workload name: ``kinds``
    (default: the column), ``titles``, and ``primary``, the one metric to show. ``stacks`` sets the order of the bars;
    ``techniques`` adds words to the legend. A missing cell reads "n/a", never 0.
    """
    frame = overheads
    if primary:
        frame = frame[frame["metric"] == frame["workload"].map(dict(primary)).fillna(frame["metric"])]
    clock = one_clock(frame)
    names = [s for s in dict.fromkeys([*(stacks or ()), *frame["stack"]]) if (frame["stack"] == s).any()]
    groups = groups_of(frame, kinds or {}, titles or {})
    return _draw(groups, names, techniques or {}, frame, clock, Palette([*(stacks or ()), *names]))


def _draw(
    groups: list[Group],
    stacks: list[str],
    techniques: Mapping[str, str],
    frame: pd.DataFrame,
    clock: str,
    looks: Palette,
) -> Figure:
    width = max(_GROUP_MIN, (len(stacks) + 0.8) * _BAR)
    rows = rows_of(groups, width)
    # Stretch all rows to the page by the same factor, the most that the fullest row allows.
    room = min((WIDTH - LEFT - RIGHT - GAP * (len(r) - 1)) / sum(map(len, r)) for r in rows)
    width = min(room, 2.0 * width)
    bar = min(width / (len(stacks) + 0.8), 0.5)
    scale = scale_of(groups, bar)

    baselines = ", ".join(clean(name) for name in frame["baseline"].unique())
    legend = [
        Patch(facecolor=looks.colour(name), edgecolor=INK, linewidth=0.6, hatch=looks.hatch(name))
        for name in stacks
    ]
    over = (
        dict(zip(frame["stack"], frame["baseline"], strict=True)) if frame["baseline"].nunique() > 1 else {}
    )
    labels = [
        clean(
            stack
            + (f" ({techniques[stack]})" if techniques.get(stack) else "")
            + (f" over {over[stack]}" if over else "")
        )
        for stack in stacks
    ]
    labels = [f" {label}" if label.startswith("_") else label for label in labels]  # a legend skips "_..."
    columns = max(1, min(len(stacks) + 1, int((WIDTH - 0.4) / (0.6 + 0.062 * max(map(len, labels))))))
    lines = math.ceil((len(stacks) + 1) / columns)
    below = 0.16 + _LINE * max(len(_wrap(group.label, width)) for group in groups)
    caption = textwrap.wrap(_caption(frame, baselines, scale) + " " + CLOCKS[clock], 142)
    top = 0.38 + 0.17 * lines
    bottom = 0.15 * len(caption) + 0.12
    height = top + len(rows) * (_ABOVE + PANEL + below) + bottom

    title = "Relative performance by technique"
    figure = Figure(figsize=(WIDTH, height))
    if clock == "instructions":
        badge(figure)
    _text(figure, 0.1, height - 0.25, title, size=11, weight="bold")
    box = figure.legend(
        [Line2D([], [], color="black", linewidth=1.2), *legend],
        [f"baseline = 1: {baselines}", *labels],
        loc="upper left",
        bbox_to_anchor=(0.05 / WIDTH, (height - 0.33) / height),
        ncols=columns,
        frameon=False,
        handlelength=2.2,
        handleheight=1.0,
    )
    for text in box.get_texts():
        text.set_parse_math(False)
    y = height - top
    for row in rows:
        y -= _ABOVE + PANEL
        x = LEFT
        for number, panel in enumerate(row):
            size = len(panel) * width
            axes = figure.add_axes((x / WIDTH, y / height, size / WIDTH, PANEL / height))
            _panel(axes, panel, stacks, legend, bar / width, scale)
            _dress(axes, panel, width, scale, first=number == 0)
            x += size + GAP
        y -= below
    for number, line in enumerate(caption):
        _text(figure, 0.1, bottom - 0.15 * (number + 1), line, size=7.5, color="#333333")
    return figure


def _text(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    width, height = figure.get_size_inches()
    figure.text(x / width, y / height, text, parse_math=False, **style)


def _caption(frame: pd.DataFrame, baselines: str, scale: Scale) -> str:
    text = f"Relative performance = baseline's cost / stack's cost; {baselines} = 1; higher is better"
    text += " (logarithmic axis; bars hang from the baseline)." if scale.log else "."
    text += " Bars: Hodges-Lehmann estimate. "
    if frame["low"].notna().any():
        text += f"Whiskers: exact signed-rank interval ({level_text(frame)}); "
    if (frame["low"].isna() & frame["ratio"].notna()).any():
        text += "No whisker: too few blocks for an interval; "
    known = frame[frame["ratio"].notna()]
    blocks = blocks_text(known["n"], known.get("boots", ()))
    return text + f"{blocks}. n/a: not measured, see the table."


def _panel(
    axes: Axes, panel: list[Group], stacks: list[str], legend: list[Patch], bar: float, scale: Scale
) -> None:
    axes.axhline(1.0, color="black", linewidth=1.2, zorder=3)
    for position, group in enumerate(panel):
        for number, stack in enumerate(stacks):
            x = position + (number - (len(stacks) - 1) / 2) * bar
            row = group.bars.get(stack)
            if row is None or not np.isfinite(row["ratio"]):
                style = (
                    {"rotation": 90, "va": "top" if scale.log else "bottom"}
                    if scale.turned
                    else {"va": "center"}
                )
                _label(
                    axes,
                    x,
                    scale.floor,
                    "n/a",
                    -1 if scale.log else 1,
                    color="#555555",
                    style="italic",
                    **style,
                )
                continue
            value = 1 / row["ratio"]
            key = legend[number]
            axes.bar(
                x,
                value - scale.floor,
                bar * 0.92,
                scale.floor,
                color=key.get_facecolor(),
                edgecolor="#222222",
                linewidth=0.6,
                hatch=key.get_hatch(),
            )
            low, high = (1 / row["high"], 1 / row["low"]) if np.isfinite(row["low"]) else (value, value)
            axes.vlines(x, low, high, color="black", linewidth=1.0, zorder=4)
            if low < high:
                axes.hlines([low, high], x - bar * 0.2, x + bar * 0.2, color="black", linewidth=1.0, zorder=4)
            down = scale.log and value <= LEVEL  # above the bar there is room only if something is higher
            end = low if down else high
            if (
                not scale.log
                and end < 1 < end + scale.high * (LABEL_TURNED if scale.turned else LABEL_FLAT) / PANEL
            ):
                end = 1.0  # otherwise the baseline would run through the label
            _label(axes, x, end, number_text(value), -1 if down else 1, rotation=90 if scale.turned else 0)


def _label(axes: Axes, x: float, y: float, text: str, side: int, **style: Any) -> None:
    style = {"ha": "center", "va": "bottom" if side > 0 else "top", "fontsize": 7, "zorder": 5} | style
    axes.annotate(text, (x, y), (0, 2.5 * side), textcoords="offset points", parse_math=False, **style)


def _dress(axes: Axes, panel: list[Group], width: float, scale: Scale, *, first: bool) -> None:
    """Draw a panel's title, group labels, ticks and grid."""
    axes.set_xlim(-0.5, len(panel) - 0.5)
    axes.set_ylim(scale.low, scale.high)
    axes.xaxis.set_major_locator(FixedLocator([]))
    if scale.log:
        axes.set_yscale("log")
        axes.set_ylim(scale.low, scale.high)
        wide = math.log10(scale.high / scale.low) > 2.3
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.tick_params(axis="y", length=2, labelleft=first, labelsize=7.5)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if first:
        axes.set_ylabel("relative performance", fontsize=7.5)
    axes.text(
        0, 1.04, clean(panel[0].kind), transform=axes.transAxes, weight="bold", size=9, parse_math=False
    )
    for position, group in enumerate(panel):
        axes.annotate(
            "\n".join(_wrap(group.label, width)),
            (position, 0),
            (0, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8,
            parse_math=False,
        )


def _wrap(label: str, width: float) -> list[str]:
    """Wrap a group's label to the group's width, in at most three lines."""
    limit = max(8, int(width / 0.066))
    lines = textwrap.wrap(label, limit)
    return lines if len(lines) <= 3 else [*lines[:2], clean(lines[2] + " …", limit - 1)]
