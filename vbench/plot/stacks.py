"""Stack diagrams as figures: the boxes of ``vbench.plot.diagram``, one column per stack, aligned at the bottom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from vbench.plot.diagram import Box
from vbench.plot.style import (
    INK,
    WIDTH,
    Sheet,
    styled,
)
from vbench.plot.words import clean

# Tints of the palette, light enough for black text.
FILLS = {
    "hardware": "#D9D9D9",
    "kernel": "#BFE1F6",
    "hypervisor": "#F8DDA6",
    "applications": "#BFE6D9",
    "isolator": "none",
}
LINE = "#D55E00"  # an isolator's
_ROW, _STRIP, _GAP, _BETWEEN, _PAD = 0.4, 0.4, 0.06, 0.22, 0.08  # inches
_LETTER = 0.063  # inches: a letter of a label, on average
_LEGEND = {
    "applications": "programs",
    "kernel": "kernel",
    "hypervisor": "hypervisor",
    "hardware": "hardware, real or emulated",
    "isolator": "isolator: a line, not a layer",
}


@dataclass(frozen=True)
class Column:
    """One diagram: its boxes, a caption (``stack``), and lines of text below it (such as totals)."""

    box: Box
    stack: str
    lines: Sequence[str] = ()


@styled
def stack_diagrams(
    columns: Sequence[Column],
    *,
    title: str = "What each stack is made of",
    caption: str = "",
    clock: str | None = None,
    paths: bool = False,
) -> Figure:
    """Stacks to compare column by column; lower is closer to the hardware.

    ``paths`` writes each stack's path into its application box, for columns that hold several stacks side by side.
    Raises ValueError if there are no columns.
    """
    if not columns:
        raise ValueError("there is nothing to draw")
    room = WIDTH - 0.2
    rows: list[list[tuple[Column, float]]] = []
    used = 0.0
    for column in columns:
        below = max(
            len(clean(column.stack)) * 1.1, *(len(clean(line)) * 0.92 for line in ("", *column.lines))
        )
        width = max(_needs(column.box, paths), _LETTER * below)
        if not rows or used + width > room:
            rows.append([])
            used = 0.0
        rows[-1].append((column, width))
        used += width + _BETWEEN
    width = max(WIDTH, *(sum(w for _, w in row) + _BETWEEN * (len(row) - 1) + 0.2 for row in rows))
    heights = [max(_height(column.box) for column, _ in row) for row in rows]
    feet = [0.3 + 0.15 * max(len(column.lines) for column, _ in row) for row in rows]
    body = 0.32 + sum(heights) + sum(feet) + 0.2 * (len(rows) - 1)
    words = "What stands lower runs nearer to the hardware; side by side is side by side on one host."
    words += f" {caption}" if caption else ""
    sheet = Sheet(title, body, caption=words, clock=clock, width=width)
    axes = sheet.panel(0, 0, width, body)
    axes.set(xlim=(0, width), ylim=(body, 0))
    axes.axis("off")
    _legend(axes)
    y = 0.32
    for row, height, foot in zip(rows, heights, feet, strict=True):
        x = 0.1
        for column, wide in row:
            _draw(axes, column.box, x, y + height, _needs(column.box, paths), paths)
            text: Any = {"va": "top", "fontsize": 8, "parse_math": False}
            axes.text(x, y + height + 0.07, clean(column.stack), weight="bold", **text)
            for number, line in enumerate(column.lines):
                axes.text(x, y + height + 0.23 + 0.15 * number, clean(line), **(text | {"fontsize": 7.5}))
            x += wide + _BETWEEN
        y += height + foot + 0.2
    return sheet.figure


def _legend(axes: Axes) -> None:
    x = 0.1
    for kind, word in _LEGEND.items():
        line = kind == "isolator"
        style: Any = {"edgecolor": LINE if line else INK, "linestyle": (0, (3, 2)) if line else "-"}
        axes.add_patch(Rectangle((x, 0.04), 0.2, 0.13, facecolor=FILLS[kind], linewidth=0.8, **style))
        axes.text(x + 0.26, 0.105, word, va="center", fontsize=7.5)
        x += 0.26 + 0.06 * len(word) + 0.2


def _words(box: Box, paths: bool) -> tuple[str, str, str]:
    return (
        clean(box.label, 40),
        clean(box.stack if paths and box.stack else box.note, 60),
        clean(box.factor, 24),
    )


def _needs(box: Box, paths: bool) -> float:
    """The width in inches needed by a box and everything on it."""
    label, note, factor = _words(box, paths)
    bold = len(label) + len(factor)
    letters = max(bold * 1.15 + 2 * bool(factor), len(note) * 0.9)
    above = sum(_needs(child, paths) for child in box.on) + _GAP * max(0, len(box.on) - 1)
    isolator = box.kind == "isolator"
    return max(letters * _LETTER + (0.22 if isolator else 0.16), above + (2 * _PAD if isolator else 0))


def _height(box: Box) -> float:
    above = max((_height(child) for child in box.on), default=0.0)
    return above + (_STRIP + _PAD if box.kind == "isolator" else _ROW)


def _draw(axes: Axes, box: Box, x: float, floor: float, width: float, paths: bool) -> None:
    """Draw a box whose bottom is at ``floor`` (inches from the top), then everything on it."""
    isolator = box.kind == "isolator"
    height = _STRIP if isolator else _ROW
    if isolator:
        inset = 0.03
        whole = _height(box) - 2 * inset
        axes.add_patch(
            FancyBboxPatch(
                (x + inset, floor - inset - whole), width - 2 * inset, whole,
                boxstyle="round,pad=0,rounding_size=0.06",
                facecolor="none", edgecolor=LINE, linewidth=1.3, linestyle=(0, (4, 2)), zorder=3,
            )
        )  # fmt: skip
    else:
        measured = box.kind == "applications" and bool(box.stack)
        tools = box.kind == "applications" and not box.stack
        axes.add_patch(
            Rectangle(
                (x, floor - height), width, height,
                facecolor="#EEF7F4" if tools else FILLS[box.kind], edgecolor=INK, linewidth=1.2 if measured else 0.7,
            )
        )  # fmt: skip
    label, note, factor = _words(box, paths)
    middle = floor - height / 2 - 0.02 * isolator
    left = x + (0.1 if isolator else 0.07)
    text: Any = {"va": "center", "zorder": 5, "parse_math": False}
    up = 0.085 if note else 0.0
    axes.text(left, middle - up, label, fontsize=8, weight="bold", **text)
    if factor:
        axes.text(
            x + width - (left - x),
            middle - up,
            factor,
            fontsize=8,
            weight="bold",
            ha="right",
            color="#A63C00",
            **text,
        )
    if note:
        axes.text(left, middle + 0.085, note, fontsize=7, color="#333333", **text)
    inner = width - (2 * _PAD if isolator else 0)
    at = x + (_PAD if isolator else 0)
    needs = [_needs(child, paths) for child in box.on]
    spare = inner - sum(needs) - _GAP * max(0, len(needs) - 1)
    for child, need in zip(box.on, needs, strict=True):
        share = need + spare / len(needs)
        _draw(axes, child, at, floor - height, share, paths)
        at += share + _GAP
