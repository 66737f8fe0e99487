"""Block by block: how the interval narrows as blocks are added, and whether anything drifted over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from vbench.plot.style import (
    FAINT,
    INK,
    WIDTH,
    Sheet,
    in_order,
    log_axis,
    one_clock,
    styled,
)
from vbench.plot.words import blocks_text, clean, fit, interval_text, level_text, times, value_text
from vbench.stats.overhead import overheads

_PANEL, _ABOVE, _BELOW, _COLUMNS = 1.55, 0.5, 0.42, 3
_STEPS = 24  # at most this many points per convergence line: each takes a full analysis of the blocks so far


def growth(samples: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """The overheads from the first 1, 2, 3, ... blocks of a run: the columns of ``overheads``, plus ``blocks``.

    ``samples`` should be of one workload and metric. Beyond 24 blocks, 24 evenly spaced numbers are used.
    """
    blocks = np.sort(samples.loc[~samples["warmup"].astype(bool), "block"].unique())
    steps = np.unique(np.linspace(1, len(blocks), min(len(blocks), _STEPS)).round().astype(int))
    parts = []
    for step in steps:
        seen = samples[samples["block"] <= blocks[step - 1]]
        parts.append(overheads(seen, level=level).assign(blocks=int(step)))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"clock": []})


@styled
def convergence(grown: pd.DataFrame, *, title: str, stacks: Sequence[str] | None = None) -> Figure:
    """Ratio and interval over the number of blocks, one panel per stack.

    ``grown``: as returned by :func:`growth`, one row per stack and number of blocks, of one clock (ValueError
    otherwise, or if empty).
    """
    clock = one_clock(grown)
    names, palette = in_order(grown, stacks)
    level = level_text(grown[grown["blocks"] == grown["blocks"].max()])
    last = grown[grown["blocks"] == grown["blocks"].max()]
    points, basis = grown["blocks"].nunique(), blocks_text(last["n"], last.get("boots", ()))
    sheet, panels = _grid(
        f"How the interval closes: {title}",
        len(names),
        caption=f"Line: Hodges-Lehmann ratio of the blocks so far; band: exact signed-rank interval ({level}), which "
        f"begins at the fewest blocks that carry one; {basis} in all. Dashed: the last estimate. "
        "Dotted: the A/A floor, what the baseline differs from itself. Blocks are looked at in the order measured"
        + (f", at {points} numbers of blocks." if points < grown["blocks"].max() else "."),
        clock=clock,
        lead="Cost in the stack / cost in its baseline, after the first blocks only, up to all of them.",
    )
    for axes, name in zip(panels, names, strict=True):
        part = grown[(grown["stack"] == name) & grown["ratio"].notna()]
        _title(axes, name, f"over {grown.loc[grown['stack'] == name, 'baseline'].iloc[0]}")
        if part.empty:
            axes.text(0.5, 0.5, "n/a", transform=axes.transAxes, ha="center", style="italic")
            continue
        edges = part[["ratio", "low", "high"]].to_numpy(dtype=float).ravel()
        edges = np.append(edges[np.isfinite(edges)], [1.0] * bool(part["ratio"].iloc[-1] < 3))
        span = max(edges.max() / edges.min(), 1.02)
        log_axis(axes.yaxis, edges.min() / span**0.1, edges.max() * span**0.22)
        axes.set_xlim(0.5, float(grown["blocks"].max()) + 0.5)
        axes.grid(color="#E8E8E8", linewidth=0.6)
        axes.axhline(1.0, color="black", linewidth=1.2)
        final = part.iloc[-1]
        floor = float(final["aa_floor"])
        if np.isfinite(floor):
            for edge in (1 + floor, 1 / (1 + floor)):
                axes.axhline(edge, color=FAINT, linewidth=0.9, linestyle=":")
        axes.axhline(final["ratio"], color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
        axes.fill_between(
            part["blocks"], part["low"], part["high"], color=palette.colour(name), alpha=0.45, linewidth=0
        )
        axes.vlines(part["blocks"], part["low"], part["high"], color=palette.colour(name), linewidth=2.2)
        axes.plot(part["blocks"], part["ratio"], color=INK, linewidth=1.2, marker=".", markersize=4)
        words = f"{times(float(final['ratio']))} {interval_text(final['low'], final['high'])}"
        axes.text(
            0.98, 0.97, words, transform=axes.transAxes, ha="right", va="top", fontsize=7.5, weight="bold"
        )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("blocks", fontsize=7.5)
    return sheet.figure


@styled
def trace(samples: pd.DataFrame, *, title: str, stacks: Sequence[str] | None = None) -> Figure:
    """Every measurement in chronological order, one panel per stack, with its drift.

    ``samples``: those of one workload, params and metric, without warm-ups, of one clock (ValueError otherwise, or if
    there are none). Drift is the Theil-Sen slope of the logarithm over elapsed time with its 95% interval (Sen, J. Am.
    Stat. Assoc. 63 (1968)); it is drawn whether or not the interval excludes 0, from 4 measurements on.
    """
    frame = samples.loc[~samples["warmup"].astype(bool) & (samples["value"] > 0)]
    clock = one_clock(frame)
    started = pd.to_datetime(frame["start"], format="ISO8601", utc=True)
    minutes = (started - started.min()).dt.total_seconds() / 60
    frame = frame.assign(minutes=minutes).sort_values("minutes")
    names, palette = in_order(frame, stacks)
    unit = clean(frame["unit"].iloc[0], 16)
    blocks = frame.groupby("stack")["block"].nunique()
    sheet, panels = _grid(
        f"Block by block: {title}",
        len(names),
        caption="Points: single measurements, in the order taken (hollow: the baseline's second one in a block, "
        f"A'); {blocks_text(blocks)}. Solid line: median. Dashed: drift, the Theil-Sen slope; in the heading its "
        "change from first to last with the 95% interval: no drift where that includes 0, else the line is bold. "
        "Each panel has its own range. Random order within blocks keeps drift out of the ratios.",
        clock=clock,
        lead=f"Values as measured [{unit}] over the harness's minutes since the first of them.",
    )
    for axes, name in zip(panels, names, strict=True):
        part = frame[frame["stack"] == name]
        _title(
            axes,
            name,
            f"median {value_text(part['value'].median())} {unit}",
            _drift(axes, part),
        )
        values = part["value"]
        span = max(values.max() / values.min(), 1.01)
        log_axis(axes.yaxis, values.min() / span**0.12, values.max() * span**0.12)
        pad = max(0.3, 0.04 * frame["minutes"].max())
        axes.set_xlim(-pad, frame["minutes"].max() + pad)
        axes.grid(color="#E8E8E8", linewidth=0.6)
        axes.axhline(values.median(), color=INK, linewidth=0.8)
        for arm, fill in (("A", palette.colour(name)), ("A'", "white")):
            some = part[part["arm"] == arm]
            axes.plot(
                some["minutes"], some["value"], linestyle="", marker=palette.marker(name), color=fill,
                markeredgecolor=INK, markeredgewidth=0.6, markersize=4.5, zorder=4,
            )  # fmt: skip
        axes.set_xlabel("minutes", fontsize=7.5)
    return sheet.figure


def _drift(axes: Axes, part: pd.DataFrame) -> str:
    """Draw the drift, bold if its interval excludes 0; return it as text, in percent from first point to last."""
    if len(part) < 4 or part["minutes"].nunique() < 2:
        return "too few for a drift"
    x, y = part["minutes"].to_numpy(dtype=float), np.log(part["value"].to_numpy(dtype=float))
    with np.errstate(invalid="ignore"):  # the interval is NaN where most values are alike
        slope, offset, low, high = stats.theilslopes(y, x, alpha=0.95)
    if np.isnan(low):
        return "too many alike for a drift"
    whole = [100 * np.expm1(np.clip(each * (x.max() - x.min()), -50, 50)) for each in (slope, low, high)]
    called = low > 0 or high < 0
    ends = np.array([x.min(), x.max()])
    axes.plot(
        ends,
        np.exp(offset + slope * ends),
        color=INK,
        linewidth=1.4 if called else 0.8,
        linestyle=(0, (4, 3)),
    )
    sign = "drift" if called else "no drift"
    shares = [f"{each:+,.0f}" if abs(each) >= 100 else f"{each:+.2g}" for each in whole]
    return f"{sign}: {shares[0]}% [{shares[1]}, {shares[2]}]".replace("-", "\N{MINUS SIGN}")


def _grid(title: str, count: int, *, caption: str, clock: str, lead: str) -> tuple[Sheet, list[Axes]]:
    columns = min(_COLUMNS, count) if count != 4 else 2
    rows = -(-count // columns)
    cell = _ABOVE + _PANEL + _BELOW
    sheet = Sheet(title, rows * cell, caption=caption, clock=clock, lead=lead)
    width = (WIDTH - 0.1) / columns
    return sheet, [
        sheet.panel(0.1 + width * (i % columns) + 0.5, cell * (i // columns) + _ABOVE, width - 0.65, _PANEL)
        for i in range(count)
    ]


def _title(axes: Axes, name: str, *more: str) -> None:
    """Set a panel's heading: a name, with further lines below it."""
    width = axes.get_position().width * WIDTH
    for number, line in enumerate((name, *more)):
        up = 4 + 10.5 * (len(more) - number)
        style: Any = {"fontsize": 7.5, "color": "#333333"} if number else {"fontsize": 8.5, "weight": "bold"}
        axes.annotate(
            fit(line, width, style["fontsize"], bold=not number, end=True),
            (0, 1),
            (0, up),
            xycoords="axes fraction",
            textcoords="offset points",
            parse_math=False,
            **style,
        )
