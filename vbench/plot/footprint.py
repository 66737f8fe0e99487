"""An environment's footprint on its host: start-up time, memory and CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vbench.plot.style import (
    INK,
    WIDTH,
    Palette,
    Sheet,
    in_order,
    one_clock,
    say,
    styled,
)
from vbench.plot.words import fit

_ROW, _LEFT, _GAP = 0.36, 1.75, 0.3
PANELS = (
    ("open_s", "Start-up", "s"),
    ("rss_mib", "Memory on its host", "MiB"),
    ("cpu_per_s", "CPU on its host", "CPU s per s of work"),
)


@styled
def start_and_footprint(table: pd.DataFrame, *, stacks: Sequence[str] | None = None) -> Figure:
    """Start-up, memory and CPU by stack, each in its own panel.

    ``table``: one row per stack and workload, with stack, baseline, workload, clock, open_s (seconds until the stack
    was usable; the same for all of a stack's workloads), rss_mib (largest seen) and cpu_per_s (median CPU seconds used
    on the host per second of work); of one clock (ValueError otherwise). NaN reads "n/a".
    """
    clock = one_clock(table)
    names, palette = in_order(table, stacks)
    height = _ROW * len(names)
    counted = clock == "instructions"
    sheet = Sheet(
        "Start-up and footprint",
        0.25 + height + 0.35,
        caption="Start-up: once a run, by the harness's wall clock, from the lowest layer that was not yet open to "
        "the environment's facts read and its files checked. Memory: largest resident set of its processes on the "
        "host over all workloads. CPU: bar, median over workloads; points, each workload's median over blocks"
        + ("; a second of work is counted in instructions. " if counted else ". ")
        + "n/a: not known, or the environment has no processes of its own to be told apart.",
        clock=clock,
    )
    width = (WIDTH - _LEFT - 0.15 - _GAP * 2) / 3
    groups = table.groupby("stack")
    for number, (column, title, unit) in enumerate(PANELS):
        axes = sheet.panel(_LEFT + number * (width + _GAP), 0.25, width, height)
        each = groups[column]
        values = each.median() if column == "cpu_per_s" else each.max()
        points = table if column == "cpu_per_s" else table.iloc[:0]
        _bars(axes, names, values, points, palette)
        axes.text(0, 1 + 0.07 / height, title, transform=axes.transAxes, weight="bold", fontsize=9)
        axes.set_xlabel(unit, fontsize=7.5)
        labels = [fit(name, _LEFT - 0.15, 8, end=True) for name in names] if number == 0 else []
        axes.set_yticks(range(len(names)) if number == 0 else [], labels, fontsize=8, parse_math=False)
    return sheet.figure


def _bars(
    axes: Axes, names: Sequence[str], values: pd.Series, points: pd.DataFrame, palette: Palette
) -> None:
    most = float(np.nanmax([0.0, *values.to_numpy(dtype=float), *points["cpu_per_s"].to_numpy(dtype=float)]))
    axes.set_xlim(0, 1.25 * most or 1.0)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.6)
    for y, name in enumerate(names):
        value = float(values.get(name, np.nan))
        if not np.isfinite(value):
            say(axes, 0, y, "n/a", 3, 0, va="center", style="italic", color="#444444")
            continue
        axes.barh(
            y,
            value,
            0.62,
            color=palette.colour(name),
            hatch=palette.hatch(name),
            edgecolor=INK,
            linewidth=0.6,
        )
        each = points.loc[points["stack"] == name, "cpu_per_s"].dropna()
        axes.plot(
            each,
            [y] * len(each),
            "o",
            color="white",
            markeredgecolor=INK,
            markersize=3.2,
            markeredgewidth=0.7,
        )
        end = max([value, *each])
        say(
            axes,
            end,
            y,
            f"{value:,.0f}" if value >= 1000 else f"{value:.3g}",
            4,
            0,
            va="center",
            fontsize=7.5,
        )
