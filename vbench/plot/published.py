"""Our measurements beside published ones: in separate panels, on one scale, clearly told apart."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vbench.plot.style import (
    COLOURS,
    INK,
    MARK,
    MARKERS,
    WIDTH,
    Sheet,
    log_axis,
    one_clock,
    styled,
)
from vbench.plot.words import blocks_text, clean, fit, level_text

_ROW, _LEFT, _GAP, _RIGHT = 0.36, 2.55, 0.25, 0.15
_LOOK = {  # by technique: colour and marker, the same for theirs and ours
    "paravirtualization": (COLOURS[6], MARKERS[0]),
    "user-space kernel": (COLOURS[5], MARKERS[1]),
    "type 2": (COLOURS[1], MARKERS[2]),
    "type 1": (COLOURS[2], MARKERS[3]),
}


@dataclass(frozen=True)
class Published:
    """A published table: its rows as in the file, the systems it compares, and its source."""

    title: str
    place: str
    label: str
    citation: str
    setting: str
    systems: dict[str, dict[str, str]]
    rows: list[dict[str, Any]]

    def ratios(self) -> pd.DataFrame:
        """Cost over native, above 1 costlier: columns row, system, technique, label, ratio, native, value, unit."""
        out = []
        for row in self.rows:
            for name, system in self.systems.items():
                if name == "native":
                    continue
                ratio = row[name] / row["native"]
                out.append(
                    {"row": row["name"], "system": name, "technique": system["technique"], "label": system["label"],
                     "ratio": ratio if row["better"] == "lower" else 1 / ratio, "native": row["native"],
                     "value": row[name], "unit": row["unit"]}
                )  # fmt: skip
        return pd.DataFrame(out)


def tables() -> dict[str, Published]:
    """The published tables that come with vbench, by name: "micro" and "macro"."""
    raw = tomllib.loads(resources.files("vbench.plot").joinpath("published.toml").read_text(encoding="utf-8"))
    found = {}
    for name, table in raw["tables"].items():
        source = raw["sources"][table["source"]]
        rows = [{"unit": table["unit"], "better": table["better"], **row} for row in table["rows"]]
        found[name] = Published(
            table["title"],
            table["place"],
            source["label"],
            source["citation"],
            source["setting"],
            source["systems"],
            rows,
        )
    return found


def matching(overheads: pd.DataFrame, primary: Mapping[str, str], published: Published) -> pd.DataFrame:
    """Our cells that measure the same as a published row: ``overheads`` with ``row`` added.

    ``overheads`` must have a column ``technique``. Of a row's workloads the first one measured is used, and only stacks
    compared with a native baseline.
    """
    known = {item["technique"] for name, item in published.systems.items() if name != "native"}
    first = ~overheads["baseline"].isin(overheads["stack"])  # stacked ones are compared with another guest
    frame = overheads[overheads["technique"].isin(known) & overheads["ratio"].notna() & first]
    parts = []
    for row in published.rows:
        name = next((w for w in row["workloads"] if (frame["workload"] == w).any()), None)
        if name is not None:
            cells = frame[(frame["workload"] == name) & (frame["metric"] == primary.get(name, ""))]
            parts.append(cells.assign(row=row["name"]))
    return pd.concat(parts, ignore_index=True) if parts else frame.iloc[:0].assign(row="")


@styled
def beside_published(
    ours: pd.DataFrame, published: Published, *, titles: Mapping[str, str] | None = None
) -> Figure:
    """Cost over native: published figures hollow on the left, ours filled on the right with intervals.

    ``ours``: as returned by :func:`matching`, of one clock (ValueError otherwise, or if empty).
    """
    clock = one_clock(ours)
    theirs = published.ratios()
    names = [row["name"] for row in published.rows]
    techniques = [t for t in _LOOK if t in {*theirs["technique"], *ours["technique"]}]
    edges = np.concatenate([theirs["ratio"], ours[["ratio", "low", "high"]].to_numpy(dtype=float).ravel()])
    edges = edges[np.isfinite(edges)]
    limits = (min(edges.min(), 1) / 1.3, edges.max() * 1.4)
    height = _ROW * len(names)
    head = 0.2 * len(techniques) + 0.35
    counted = clock == "instructions"
    basis = blocks_text(ours["n"], ours.get("boots", ()))
    sheet = Sheet(
        f"{published.title}: ours beside {published.label}",
        head + height + 0.42,
        caption=f"Left, hollow: published, {published.citation}, {published.place}; {published.setting}; wall clock; "
        "single figures without an interval. Right, filled: ours, Hodges-Lehmann ratio, whiskers the exact "
        f"signed-rank interval ({level_text(ours)}) over blocks, {basis}. Programs, kernels "
        "and machines differ: rows ask a like question, and are not the same test. n/a: nothing of ours to set there.",
        clock=clock if counted else None,
        lead="Cost over native: 1 is native, further right is costlier. Rows share one logarithmic scale.",
    )
    width = (WIDTH - _LEFT - _GAP - _RIGHT) / 2
    left = sheet.panel(_LEFT, head, width, height)
    right = sheet.panel(_LEFT + width + _GAP, head, width, height)
    _legend(sheet, techniques, theirs, ours)
    words = {name: _our_words(ours, name, titles or {}) for name in names}
    for axes, title in ((left, f"published: {published.label}"), (right, "ours" + f", {MARK}" * counted)):
        log_axis(axes.xaxis, *limits)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks([])
        axes.axvline(1.0, color="black", linewidth=1.2)
        axes.grid(axis="x", color="#E6E6E6", linewidth=0.6)
        axes.text(
            0, 1 + 0.07 / height, title, transform=axes.transAxes, weight="bold", fontsize=9, parse_math=False
        )
        for line in np.arange(0.5, len(names) - 1):
            axes.axhline(line, color="#E6E6E6", linewidth=0.6, zorder=0.5)
    left.set_facecolor("#F7F7F7")
    for y, name in enumerate(names):
        sheet.text(0.1, head + _ROW * (y + 0.5) - 0.055, clean(name), va="center", size=8, weight="bold")
        sheet.text(0.1, head + _ROW * (y + 0.5) + 0.085, words[name], va="center", size=7, color="#333333")
        _row(left, y, theirs[theirs["row"] == name], techniques, hollow=True)
        _row(right, y, ours[ours["row"] == name], techniques, hollow=False)
    return sheet.figure


def _our_words(ours: pd.DataFrame, row: str, titles: Mapping[str, str]) -> str:
    cells = ours.loc[ours["row"] == row, "workload"]
    return (
        "ours: n/a"
        if cells.empty
        else "ours: " + fit(titles.get(cells.iloc[0], cells.iloc[0]), _LEFT - 0.5, 7)
    )


def _row(axes: Axes, y: int, cells: pd.DataFrame, techniques: Sequence[str], *, hollow: bool) -> None:
    if cells.empty:
        axes.text(
            0.99,
            y,
            "n/a",
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=7.5,
            style="italic",
        )
    for row in cells.to_dict("records"):
        colour, marker = _LOOK[row["technique"]]
        place = y + (techniques.index(row["technique"]) - (len(techniques) - 1) / 2) * 0.8 / len(techniques)
        fill = "white" if hollow else colour
        if not hollow and np.isfinite(row["low"]):
            axes.hlines(place, row["low"], row["high"], color=INK, linewidth=1.0, zorder=3)
        axes.plot(
            [row["ratio"]], [place], linestyle="", marker=marker, markersize=5.5, markerfacecolor=fill,
            markeredgecolor=colour if hollow else INK, markeredgewidth=1.4 if hollow else 0.5, zorder=4,
        )  # fmt: skip


def _legend(sheet: Sheet, techniques: Sequence[str], theirs: pd.DataFrame, ours: pd.DataFrame) -> None:
    handles, words = [], []
    for technique in techniques:
        colour, marker = _LOOK[technique]
        handles.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker=marker,
                color=colour,
                markersize=6,
                markeredgecolor=INK,
                markeredgewidth=0.4,
            )
        )
        label = theirs.loc[theirs["technique"] == technique, "label"]
        stacks = (
            ", ".join(dict.fromkeys(ours.loc[ours["technique"] == technique, "stack"]))
            or "none in this bundle"
        )
        words.append(
            fit(
                f"{technique} - published: {label.iloc[0] if len(label) else 'none'}; ours: {stacks}",
                WIDTH - 0.8,
                8,
            )
        )
    place = (0.05 / sheet.width, 1 - (sheet.top - 0.02) / sheet.height)
    box = sheet.figure.legend(handles, words, loc="upper left", bbox_to_anchor=place, ncols=1, frameon=False)
    for text in box.get_texts():
        text.set_parse_math(False)
