"""The time of one operation, in absolute units, which tells an additive cost from a multiplicative one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vbench.plot.style import (
    FAINT,
    INK,
    WIDTH,
    Palette,
    Sheet,
    in_order,
    log_axis,
    one_clock,
    say,
    styled,
)
from vbench.plot.words import TIMES, blocks_text, fit, text_width
from vbench.stats.added import SECONDS
from vbench.terms import KINDS

_RATE = "1/s"  # operations per second: the inverse is the time of one
_ROW, _LEFT, _SIDE = 0.3, 2.0, 3.0
_GUIDES = (2, 10, 100)


def per_operation(samples: pd.DataFrame) -> pd.DataFrame:
    """Seconds per operation: one row per stack, workload, params and metric, if its unit is a time or a rate.

    Columns: stack, baseline, workload, params, metric, clock, n (blocks), seconds (median), low and high (the
    smallest and largest), and base (the baseline's median). Warm-ups and values at or below 0 are left out.
    """
    s = samples.loc[~samples["warmup"].astype(bool) & (samples["value"] > 0)]
    s = s[
        s["unit"].isin(SECONDS) & (s["better"] == "lower") | (s["unit"] == _RATE) & (s["better"] == "higher")
    ]
    value = s["value"] * s["unit"].map(SECONDS).astype(float)
    s = s.assign(seconds=value.where(s["unit"] != _RATE, 1 / s["value"]))
    by = ["stack", "baseline", "workload", "params", "metric", "clock"]
    groups = s.groupby(by, sort=False)
    out = groups.agg(
        n=("block", "nunique"), seconds=("seconds", "median"), low=("seconds", "min"), high=("seconds", "max")
    ).reset_index()
    bases = out[["stack", "workload", "params", "metric", "seconds"]].rename(
        columns={"stack": "baseline", "seconds": "base"}
    )
    return out.merge(bases, on=["baseline", "workload", "params", "metric"], how="left")


@styled
def cost_per_operation(
    operations: pd.DataFrame,
    *,
    kinds: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
    primary: Mapping[str, str] | None = None,
    stacks: Sequence[str] | None = None,
) -> Figure:
    """Left: the time of one operation in every stack. Right: the time added, plotted over the time on the baseline.

    ``operations``: as returned by :func:`per_operation`, of one clock (ValueError otherwise, or if empty). If it has a
    column ``called``, cells whose difference is not called are drawn hollow. On the right, points of an additive cost
    lie on a horizontal line, those of a constant ratio on a diagonal.
    """
    frame = operations
    if primary:
        frame = frame[frame["metric"] == frame["workload"].map(dict(primary)).fillna(frame["metric"])]
    clock = one_clock(frame)
    kinds, titles = kinds or {}, titles or {}
    present, palette = in_order(frame, stacks)
    several: Any = frame.groupby("workload")[["metric", "params"]].nunique()
    rows = []
    for key, cells in frame.groupby(["workload", "params", "metric"], sort=False):
        workload, params, metric = map(str, key)
        label = titles.get(workload, workload)
        label += f" {metric}" * bool(several.loc[workload, "metric"] > 1)
        label += f" {params}" * bool(several.loc[workload, "params"] > 1)
        kind = kinds.get(workload, "")
        rows.append((KINDS.index(kind) if kind in KINDS else len(KINDS), fit(label, _LEFT - 0.15, 8), cells))
    rows.sort(key=lambda row: (row[0], row[2]["seconds"].min()))
    added = frame[(frame["stack"] != frame["baseline"]) & frame["base"].notna()]
    legend = (
        0.18 * -(-len(present) // legend_columns([fit(name, 3.2, 8) + " (baseline)" for name in present]))
        + 0.05
    )
    height = max(2.5, _ROW * len(rows))
    cheaper = int((added["seconds"] <= added["base"]).sum())
    sheet = Sheet(
        "Cost of one operation",
        legend + 0.25 + height + 0.45,
        caption=_caption(frame, cheaper),
        clock=clock,
        lead="Left: time per operation. Right: points on a level line are an additive cost, along a "
        "diagonal a ratio.",
    )
    y = legend + 0.25
    _legend(sheet, present, palette, {*frame.loc[frame["stack"] == frame["baseline"], "stack"]})
    left = sheet.panel(_LEFT, y, WIDTH - _LEFT - _SIDE - 0.55, height)
    _times(left, rows, present, palette)
    right = sheet.panel(WIDTH - _SIDE + 0.1, y, _SIDE - 0.45, height)
    _added(right, added[added["seconds"] > added["base"]], palette)
    for axes, word in ((left, "Time of one operation"), (right, "Time added by the stack")):
        axes.text(0, 1 + 0.07 / height, word, transform=axes.transAxes, weight="bold", fontsize=9)
    return sheet.figure


def _legend(sheet: Sheet, stacks: list[str], palette: Palette, bases: set[str]) -> None:
    handles = [
        Line2D([], [], linestyle="", marker=palette.marker(name), markersize=5.5, markeredgecolor=INK,
               markeredgewidth=0.5, color=palette.colour(name))
        for name in stacks
    ]  # fmt: skip
    words = [fit(name, 3.2, 8, end=True) + (" (baseline)" if name in bases else "") for name in stacks]
    words = [f" {word}" if word.startswith("_") else word for word in words]
    columns = legend_columns(words)
    place = (0.05 / sheet.width, 1 - (sheet.top - 0.02) / sheet.height)
    box = sheet.figure.legend(
        handles, words, loc="upper left", bbox_to_anchor=place, ncols=columns, frameon=False
    )
    for text in box.get_texts():
        text.set_parse_math(False)


def legend_columns(words: Sequence[str]) -> int:
    """How many legend columns with these labels fit across the page."""
    return max(1, min(4, int((WIDTH - 0.2) / (0.6 + max(text_width(word, 8) for word in words)))))


def _times(axes: Axes, rows: list[Any], stacks: list[str], palette: Palette) -> None:
    values = pd.concat([cells[["low", "high"]] for _, _, cells in rows]).to_numpy(dtype=float)
    log_axis(axes.xaxis, values.min() / 1.4, values.max() * 1.4)
    _time_ticks(axes.xaxis)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [label for _, label, _ in rows], fontsize=8, parse_math=False)
    axes.grid(axis="both", color="#E6E6E6", linewidth=0.6)
    for y, (_, _, cells) in enumerate(rows):
        for row in cells.itertuples():
            place = y + (stacks.index(str(row.stack)) - (len(stacks) - 1) / 2) * 0.8 / max(1, len(stacks))
            axes.hlines(place, row.low, row.high, color=INK, linewidth=0.8, zorder=3)
            _point(axes, row.seconds, place, str(row.stack), palette)


def _added(axes: Axes, added: pd.DataFrame, palette: Palette) -> None:
    if added.empty:
        axes.axis("off")
        axes.text(0, 0.9, "no stack adds time here", transform=axes.transAxes, fontsize=8)
        return
    extra = added["seconds"] - added["base"]
    low = min(added["base"].min(), extra.min()) / 2
    xs = (added["base"].min() / 2, added["base"].max() * 2)
    ys = (low if low > extra.min() / 4 else extra.min() / 2, extra.max() * 2.5)
    log_axis(axes.xaxis, *xs)
    log_axis(axes.yaxis, *ys)
    _time_ticks(axes.xaxis)
    _time_ticks(axes.yaxis)
    axes.grid(color="#E6E6E6", linewidth=0.6)
    for factor in _GUIDES:
        line = np.array(xs) * (factor - 1)
        axes.plot(xs, line, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        x = min(xs[1], ys[1] / (factor - 1))
        y = x * (factor - 1)
        if ys[0] * (ys[1] / ys[0]) ** 0.08 < y and xs[0] * (xs[1] / xs[0]) ** 0.12 < x:
            at_top = y >= ys[1] * 0.999  # at the top the label goes before the line, otherwise below it
            say(
                axes,
                x,
                y,
                f"{TIMES}{factor}",
                -9 if at_top else -1,
                -1 if at_top else -7,
                color=FAINT,
                ha="right",
                va="top",
            )
    for row in added.to_dict("records"):
        called = bool(row.get("called", True))
        _point(axes, row["base"], row["seconds"] - row["base"], str(row["stack"]), palette, called=called)
    axes.set_xlabel("time of the operation on the baseline", fontsize=7.5)


def _point(axes: Axes, x: Any, y: Any, stack: str, palette: Palette, *, called: bool = True) -> None:
    colour = palette.colour(stack)
    axes.plot(
        [x], [y], linestyle="", marker=palette.marker(stack), markersize=5.5,
        markeredgecolor=INK if called else colour, markeredgewidth=0.5 if called else 1.1,
        color=colour if called else "white", zorder=4 if called else 3.5,
    )  # fmt: skip


def _time_ticks(axis: Any) -> None:
    axis.set_major_formatter(lambda value, _: time_text(value))


def time_text(seconds: float) -> str:
    """A time in a suitable unit: 677 ns, 43 µs, 1.2 ms, 3 s."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size * 0.9995:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _caption(frame: pd.DataFrame, cheaper: int) -> str:
    text = f"Points: median over blocks; lines: smallest to largest; {blocks_text(frame['n'])}. "
    text += "Logarithmic axes. Dashed: where the operation takes 2, 10 and 100 times the baseline's time. "
    text += "Only workloads measured as a time or as operations a second are here. "
    text += "Hollow: no difference is called. " if "called" in frame else ""
    return text + (f"Cells that add no time are not at the right: {cheaper}." if cheaper else "")
