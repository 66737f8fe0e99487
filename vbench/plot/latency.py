"""Latency distributions, from the percentiles that a workload reports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vbench.plot.absolute import time_text
from vbench.plot.style import (
    INK,
    WIDTH,
    Palette,
    Sheet,
    in_order,
    log_axis,
    one_clock,
    say,
    spread,
    styled,
)
from vbench.plot.words import blocks_text, fit
from vbench.stats.added import SECONDS

PERCENTILE = re.compile(r"^(?:(?P<of>.*)-)?p(?P<percent>\d{1,2}(?:\.\d+)?)$")
_PANEL, _NAMES = 2.4, 1.75


def percentiles(samples: pd.DataFrame) -> pd.DataFrame:
    """Percentiles of times: one row per cell whose metric is one ("p99", "fsync-p99.9") and has a unit of time.

    Columns: stack, baseline, workload, params, of (what the percentile is of: "fsync", or ""), percent, clock, n
    (blocks), seconds (median over blocks), low, high (smallest and largest). Only distributions with at least two
    percentiles.
    """
    s = samples.loc[~samples["warmup"].astype(bool) & samples["unit"].isin(SECONDS) & (samples["value"] > 0)]
    found = {name: match for name in s["metric"].unique() if (match := PERCENTILE.match(name))}
    s = s[s["metric"].isin(found)]
    s = s.assign(
        of=s["metric"].map({name: match["of"] or "" for name, match in found.items()}).astype("str"),
        percent=s["metric"]
        .map({name: float(match["percent"]) for name, match in found.items()})
        .astype(float),
    )
    s = s.assign(seconds=s["value"] * s["unit"].map(SECONDS).astype(float))
    by = ["stack", "baseline", "workload", "params", "of", "percent", "clock"]
    out = s.groupby(by, sort=False).agg(
        n=("block", "nunique"), seconds=("seconds", "median"), low=("seconds", "min"), high=("seconds", "max")
    )
    out = out.reset_index()
    many = out.groupby(["workload", "params", "of"])["percent"].transform("nunique") > 1
    return out[many].sort_values("percent", kind="stable").reset_index(drop=True)


@styled
def latency(
    distributions: pd.DataFrame,
    *,
    titles: Mapping[str, str] | None = None,
    stacks: Sequence[str] | None = None,
) -> Figure:
    """Latency percentiles by stack, one panel per workload, on an axis that gives room to the tail.

    ``distributions``: as returned by :func:`percentiles`, of one clock (ValueError otherwise, or if empty).
    """
    clock = one_clock(distributions)
    titles = titles or {}
    _, palette = in_order(distributions, stacks)
    panels = [(key, part) for key, part in distributions.groupby(["workload", "params", "of"], sort=False)]
    columns = min(2, len(panels))
    width = (WIDTH - 0.2) / columns
    rows = -(-len(panels) // columns)
    sheet = Sheet(
        "Distribution of latency",
        rows * (_PANEL + 0.75),
        caption=f"Points: median over blocks of each block's percentile; bars: smallest to largest; "
        f"{blocks_text(distributions['n'])}. Logarithmic axis of time; the axis of percentiles is stretched "
        "towards the tail. A percentile is an observed value of single operations.",
        clock=clock,
        lead="Time of one operation at each percentile: a flat line is even, a steep one has a long tail.",
    )
    for number, (key, part) in enumerate(panels):
        workload, params, of = map(str, key)
        x, y = 0.1 + width * (number % columns), (_PANEL + 0.75) * (number // columns) + 0.3
        axes = sheet.panel(x + 0.5, y, min(5.5, width - 0.6 - _NAMES), _PANEL)
        words = [titles.get(workload, workload), of, params if params != "{}" else ""]
        label = fit(
            ", ".join(word for word in words if word), min(5.5, width - 0.6 - _NAMES) + 1, 9, bold=True
        )
        axes.text(0, 1.035, label, transform=axes.transAxes, weight="bold", fontsize=9, parse_math=False)
        _panel(axes, part, palette)
    return sheet.figure


def _stretch(percent: pd.Series) -> pd.Series:
    return -np.log10(1 - percent / 100)  # type: ignore[no-any-return]


def _panel(axes: Axes, part: pd.DataFrame, palette: Palette) -> None:
    ticks = pd.Series(sorted(part["percent"].unique()))
    places = _stretch(ticks)
    axes.set_xticks(list(places), [f"p{tick:g}" for tick in ticks])
    axes.set_xlim(places.min() - 0.12, places.max() + 0.08)
    low, high = part["low"].min() / 1.3, part["high"].max() * 1.3
    log_axis(axes.yaxis, low, high)
    axes.yaxis.set_major_formatter(lambda value, _: time_text(value))
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_xlabel("percentile", fontsize=7.5)
    ends: list[tuple[str, float, float]] = []
    lines = list(part.groupby("stack", sort=False))
    for number, (stack, line) in enumerate(lines):
        x = _stretch(line["percent"]) + (number - (len(lines) - 1) / 2) * 0.03
        colour, marker = palette.colour(str(stack)), palette.marker(str(stack))
        axes.vlines(x, line["low"], line["high"], color=colour, linewidth=1.1, zorder=2)
        axes.plot(x, line["seconds"], color=INK, linewidth=1.9, zorder=2.5)
        axes.plot(
            x, line["seconds"], color=colour, linewidth=1.3, marker=marker, markersize=5,
            markeredgecolor=INK, markeredgewidth=0.5, zorder=3,
        )  # fmt: skip
        ends.append((str(stack), float(x.iloc[-1]), float(line["seconds"].iloc[-1])))
    right = max(x for _, x, _ in ends)
    inches = np.log(high / low) / _PANEL
    wanted = [np.log(end / low) / inches for _, _, end in ends]
    axes.set_xlim(axes.get_xlim()[0], right + 0.03)
    beside_at = spread(wanted, 0.15)
    down = max(0.0, max(beside_at) - _PANEL)
    for (name, start, end), place in zip(ends, (each - down for each in beside_at), strict=True):
        text, beside = (
            f"{fit(name, _NAMES - 0.75, 7, end=True)} {time_text(end)}",
            float(low * np.exp(place * inches)),
        )
        look: Any = {"color": palette.colour(name), "linewidth": 1.0, "clip_on": False}
        axes.plot([start, right + 0.05, right + 0.11], [end, beside, beside], **look)
        say(axes, right + 0.11, beside, text, 3, 0, va="center")
