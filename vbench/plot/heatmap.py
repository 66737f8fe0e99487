"""Heatmap of every cell: workloads by stacks, coloured by overhead."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vbench.plot.style import (
    INK,
    WIDTH,
    Sheet,
    one_clock,
    styled,
)
from vbench.plot.words import TIMES, blocks_text, clean, fit, interval_text, level_text, text_width, times
from vbench.stats.verdict import CALLED, Verdict
from vbench.terms import KINDS

_ROW, _LEFT, _SIDE = 0.34, 3.1, 0.9  # inches: a row, the workloads' names, the colour scale
_LINEAR = float(np.log(1.05))  # colours are linear in the ratio up to 5%, logarithmic beyond
_TICKS = (1.0, 2.0, 0.5, 10.0, 0.1, 1.1, 0.9, 100.0, 1000.0, 1.5, 4.0, 30.0)  # by importance


@styled
def heatmap(
    overheads: pd.DataFrame,
    *,
    kinds: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
    primary: Mapping[str, str] | None = None,
    stacks: Sequence[str] | None = None,
) -> Figure:
    """Overhead of every workload (rows, by kind) in every stack (columns), with its interval.

    ``overheads``: as returned by ``vbench.stats.overhead.overheads``, of one clock (ValueError otherwise, or if
    empty); the other arguments are as for ``relative_performance``. A cell whose difference is not called is grey and
    says so; one that was not measured reads "n/a".
    """
    frame = overheads
    if primary:
        frame = frame[frame["metric"] == frame["workload"].map(dict(primary)).fillna(frame["metric"])]
    clock = one_clock(frame)
    rows = _rows(frame, kinds or {}, titles or {})
    names = [s for s in dict.fromkeys([*(stacks or ()), *frame["stack"]]) if (frame["stack"] == s).any()]
    width = min(1.15, max(0.78, (WIDTH - _LEFT - _SIDE - 0.1) / len(names)))
    page = max(WIDTH, _LEFT + width * len(names) + _SIDE + 0.1)
    labels = ["\n".join([*_path_lines(name, width), *_over(frame, name, width)]) for name in names]
    head = 0.1 + 0.14 * max(label.count("\n") + 1 for label in labels)
    groups = [kind for kind, _, _ in rows]
    starts = {kind: groups.index(kind) for kind in dict.fromkeys(groups)}
    sheet = Sheet(
        "Overhead of every workload in every stack",
        head + _ROW * len(rows) + 0.05,
        caption=_caption(frame),
        clock=clock,
        lead=f"Cost in the stack / cost in its baseline{_only(frame)}: above 1 costs more. In brackets, the interval.",
        width=page,
    )
    axes = sheet.panel(_LEFT, head, width * len(names), _ROW * len(rows))
    axes.set(xlim=(0, len(names)), ylim=(len(rows), 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    reach = max(
        np.log(2.0), float(np.nanmax(np.abs(np.log(frame["ratio"].to_numpy(dtype=float))), initial=0))
    )
    shade = mpl.cm.ScalarMappable(AsinhNorm(_LINEAR, -reach, reach), mpl.colormaps["PuOr_r"])
    for number, (_, label, cells) in enumerate(rows):
        axes.text(-0.08, number + 0.5, label, ha="right", va="center", fontsize=8, parse_math=False)
        for place, name in enumerate(names):
            _cell(axes, place, number, cells.get(name), shade)
    for kind, start in starts.items():
        axes.axhline(start, color=INK, linewidth=0.8)
        sheet.text(
            0.1,
            head + _ROW * (start + 0.5),
            fit(kind, 0.85, 8.5, bold=True),
            va="center",
            size=8.5,
            weight="bold",
        )
    axes.axhline(len(rows), color=INK, linewidth=0.8)
    for place, label in enumerate(labels):
        axes.text(place + 0.5, -0.12, label, ha="center", va="bottom", fontsize=8, parse_math=False)
    _scale(sheet, shade, reach, page - _SIDE + 0.2, head, min(2.4, max(1.0, _ROW * len(rows))))
    return sheet.figure


def _rows(
    frame: pd.DataFrame, kinds: Mapping[str, str], titles: Mapping[str, str]
) -> list[tuple[str, str, dict[str, Any]]]:
    """For each row: kind, label, and cells by stack."""
    several: Any = frame.groupby("workload")[["metric", "params"]].nunique()
    out = []
    for key, cell in frame.groupby(["workload", "params", "metric"], sort=False):
        workload, params, metric = map(str, key)
        words = [titles.get(workload, workload)]
        words += [metric] * bool(several.loc[workload, "metric"] > 1)
        if several.loc[workload, "params"] > 1:
            words.append(", ".join(f"{k}={v}" for k, v in json.loads(params).items()))
        kind = str(kinds.get(workload, cell["kind"].iloc[0]))
        out.append(
            (kind, fit(" ".join(words), _LEFT - 1.0, 8), {row["stack"]: row for _, row in cell.iterrows()})
        )
    order = [*KINDS, *sorted({kind for kind, _, _ in out} - {*KINDS})]
    return sorted(out, key=lambda row: order.index(row[0]))


def _cell(axes: Axes, x: int, y: int, row: Any, shade: Any) -> None:
    style: Any = {"ha": "center", "va": "center", "parse_math": False}
    if row is None or not np.isfinite(row["ratio"]):
        axes.add_patch(
            Rectangle((x, y), 1, 1, facecolor="white", edgecolor="#CCCCCC", hatch="////", linewidth=0)
        )
        axes.text(x + 0.5, y + 0.5, "n/a", fontsize=8, style="italic", color="#444444", **style)
        return
    called = row["verdict"] in CALLED
    fill = shade.to_rgba(np.log(row["ratio"])) if called else (0.93, 0.93, 0.93, 1.0)
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=fill, edgecolor="white", linewidth=1.5))
    dark = called and np.dot(fill[:3], (0.299, 0.587, 0.114)) < 0.5
    colour = "white" if dark else "black"
    interval = np.isfinite(row["low"])
    weight = "bold" if called else "normal"
    sign = "" if called else "≈ " if row["verdict"] == Verdict.NOT_DISTINGUISHABLE else "? "
    shown = sign + times(row["ratio"])
    axes.text(
        x + 0.5, y + (0.34 if interval else 0.5), shown, fontsize=8.5, weight=weight, color=colour, **style
    )
    if interval:
        text = interval_text(row["low"], row["high"])
        axes.text(x + 0.5, y + 0.73, text, fontsize=7, color=colour, **style)


def _path_lines(path: str, width: float) -> list[str]:
    """A stack's path wrapped to the width of a column, broken after its slashes, colons and commas if possible."""
    lines = [""]
    for part in re.split(r"(?<=[/:,])", clean(path)):
        if lines[-1] and text_width(lines[-1] + part, 8) > width - 0.06:
            lines.append("")
        lines[-1] += part
    return [fit(line, width - 0.06, 8, end=True) for line in lines]


def _only(frame: pd.DataFrame) -> str:
    bases = frame["baseline"].unique()
    return f" ({clean(bases[0])})" if len(bases) == 1 else ""


def _over(frame: pd.DataFrame, stack: str, width: float) -> list[str]:
    """What a column is compared with, if the columns differ in that."""
    if frame["baseline"].nunique() < 2:
        return []
    base = str(frame.loc[frame["stack"] == stack, "baseline"].iloc[0])
    return _path_lines(f"over {base}", width)


def _scale(sheet: Sheet, shade: Any, reach: float, x: float, y: float, height: float) -> None:
    axes = sheet.panel(x, y, 0.14, height)
    bar = sheet.figure.colorbar(shade, cax=axes)
    ticks: list[float] = []
    for tick in _TICKS:  # keep those that fit, the most important first
        apart = [abs(float(shade.norm(np.log(tick)) - shade.norm(np.log(other)))) * height for other in ticks]
        if abs(np.log(tick)) <= reach and min(apart, default=1.0) > 0.15:
            ticks.append(tick)
    bar.set_ticks(list(np.log(ticks)), labels=[f"{TIMES}{tick:g}" for tick in ticks])
    bar.minorticks_off()
    bar.outline.set_linewidth(0.6)
    axes.tick_params(length=2, labelsize=7.5)


def _caption(frame: pd.DataFrame) -> str:
    text = f"Hodges-Lehmann ratio and exact signed-rank interval ({level_text(frame)}) over blocks, "
    known = frame[frame["ratio"].notna()]
    text += f"{blocks_text(known['n'], known.get('boots', ()))}. "
    text += "Coloured and bold: the difference is called. Grey, ≈: not distinguishable from the baseline. "
    return text + "Grey, ?: undetermined (too few blocks). Hatched, n/a: not measured."
