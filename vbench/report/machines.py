"""The section on machines, in a run over several: a group for each hardware, on the page and in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from vbench.report.words import Two, interval, joined, number, ratio_text, say, share, term, times, two
from vbench.stats.machines import by_machine, roots, spread

if TYPE_CHECKING:
    from vbench.stats.run import Run

MOST_ACROSS = 8
"""Machines of a hardware up to which each has a column on the page; of more, the smallest and the largest are named."""
MOST_GROUPS = 20
"""Groups shown, those of most machines first."""
_LEAST = 9  # characters: a column of ratios in a terminal


def tables(run: Run, level: float) -> list[tuple[str, str, pd.DataFrame, pd.DataFrame]]:
    """Hardware, clock, ``by_machine``'s rows and ``spread``'s; none for a run on a single machine.

    Those of most machines come first.
    """
    if len(roots(run)) < 2:
        return []
    cells = by_machine(run, level=level)
    whole = dict(iter(spread(cells).groupby(["hardware", "clock"], sort=False)))
    groups = [
        (str(hardware), str(clock), group, whole[hardware, clock])
        for (hardware, clock), group in cells.groupby(["hardware", "clock"], sort=False)
    ]
    return sorted(groups, key=lambda each: -each[2]["machine"].nunique())


def machines(run: Run, level: float) -> dict[str, Any]:
    """What the page shows: ``groups``, and how many more there are (``more``)."""
    found = tables(run, level)
    return {
        "groups": [_group(*each) for each in found[:MOST_GROUPS]],
        "more": max(0, len(found) - MOST_GROUPS),
        "all": len(found),
    }


def _group(hardware: str, clock: str, cells: pd.DataFrame, whole: pd.DataFrame) -> dict[str, Any]:
    there = list(dict.fromkeys(cells["machine"]))
    each = {(row["technique"], row["machine"]): row for row in cells.to_dict("records")}
    across = there if len(there) <= MOST_ACROSS else []
    rows = []
    for row in whole.to_dict("records"):
        mine = [each.get((row["technique"], name)) for name in across]
        gone = [cell for key, cell in each.items() if key[0] == row["technique"] and pd.isna(cell["ratio"])]
        rows.append(
            {
                "technique": row["technique"],
                "workloads": say("of_workloads", k=row["workloads"], n=row["of"]),
                "cells": [two("\N{EN DASH}") if cell is None else _cell(cell) for cell in mine],
                "median": times(row["median"]),
                "machines": say("of_machines", k=row["machines"], n=row["all"]),
                "spread": _spread(row),
                "gone": [
                    {"machine": cell["machine"], "why": _unavailable(cell)} for cell in gone[:MOST_GROUPS]
                ]
                if not across
                else [],
            }
        )
    return {
        "hardware": _title(hardware),
        "counted": clock == "instructions",
        "machines": across,
        "rows": rows,
    }


def _title(hardware: str) -> Two:
    if hardware.startswith("*"):
        return say("hardware_unnamed", machine=hardware[1:])
    return say("hardware", name=hardware)


def _cell(row: dict[Any, Any]) -> Two:
    """A ratio and its interval, or why there is none."""
    if pd.isna(row["ratio"]):
        return _unavailable(row)
    within = interval(row["low"], row["high"]) if not row["why"] else say("no_interval", n=row["n"])
    return say("ratio_within", ratio=times(row["ratio"], like=row["high"]), within=within)


def _unavailable(row: dict[Any, Any]) -> Two:
    return say("because", reason=term(row["why"]))


def _spread(row: dict[Any, Any]) -> Two:
    if pd.isna(row["range"]):
        return say("no_spread")
    least, most = (times(row[name], like=row["most"]) for name in ("least", "most"))
    return joined([say("to", low=least, high=most), number(share(1 + row["range"]))], " · ")


def lines(run: Run, level: float, width: int) -> Iterator[str]:
    """The same for a terminal, no line longer than ``width`` characters if names allow it."""
    found = tables(run, level)
    if found:
        yield "Machines: over each one's baseline, geometric mean over the workloads that all of them have"
    for hardware, clock, cells, whole in found[:MOST_GROUPS]:
        counted = " (counted instructions)" if clock == "instructions" else ""
        label = (
            f"Machine {hardware[1:]}, hardware not named"
            if hardware.startswith("*")
            else f"Hardware {hardware}"
        )
        yield ""
        yield f"{label}{counted}"
        yield from _lines(cells, whole, width)
    if len(found) > MOST_GROUPS:
        yield ""
        yield f"{len(found) - MOST_GROUPS} more hardware: vbench report --cells, or --json"


def _lines(cells: pd.DataFrame, whole: pd.DataFrame, width: int) -> Iterator[str]:
    there = list(dict.fromkeys(cells["machine"]))
    each = {(row["technique"], row["machine"]): row for row in cells.to_dict("records")}
    first = 2 + max(map(len, whole["technique"]))
    names = there
    column = max(_LEAST, 1 + max(map(len, names)))
    spreads = len("least to most   range  workloads")
    across = there if first + column * len(there) + 4 + spreads <= width else []
    if not across:
        names, column = ["machines", "median"], _LEAST
    yield (
        " " * first + "".join(f"{name:>{column}}" for name in names) + "    least to most   range  workloads"
    )
    for row in whole.to_dict("records"):
        shown: Sequence[str] = [_short(each.get((row["technique"], name))) for name in across]
        if not across:
            shown = [f"{row['machines']}/{row['all']}", ratio_text(row["median"])]
        span = (
            f"{ratio_text(row['least'], row['most'])} to {ratio_text(row['most'])}"
            if row["range"] >= 0
            else "-"
        )
        wide = f"{row['range']:.1%}" if row["range"] >= 0 else "-"
        yield (
            f"{row['technique']:<{first}}" + "".join(f"{text:>{column}}" for text in shown)
            + f"{span:>17}{wide:>8}{row['workloads']:>7} of {row['of']}"
        )  # fmt: skip
    gone = cells[cells["ratio"].isna()].to_dict("records")
    for row in gone[:MOST_ACROSS]:
        yield f"{row['technique']} on {row['machine']}: unavailable because {row['why']:.200}"
    if len(gone) > MOST_ACROSS:
        yield f"{len(gone) - MOST_ACROSS} more are unavailable: vbench report --cells says why"


def _short(row: dict[Any, Any] | None) -> str:
    return "" if row is None else "-" if pd.isna(row["ratio"]) else ratio_text(row["ratio"])
