"""What each technique costs by machine: a dot a machine, grouped by technique, a panel for each hardware."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vbench.plot.style import COLOURS, FAINT, INK, WIDTH, Sheet, log_axis, one_clock, say, styled
from vbench.plot.words import bare, blocks_text, fit

MOST_PANELS = 12
_ROW, _LEFT, _RIGHT, _HEAD, _FOOT = 0.5, 1.35, 2.35, 0.32, 0.34
_SWARM = 0.13  # of a row: how far dots that would hide each other move apart


@styled
def by_machine(cells: pd.DataFrame) -> Figure:
    """Ratios of techniques by machine. ``cells``: as from ``vbench.stats.machines.by_machine``, of one clock.

    Panels with most machines come first, ``MOST_PANELS`` of them. Raises ValueError if there is no ratio, or more than
    one clock.
    """
    clock = one_clock(cells.dropna(subset=["ratio"]))
    groups = [
        (str(hardware), group)
        for hardware, group in cells.groupby("hardware", sort=False)
        if group["ratio"].notna().any()
    ]
    groups.sort(key=lambda each: -each[1]["machine"].nunique())
    panels, more = groups[:MOST_PANELS], len(groups) - MOST_PANELS
    heights = [_ROW * group["technique"].nunique() for _, group in panels]
    known = pd.concat([group for _, group in panels]).dropna(subset=["ratio"])
    counts = known[["workloads", "of"]].drop_duplicates()
    worked = " or ".join(f"{w} of {of}" for w, of in sorted(counts.itertuples(index=False))[:3])
    sheet = Sheet(
        "What each technique costs, by machine",
        sum(heights) + (_HEAD + _FOOT) * len(panels),
        caption="A dot a machine: cost over the machine's own baseline, geometric mean over the workloads that all "
        f"machines of its hardware have ({worked} workloads), Hodges-Lehmann over blocks, {blocks_text(known['n'])}. "
        "Bar: median of machines. Faint line: interval of a machine's ratio. Machines of other hardware are in other "
        "panels, and not to be compared." + (f" {more} more hardware are not drawn." if more > 0 else ""),
        clock=clock,
        lead="Dots apart by more than their lines: machines of the same hardware differ.",
    )
    low, high = _range(known)
    y = 0.0
    for (hardware, group), height in zip(panels, heights, strict=True):
        title = f"{hardware[1:]}: hardware not named" if hardware.startswith("*") else hardware
        sheet.text(0.1, y + 0.2, fit(title, WIDTH - 0.2, 9, bold=True), va="baseline", size=9, weight="bold")
        axes = sheet.panel(_LEFT, y + _HEAD, WIDTH - _LEFT - _RIGHT, height)
        _panel(axes, group, low, high)
        y += _HEAD + height + _FOOT
    return sheet.figure


def _range(known: pd.DataFrame) -> tuple[float, float]:
    told = known[["ratio", "low", "high"]].to_numpy(dtype=float)
    values = np.append(told[np.isfinite(told)], 1.0)
    room = (values.max() / values.min()) ** 0.05 * 1.005
    return float(values.min() / room), float(values.max() * room)


def _panel(axes: Axes, group: pd.DataFrame, low: float, high: float) -> None:
    names = list(dict.fromkeys(group["technique"]))
    log_axis(axes.xaxis, low, high)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(
        range(len(names)),
        [fit(name, _LEFT - 0.2, 8, end=True) for name in names],
        fontsize=8,
        parse_math=False,
    )
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.6)
    axes.axvline(1.0, color=FAINT, linewidth=0.8, linestyle=(0, (3, 2)))
    span = math.log(high / low)
    for number, name in enumerate(names):
        every = group[group["technique"] == name]
        some = every.dropna(subset=["ratio"]).sort_values(["ratio", "machine"])
        if len(some):
            colour = COLOURS[number % len(COLOURS)]
            x = some["ratio"].to_numpy(dtype=float)
            up = number + _swarm(np.log(x) / span)
            axes.hlines(up, some["low"], some["high"], color=colour, linewidth=1.0, alpha=0.45, zorder=2)
            axes.plot(
                x, up, "o", color=colour, markersize=4.5, markeredgecolor=INK, markeredgewidth=0.5, zorder=3
            )
            axes.vlines(
                some["ratio"].median(), number - 0.36, number + 0.36, color=INK, linewidth=1.6, zorder=4
            )
        for line, text in enumerate(_told(some, len(every) - len(some))):
            say(
                axes, high, number, fit(text, _RIGHT - 0.25, 7.5), 8, 4.5 - 10 * line, va="center", fontsize=7.5,
                color=INK if line == 0 else FAINT,
            )  # fmt: skip


def _swarm(
    places: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How far to move dots up and down: those near the one before (in shares of the axis) take turns."""
    out = np.zeros(len(places))
    run = 0
    for index in range(1, len(places)):
        run = run + 1 if places[index] - places[index - 1] < 0.012 else 0
        out[index] = (0, -1, 1, -2, 2)[run % 5] * _SWARM
    return out


def _told(some: pd.DataFrame, gone: int) -> tuple[str, str]:
    """The median and how many machines, then the smallest and the largest."""
    lacking = f", {gone} unavailable" if gone else ""
    if some.empty:
        return "no ratio", lacking.removeprefix(", ")
    count = f"{len(some)} machine{'s' * (len(some) > 1)}{lacking}"
    least, most = some.iloc[0], some.iloc[-1]
    if len(some) == 1:
        return f"{bare(least['ratio'])}, {count}", f"{least['machine']}"
    spread = f"{bare(least['ratio'])} ({least['machine']}) to {bare(most['ratio'])} ({most['machine']})"
    return f"median {bare(some['ratio'].median())}, {count}", spread
