"""The layout of a bar chart: groups of bars in panels and rows, and the axis they share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vbench.plot.style import WIDTH
from vbench.plot.words import clean
from vbench.terms import KINDS

LOG_SPAN = 20.0  # ratios spanning more than this are drawn on a logarithmic axis
# Inches.
LEFT, RIGHT, GAP = 0.6, 0.1, 0.2
PANEL = 1.9
LABEL_FLAT, LABEL_TURNED = 0.2, 0.4
LEVEL = 1.001  # a bar no higher than this looks like the baseline: its label goes below


@dataclass(frozen=True)
class Group:
    """One workload on the axis, with its bars by stack."""

    kind: str
    label: str
    bars: dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """The vertical axis shared by all panels."""

    log: bool
    low: float
    high: float
    turned: bool

    @property
    def floor(self) -> float:
        """Where bars start: a logarithmic axis has no 0, so there they start at the baseline."""
        return 1.0 if self.log else 0.0


def groups_of(frame: pd.DataFrame, kinds: Mapping[str, str], titles: Mapping[str, str]) -> list[Group]:
    """Group overheads into bars, ordered by kind, then as in ``titles``."""
    several: Any = frame.groupby("workload")[["metric", "params"]].nunique()
    rows = []
    for key, cell in frame.groupby(["workload", "params", "metric"], sort=False):
        workload, params, metric = map(str, key)
        label = [titles.get(workload, workload)]
        label += [metric] * bool(several.loc[workload, "metric"] > 1)
        label += [params.strip("{}").replace('"', "")] * bool(several.loc[workload, "params"] > 1)
        kind = kinds.get(workload, cell["kind"].iloc[0])
        rows.append(Group(kind, clean(" ".join(label)), {row["stack"]: row for _, row in cell.iterrows()}))
    order = [*KINDS, *sorted({group.kind for group in rows} - {*KINDS})]
    place = {name: number for number, name in enumerate(titles)}
    first = {id(g): place.get(next(iter(g.bars.values()))["workload"], len(place)) for g in rows}
    return sorted(rows, key=lambda g: (order.index(g.kind), first[id(g)], g.label))


def scale_of(groups: list[Group], bar: float) -> Scale:
    """The axis that fits all bars, whiskers and labels; ``bar`` is the width of a bar in inches."""
    cells = pd.DataFrame([row for group in groups for row in group.bars.values()])
    ratios = cells[["ratio", "low", "high"]].to_numpy(dtype=float).ravel()
    shown = 1 / ratios[np.isfinite(ratios) & (ratios > 0)]
    low, high = min(1.0, *shown, 1.0), max(1.0, *shown, 1.0)
    turned = bar < 0.33
    room = LABEL_TURNED if turned else LABEL_FLAT
    if high / low <= LOG_SPAN:
        return Scale(False, 0.0, high * PANEL / (PANEL - room), turned)
    above = room if high > LEVEL else 0.08
    per_inch = math.log(high / low) / (PANEL - room - above)
    return Scale(True, low * math.exp(-room * per_inch), high * math.exp(above * per_inch), turned)


def rows_of(groups: list[Group], width: float) -> list[list[list[Group]]]:
    """Panels (one per kind) laid out in rows like words in lines; a kind too wide for a row is split evenly."""
    per_row = max(1, int((WIDTH - LEFT - RIGHT) // width))
    rows: list[list[list[Group]]] = []
    for kind in dict.fromkeys(group.kind for group in groups):
        members = [group for group in groups if group.kind == kind]
        size = math.ceil(len(members) / math.ceil(len(members) / per_row))
        for start in range(0, len(members), size):
            panel = members[start : start + size]
            used = sum(len(p) * width + GAP for p in rows[-1]) if rows else math.inf
            if used + len(panel) * width > WIDTH - LEFT - RIGHT:
                rows.append([])
            rows[-1].append(panel)
    return rows
