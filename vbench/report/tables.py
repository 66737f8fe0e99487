"""The report's tables as rows of text: cells, findings about them, footprint, A/A floors and facts about hosts."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

from vbench.bundle.reasons import LEAST, told
from vbench.report.rows import place
from vbench.report.words import (
    Two,
    added,
    added_within,
    interval,
    joined,
    kind_name,
    number,
    percent,
    say,
    term,
    times,
    two,
    value,
)
from vbench.stats.host_cost import CPU, footprint, rates
from vbench.stats.overhead import baselines
from vbench.stats.verdict import CALLED, Verdict

if TYPE_CHECKING:
    import pandas as pd

    from vbench.stats.run import Run

MOST_ROWS = 1500  # per table: about what a browser on a phone can still sort at once


@dataclass(frozen=True)
class Finding:
    """A numbered finding about fairness or noise, and the cells it affects; none named means all."""

    number: int
    severity: str
    stacks: tuple[str, ...]
    workloads: tuple[str, ...]
    text: Two

    def touches(self, stack: str, workload: str) -> bool:
        """Whether it affects that cell."""
        named = bool(self.stacks or self.workloads)
        return (
            named
            and (not self.stacks or stack in self.stacks)
            and (not self.workloads or workload in self.workloads)
        )


def findings_of(run: Run, clocks: pd.DataFrame, bound: float) -> tuple[list[Finding], set[tuple[str, str]]]:
    """The notes of a run, then findings about its clocks; and the (stack, workload) pairs whose clocks disagree.

    ``clocks``: as returned by ``clock_disagreement``. A root's clock is the harness's own: if they disagree even there,
    the harness saw more than the work (a program's start), which says nothing about a guest's clock.
    """
    bases = baselines(run.samples)
    everywhere = {*bases}
    found: list[Finding] = []
    for note in run.info.notes:
        stacks = () if everywhere and {*note.stacks} >= everywhere else tuple(note.stacks)
        found.append(Finding(len(found) + 1, note.severity, stacks, tuple(note.workloads), term(note.text)))
    off = set(zip(clocks["stack"], clocks["workload"], strict=True))
    unchecked = {workload for stack, workload in off if bases[stack] == stack}
    limit = number(f"{bound:.0%}")
    if unchecked:
        told = joined(term(title(run, name)) for name in sorted(unchecked))
        text = say("unchecked", bound=limit, names=told)
        found.append(Finding(len(found) + 1, "info", (), tuple(sorted(unchecked)), text))
    drifting = {(stack, workload) for stack, workload in off if workload not in unchecked}
    for stack, rows in clocks[~clocks["workload"].isin(unchecked)].groupby("stack"):
        worst = rows.loc[np.log(rows["median"]).abs().idxmax()]
        names = tuple(sorted({*rows["workload"]}))
        text = say(
            "clock",
            bound=limit,
            k=len(names),
            title=term(title(run, worst["workload"])),
            median=times(worst["median"]),
            worst=times(worst["worst"]),
        )
        found.append(Finding(len(found) + 1, "warning", (str(stack),), names, text))
    return found, drifting


def cell_rows(rows: list[dict[str, Any]], findings: list[Finding]) -> dict[str, Any]:
    """Rows of ``summary_table`` as text, at most ``MOST_ROWS``. Keys: rows, shown, total."""
    near: dict[tuple[str, str], list[int]] = {}
    out = []
    for row in rows[:MOST_ROWS]:
        at = (row["stack"], row["workload"])
        if at not in near:
            near[at] = [finding.number for finding in findings if finding.touches(*at)]
        detail = [row["metric"]] * (not row["primary"]) + [row["params"]] * (row["params"] not in ("", "{}"))
        verdict: list[Two] = [term(row["why"])] * bool(row["why"]) + [term(row["flag"])] * bool(row["flag"])
        out.append(
            {
                "title": term(row["title"]),
                "detail": " ".join(detail),
                "kind": kind_name(row["kind"]),
                "stack": row["stack"],
                "baseline": row["baseline"],
                "ratio": times(row["ratio"], like=row["high"]),
                "interval": interval(row["low"], row["high"]),
                "added": added(row["added_s"]),
                "added_within": added_within(row["added_low_s"], row["added_high_s"]),
                "n": row["n"],
                "child": value(row["child"]),
                "base": value(row["base"]),
                "unit": row["unit"],
                "floor": percent(row["aa_floor"]),
                "verdict": term(row["verdict"]),
                "called": row["verdict"] in CALLED,
                "why": joined([*verdict, *_made_of(row["made_of"])], "; "),
                "numbers": near[at],
                "sort": {
                    name: row[name]
                    for name in ("ratio", "low", "high", "added_s", "child", "base", "aa_floor")
                },
                "sorted_verdict": row["verdict"],
            }
        )
    return {"rows": out, "shown": len(out), "total": len(rows)}


def _made_of(found: dict[str, Any] | None) -> list[Two]:
    """What an operation is made of, in one phrase, if it was counted."""
    if found is None:
        return []
    what = told(found["counts"], found["baseline"])
    parts = [say("made_in", number=number(f"{count:,.0f}"), place=term(name)) for name, count in what.where]
    if what.exits >= LEAST and what.cause:
        most, cause = number(f"{what.cause[1]:.1f}"), what.cause[0]
        parts.append(say("made_exits", number=number(f"{what.exits:.1f}"), most=most, cause=cause))
    for key, count in (("made_hypercalls", what.hypercalls), ("made_faults", what.faults)):
        if count >= LEAST:
            parts.append(say(key, number=number(f"{count:.1f}")))
    whole = number(f"{what.instructions:,.0f}")
    if what.base is None:
        return [say("made_alone", all=whole)]
    return [say("made_of", all=whole, base=number(f"{what.base:,.0f}"), parts=joined(parts))]


def footprint_rows(run: Run, level: float) -> dict[str, Any]:
    """Host-side cost as a matrix of workloads by stacks, and memory by stack.

    A stack's cell holds what a unit of work costs inside (elapsed time) and outside (CPU time on the host), both over
    its baseline, with the interval and verdict of the latter. A root's cell, and one without a ratio outside, holds CPU
    seconds on the host per second of work. ``notes``: letters, and the reasons they stand for.
    """
    taken = rates(run.samples, run.host_costs)
    paid = run.host_overheads(level=level)
    key = ["workload", "params", "stack"]
    paid = paid.loc[paid["metric"] == CPU, [*key, "ratio", "low", "high", "verdict", "why", "clock"]]
    taken = taken.merge(paid, on=key, how="left")
    stacks = sorted(taken["stack"].unique(), key=lambda name: (place(list(run.info.techniques), name), name))
    rows = []
    cells = {(row["workload"], row["params"], row["stack"]): row for row in taken.to_dict("records")}
    order = sorted(
        {(workload, params) for workload, params, _ in cells},
        key=lambda each: (place(list(run.info.workloads), each[0]), each),
    )
    several = {workload for workload, _ in order if sum(each == workload for each, _ in order) > 1}
    reasons: list[str] = []
    for workload, params in order:
        known = [cells.get((workload, params, stack)) for stack in stacks]
        rows.append(
            {
                "title": term(title(run, workload)),
                "detail": params if workload in several else "",
                "cells": [_inside_outside(cell, reasons) for cell in known],
            }
        )
    memory = footprint(run.samples, run.host_costs).groupby("stack")["rss_mib"].max()
    counted = {*run.samples.loc[run.samples["clock"] == "instructions", "stack"].unique()}
    return {
        "stacks": [name + "†" * (name in counted) for name in stacks],
        "counted": bool(counted),
        "rows": rows[:MOST_ROWS],
        "memory": [value(memory[name]) for name in stacks],
        "notes": [{"letter": _letter(n), "text": term(why)} for n, why in enumerate(reasons)],
    }


def _inside_outside(cell: dict[Hashable, Any] | None, reasons: list[str]) -> dict[str, Any]:
    """One cell as text. If there is no ratio because instructions are counted, the column heading says so."""
    if cell is None:
        return {"text": two("-"), "dearer": False, "verdict": two(""), "letter": ""}
    inside, out, share = cell["inside_ratio"], cell["ratio"], cell["cpu_per_s"]
    text = number(f"{share:.2f} s/s") if math.isfinite(share) else two("n/a")
    if math.isfinite(inside) and math.isfinite(out):
        text = number(f"{inside:.3g} → {out:.3g}")
    if cell["clock"] != "wall":
        return {"text": text, "dearer": False, "verdict": two(""), "letter": ""}
    if cell["why"] and cell["why"] not in reasons:
        reasons.append(cell["why"])
    known = [interval(cell["low"], cell["high"])] if math.isfinite(cell["low"]) else []
    return {
        "text": text,
        "dearer": cell["verdict"] == Verdict.COSTLIER and cell["low"] > 1.25 * inside,
        "verdict": joined([*known, term(cell["verdict"])], "; "),
        "letter": _letter(reasons.index(cell["why"])) if cell["why"] else "",
    }


def _letter(number: int) -> str:
    """a, b, ... z, then aa, bb, ... (which never happens in practice)."""
    return ascii_lowercase[number % 26] * (1 + number // 26)


def floor_rows(run: Run, floors: pd.DataFrame) -> list[dict[str, Any]]:
    """How much each baseline differs from itself, as text."""
    counted = {*run.samples.loc[run.samples["clock"] == "instructions", "stack"].unique()}
    floors = floors.sort_values(["stack", "workload", "metric", "params"])
    return [
        {
            "title": term(title(run, row["workload"])),
            "metric": row["metric"],
            "stack": row["stack"],
            "counted": row["stack"] in counted,
            "ratio": times(row["ratio"], like=row["high"]),
            "interval": interval(row["low"], row["high"]),
            "floor": percent(row["floor"]),
            "n": row["n"],
            "sort": {
                name: None if math.isnan(row[name]) else row[name] for name in ("ratio", "low", "floor")
            },
        }
        for row in floors.to_dict("records")[:MOST_ROWS]
    ]


def title(run: Run, workload: str) -> str:
    """The title of a workload."""
    known = run.info.workloads.get(workload)
    return known.title if known else workload


def plain(fact: Any) -> str:
    """A fact as text; a nested one as indented JSON."""
    return json.dumps(fact, indent=1, ensure_ascii=False) if isinstance(fact, dict | list) else str(fact)


def fact_rows(run: Run) -> list[dict[str, Any]]:
    """The facts about every host; those equal to its baseline's are only named."""
    bases = baselines(run.samples)
    out = []
    for name, facts in run.info.hosts.items():
        base = bases.get(name, name)
        known: dict[str, Any] = {} if base == name else run.info.hosts.get(base, {})
        same = [key for key in facts if key in known and known[key] == facts[key]]
        out.append(
            {
                "name": name,
                "facts": [(key, plain(fact)) for key, fact in facts.items() if key not in same],
                "same": say("same", baseline=base, names=", ".join(same)) if same else two(""),
            }
        )
    return out
