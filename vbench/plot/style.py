"""The style of all figures: colours, the page with its title, mark and caption, safe text, and saving."""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from vbench.errors import UsageError
from vbench.plot.words import clean, fit

P = ParamSpec("P")
T = TypeVar("T")

# Okabe & Ito, "Color Universal Design" (2008), with grey for black; hatches distinguish bars printed in grey.
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2", "#BBBBBB")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++", "oooo")
MARKERS = ("o", "s", "^", "D", "v", "P", "*", "h")
INK, FAINT, ROOT = "#222222", "#555555", "#777777"  # lines and text, side notes, stacks compared with none
CLOCKS = {
    "wall": "Wall-clock time.",
    "instructions": "INSTRUCTION-COUNTED: time is instructions executed by an emulated processor, not "
    "wall-clock time; no caches, no cost of a VM exit beyond the instructions it causes.",
}
MARK = "INSTRUCTION-COUNTED"
FORMATS = ("png", "svg", "pdf")
WIDTH = 8.5  # inches, unless a figure sets its own
_MARGIN, _CAPTION_LINE, _CAPTION_CHARS_PER_INCH = 0.1, 0.15, 16.7
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "hatch.linewidth": 0.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "vbench",
    "pdf.fonttype": 42,
}


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Make a drawing function use vbench's style, whatever the caller's matplotlib settings."""

    @functools.wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return wrapped


def one_clock(frame: pd.DataFrame) -> str:
    """The clock that all rows share. Raises ValueError if there are no rows, or more than one clock."""
    if frame.empty:
        raise ValueError("there is nothing to draw")
    clocks = [str(clock) for clock in frame["clock"].unique()]
    if len(clocks) > 1:
        raise ValueError("wall-clock and instruction-counted samples do not belong in one figure")
    return clocks[0]


def in_order(frame: pd.DataFrame, stacks: Sequence[str] | None) -> tuple[list[str], Palette]:
    """The stacks in ``frame``, roots first, and the palette for the order that all figures of a run share.

    A root is a stack that is its own baseline.
    """
    there = list(frame["stack"].unique())
    roots = {*frame.loc[frame["stack"] == frame["baseline"], "stack"].unique()}
    order = [name for name in dict.fromkeys([*(stacks or ()), *there]) if name in {*there}]
    return sorted(order, key=lambda name: name not in roots), Palette([*(stacks or ()), *there], roots)


class Palette:
    """A colour, hatch and marker per stack, by its position in the order that all figures of a run share."""

    def __init__(self, stacks: Sequence[str], roots: Iterable[str] = ()) -> None:
        self._roots = {*roots}
        shown = [name for name in dict.fromkeys(stacks) if name not in self._roots]
        self._place = {name: number for number, name in enumerate(shown)}

    def _number(self, stack: str) -> int:
        return self._place.setdefault(stack, len(self._place))

    def colour(self, stack: str) -> str:
        """The stack's fill colour; colours repeat after eight, with a different hatch and marker. Roots are grey."""
        if stack in self._roots:
            return ROOT
        return COLOURS[self._number(stack) % 8]

    def hatch(self, stack: str) -> str:
        """The stack's hatch, which distinguishes bars printed in grey."""
        if stack in self._roots:
            return ""
        number = self._number(stack)
        return HATCHES[(number + number // 8) % 8]

    def marker(self, stack: str) -> str:
        """The stack's marker, which distinguishes points printed in grey."""
        if stack in self._roots:
            return "X"
        number = self._number(stack)
        return MARKERS[(number + number // 8) % 8]


class Sheet:
    """A page laid out in inches: title, lead and mark at the top, caption at the bottom, panels in the body between.

    Positions in the body are relative to its upper left corner.
    """

    def __init__(
        self,
        title: str,
        body: float,
        *,
        caption: str,
        clock: str | None,
        lead: str = "",
        width: float = WIDTH,
    ) -> None:
        counted = clock == "instructions"
        words = caption + (f" {CLOCKS[clock]}" if clock else "")
        lines = textwrap.wrap(clean(words, 2000), int((width - 2 * _MARGIN) * _CAPTION_CHARS_PER_INCH))
        leads = textwrap.wrap(clean(lead, 400), int((width - 2 * _MARGIN) * 15))
        self.width, self.top = width, 0.4 + 0.16 * len(leads)
        self.height = self.top + body + _CAPTION_LINE * len(lines) + 0.16
        self.figure = Figure(figsize=(width, self.height))
        shown = fit(title, width - 2 * _MARGIN - 1.65 * counted, 11, bold=True)
        self.text(_MARGIN, 0.25 - self.top, shown, va="baseline", size=11, weight="bold", color="black")
        if counted:
            badge(self.figure)
        for number, line in enumerate(leads):
            self.text(
                _MARGIN, 0.42 + 0.16 * number - self.top, line, va="baseline", size=8.5, color="#333333"
            )
        for number, line in enumerate(lines):
            y = body + 0.14 + _CAPTION_LINE * number
            self.text(_MARGIN, y, line, va="baseline", size=7.5, color="#333333")

    def text(self, x: float, y: float, text: str, **style: Any) -> Text:
        """Draw plain text ``y`` inches below the top of the body."""
        style = {"color": INK} | style
        place = (x / self.width, 1 - (self.top + y) / self.height)
        return self.figure.text(*place, text, parse_math=False, **style)

    def panel(self, x: float, y: float, width: float, height: float, **kwargs: Any) -> Axes:
        """Add axes with their upper left corner at (x, y)."""
        bottom = 1 - (self.top + y + height) / self.height
        box = (x / self.width, bottom, width / self.width, height / self.height)
        axes = self.figure.add_axes(box, **kwargs)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.tick_params(length=2, labelsize=7.5)
        return axes


def badge(figure: Figure) -> None:
    """Draw the mark of instruction-counted figures in the upper right corner."""
    width, height = figure.get_size_inches()
    box = {"boxstyle": "square,pad=0.35", "facecolor": "black", "edgecolor": "black"}
    place = (1 - 0.16 / width, 1 - 0.2 / height)
    figure.text(*place, MARK, ha="right", va="center", color="white", size=7.5, weight="bold", bbox=box)


def say(axes: Axes, x: float, y: float, text: str, dx: float = 0, dy: float = 0, **style: Any) -> Text:
    """Draw text at a data point, offset by ``dx`` and ``dy`` printer's points; literally, never interpreted as TeX."""
    style = {"fontsize": 7, "zorder": 6, "annotation_clip": False} | style
    return axes.annotate(text, (x, y), (dx, dy), textcoords="offset points", parse_math=False, **style)


def log_axis(axis: Any, low: float, high: float) -> None:
    """Make an axis logarithmic, with plain numbers and as many ticks as its span allows."""
    axes = axis.axes
    which = "x" if axis is axes.xaxis else "y"
    getattr(axes, f"set_{which}scale")("log")
    getattr(axes, f"set_{which}lim")(low, high)
    span = np.log10(high / low)
    near = (1.0, 1.5, 2.0, 3.0, 5.0) if span < 0.7 else (1.0, 2.0, 5.0)
    powers = LogLocator(subs=near if span < 2.3 else (1.0,), numticks=20)
    axis.set_major_locator(MaxNLocator(4) if span < 0.2 else powers)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Label positions close to those wanted, in the same order and at least ``gap`` apart (least squares).

    Method: isotonic regression by pooling adjacent violators, after subtracting the gaps.
    """
    order = np.argsort(np.asarray(wanted, dtype=float), kind="stable")
    blocks: list[list[float]] = []  # each: mean, size
    for rank, index in enumerate(order):
        blocks.append([wanted[index] - rank * gap, 1.0])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            value, size = blocks.pop()
            before, count = blocks.pop()
            blocks.append([(value * size + before * count) / (size + count), size + count])
    flat = [value for value, size in blocks for _ in range(int(size))]
    out = [0.0] * len(flat)
    for rank, index in enumerate(order):
        out[int(index)] = flat[rank] + rank * gap
    return out


@styled
def svg(figure: Figure) -> str:
    """The figure as an SVG element to embed in a page: no prolog, no metadata, glyphs as outlines."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]


@styled
def save(figure: Figure, path: Path | str, *, dpi: int = 150) -> None:
    """Write the figure as PNG, SVG or PDF, by file extension. Raises UsageError."""
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise UsageError(f"cannot write a figure as {path.name}", "use .png, .svg or .pdf")
    try:
        figure.savefig(path, format=kind, dpi=dpi)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
