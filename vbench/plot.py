"""Figures: DataFrame in, matplotlib Figure out. No global state, so it is safe in servers and notebooks.

Text from a bundle is drawn as it is: never read as TeX, control characters replaced, length bounded.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from vbench.errors import UsageError

# Okabe & Ito, "Color Universal Design" (2008), its black replaced by grey; hatches carry grey print.
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2", "#BBBBBB")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++", "oooo")
KINDS = ("cpu", "memory", "disk", "network", "os")
CLOCKS = {
    "wall": "Wall-clock time.",
    "instructions": "INSTRUCTION-COUNTED: time is instructions executed by an emulated processor, not "
    "wall-clock time; no caches, no cost of a VM exit beyond the instructions it causes.",
}
LOG_SPAN = 20.0  # ratios spanning more than this are drawn on a logarithmic axis

# Inches.
_WIDTH, _LEFT, _RIGHT, _GAP = 8.5, 0.6, 0.1, 0.2
_BAR, _GROUP_MIN = 0.24, 0.95
_PANEL, _ABOVE, _LINE = 1.9, 0.32, 0.14
_LABEL_FLAT, _LABEL_TURNED = 0.2, 0.4
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "hatch.linewidth": 0.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "vbench",
    "pdf.fonttype": 42,
}


def clean(text: object, limit: int = 80) -> str:
    """Text that is safe to draw: printable, bounded."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


@dataclass(frozen=True)
class _Group:
    """One workload on the axis: its bars, by stack."""

    kind: str
    label: str
    bars: dict[str, Any]


@dataclass(frozen=True)
class _Scale:
    """The vertical axis that all panels share."""

    log: bool
    low: float
    high: float
    turned: bool

    @property
    def floor(self) -> float:
        """Where bars begin: a logarithmic axis has no 0, so there they hang from the baseline."""
        return 1.0 if self.log else 0.0


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

    ``overheads`` as from ``vbench.overhead.overheads``, of one kind of clock (ValueError otherwise, and where
    it is empty). Relative performance is 1 / ratio: 1 is the baseline, higher is better. By workload name:
    ``kinds`` (else the column), ``titles``, and ``primary``, the one metric to show. ``stacks`` sets the
    order of the bars; ``techniques`` adds words to the legend. A missing cell reads "n/a", never 0.
    """
    frame = overheads
    if primary:
        frame = frame[frame["metric"] == frame["workload"].map(dict(primary)).fillna(frame["metric"])]
    if frame.empty:
        raise ValueError("there is no overhead to draw")
    clocks = frame["clock"].unique()
    if len(clocks) > 1:
        raise ValueError("wall-clock and instruction-counted samples do not belong in one figure")
    names = [s for s in dict.fromkeys([*(stacks or ()), *frame["stack"]]) if (frame["stack"] == s).any()]
    groups = _groups(frame, kinds or {}, titles or {})
    with mpl.rc_context(_STYLE):
        return _draw(groups, names, techniques or {}, frame, CLOCKS[str(clocks[0])])


def _groups(frame: pd.DataFrame, kinds: Mapping[str, str], titles: Mapping[str, str]) -> list[_Group]:
    several: Any = frame.groupby("workload")[["metric", "params"]].nunique()
    rows = []
    for key, cell in frame.groupby(["workload", "params", "metric"], sort=False):
        workload, params, metric = map(str, key)
        label = [titles.get(workload, workload)]
        label += [metric] * bool(several.loc[workload, "metric"] > 1)
        label += [params.strip("{}").replace('"', "")] * bool(several.loc[workload, "params"] > 1)
        kind = kinds.get(workload, cell["kind"].iloc[0])
        rows.append(_Group(kind, clean(" ".join(label)), {row["stack"]: row for _, row in cell.iterrows()}))
    order = [*KINDS, *sorted({group.kind for group in rows} - {*KINDS})]
    place = {name: number for number, name in enumerate(titles)}
    first = {id(g): place.get(next(iter(g.bars.values()))["workload"], len(place)) for g in rows}
    return sorted(rows, key=lambda g: (order.index(g.kind), first[id(g)], g.label))


def _scale(groups: list[_Group], bar: float) -> _Scale:
    cells = pd.DataFrame([row for group in groups for row in group.bars.values()])
    ratios = cells[["ratio", "low", "high"]].to_numpy(dtype=float).ravel()
    shown = 1 / ratios[np.isfinite(ratios) & (ratios > 0)]
    low, high = min(1.0, *shown, 1.0), max(1.0, *shown, 1.0)
    turned = bar < 0.33
    room = _LABEL_TURNED if turned else _LABEL_FLAT
    if high / low <= LOG_SPAN:
        return _Scale(False, 0.0, high * _PANEL / (_PANEL - room), turned)
    above = room if high > 1.001 else 0.08
    per_inch = math.log(high / low) / (_PANEL - room - above)
    return _Scale(True, low * math.exp(-room * per_inch), high * math.exp(above * per_inch), turned)


def _rows(groups: list[_Group], width: float) -> list[list[list[_Group]]]:
    """Panels (one kind each) set in rows like words in lines; a kind too wide for a line is split evenly."""
    per_row = max(1, int((_WIDTH - _LEFT - _RIGHT) // width))
    rows: list[list[list[_Group]]] = []
    for kind in dict.fromkeys(group.kind for group in groups):
        members = [group for group in groups if group.kind == kind]
        size = math.ceil(len(members) / math.ceil(len(members) / per_row))
        for start in range(0, len(members), size):
            panel = members[start : start + size]
            used = sum(len(p) * width + _GAP for p in rows[-1]) if rows else math.inf
            if used + len(panel) * width > _WIDTH - _LEFT - _RIGHT:
                rows.append([])
            rows[-1].append(panel)
    return rows


def _draw(
    groups: list[_Group], stacks: list[str], techniques: Mapping[str, str], frame: pd.DataFrame, clock: str
) -> Figure:
    width = max(_GROUP_MIN, (len(stacks) + 0.8) * _BAR)
    rows = _rows(groups, width)
    # Stretch to the page: by as much as the fullest row allows, the same for all.
    room = min((_WIDTH - _LEFT - _RIGHT - _GAP * (len(r) - 1)) / sum(map(len, r)) for r in rows)
    width = min(room, 2.0 * width)
    bar = min(width / (len(stacks) + 0.8), 0.5)
    scale = _scale(groups, bar)

    baselines = ", ".join(clean(name) for name in frame["baseline"].unique())
    legend = [
        Patch(facecolor=COLOURS[i % 8], edgecolor="#222222", linewidth=0.6, hatch=HATCHES[(i + i // 8) % 8])
        for i in range(len(stacks))
    ]
    labels = [clean(f"{stack} ({techniques[stack]})" if techniques.get(stack) else stack) for stack in stacks]
    labels = [f" {label}" if label.startswith("_") else label for label in labels]  # a legend skips "_..."
    columns = max(1, min(len(stacks) + 1, int((_WIDTH - 0.4) / (0.6 + 0.062 * max(map(len, labels))))))
    lines = math.ceil((len(stacks) + 1) / columns)
    below = 0.16 + _LINE * max(len(_wrap(group.label, width)) for group in groups)
    caption = textwrap.wrap(_caption(frame, baselines, scale) + " " + clock, 142)
    top = 0.38 + 0.17 * lines
    bottom = 0.15 * len(caption) + 0.12
    height = top + len(rows) * (_ABOVE + _PANEL + below) + bottom

    title = "Relative performance by technique"
    title += ", instruction-counted" * bool((frame["clock"] == "instructions").any())
    figure = Figure(figsize=(_WIDTH, height))
    _text(figure, 0.1, height - 0.25, title, size=11, weight="bold")
    box = figure.legend(
        [Line2D([], [], color="black", linewidth=1.2), *legend],
        [f"baseline = 1: {baselines}", *labels],
        loc="upper left",
        bbox_to_anchor=(0.05 / _WIDTH, (height - 0.33) / height),
        ncols=columns,
        frameon=False,
        handlelength=2.2,
        handleheight=1.0,
    )
    for text in box.get_texts():
        text.set_parse_math(False)
    y = height - top
    for row in rows:
        y -= _ABOVE + _PANEL
        x = _LEFT
        for number, panel in enumerate(row):
            size = len(panel) * width
            axes = figure.add_axes((x / _WIDTH, y / height, size / _WIDTH, _PANEL / height))
            _panel(axes, panel, stacks, legend, bar / width, scale)
            _dress(axes, panel, width, scale, first=number == 0)
            x += size + _GAP
        y -= below
    for number, line in enumerate(caption):
        _text(figure, 0.1, bottom - 0.15 * (number + 1), line, size=7.5, color="#333333")
    return figure


def _text(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    width, height = figure.get_size_inches()
    figure.text(x / width, y / height, text, parse_math=False, **style)


def _caption(frame: pd.DataFrame, baselines: str, scale: _Scale) -> str:
    n = frame.loc[frame["ratio"].notna(), "n"]
    blocks = "no" if n.empty else f"{n.min()}" if n.min() == n.max() else f"{n.min()} to {n.max()}"
    text = f"Relative performance = baseline's cost / stack's cost; {baselines} = 1; higher is better"
    text += " (logarithmic axis; bars hang from the baseline)." if scale.log else "."
    text += " Bars: Hodges-Lehmann estimate. "
    if frame["low"].notna().any():
        text += f"Whiskers: exact signed-rank {frame['level'].iloc[0]:.0%} interval; "
    if (frame["low"].isna() & frame["ratio"].notna()).any():
        text += "No whisker: too few blocks for an interval; "
    return text + f"n = {blocks} blocks. n/a: not measured, see the table."


def _panel(
    axes: Axes, panel: list[_Group], stacks: list[str], legend: list[Patch], bar: float, scale: _Scale
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
            down = scale.log and value < 1
            end = low if down else high
            if (
                not scale.log
                and end < 1 < end + scale.high * (_LABEL_TURNED if scale.turned else _LABEL_FLAT) / _PANEL
            ):
                end = 1.0  # else the baseline would strike through the label
            _label(axes, x, end, number_text(value), -1 if down else 1, rotation=90 if scale.turned else 0)


def _label(axes: Axes, x: float, y: float, text: str, side: int, **style: Any) -> None:
    style = {"ha": "center", "va": "bottom" if side > 0 else "top", "fontsize": 7, "zorder": 5} | style
    axes.annotate(text, (x, y), (0, 2.5 * side), textcoords="offset points", parse_math=False, **style)


def number_text(value: float) -> str:
    """Two decimals near 1; two significant digits far below, none superfluous far above."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}" if value >= 1e-4 else f"{value:.0e}"


def _dress(axes: Axes, panel: list[_Group], width: float, scale: _Scale, *, first: bool) -> None:
    """Title, group labels, ticks and grid."""
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
    """A group's label in at most three lines of a group's width."""
    limit = max(8, int(width / 0.066))
    lines = textwrap.wrap(label, limit)
    return lines if len(lines) <= 3 else [*lines[:2], clean(lines[2] + " …", limit - 1)]


def svg(figure: Figure) -> str:
    """The figure as an SVG element to set in a page: no prolog, no metadata, glyphs as outlines."""
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def save(figure: Figure, path: Path | str, *, dpi: int = 300) -> None:
    """Write the figure as PNG, SVG or PDF, by the name's ending. Raises UsageError."""
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "svg", "pdf"):
        raise UsageError(f"cannot write a figure as {path.name}", "use .png, .svg or .pdf")
    try:
        with mpl.rc_context(_STYLE):
            figure.savefig(path, format=kind, dpi=dpi)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
