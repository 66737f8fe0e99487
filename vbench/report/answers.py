"""The answers at the top of the report: what each stack costs for each kind of work, and which cells to trust least."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from vbench.plot import time_text
from vbench.report.words import (
    DIVIDED,
    TIMES,
    Two,
    cost,
    interval,
    joined,
    kind_name,
    number,
    percent,
    say,
    span,
    term,
    times,
    two,
)
from vbench.stats import wording
from vbench.stats.added import SECONDS
from vbench.stats.verdict import CALLED, Verdict

Row = dict[str, Any]
WIDE = 1.1  # an interval reaching further than this from its centre is listed as doubtful
FLOOR = 0.1  # so is a cell whose baseline may differ from itself by more than this
MOST_DOUBTFUL = 10


def answers(rows: list[Row]) -> list[dict[str, Any]]:
    """Per stack and clock, its baselines and one entry per kind of work: kind, glance, shade and sentence.

    ``rows``: as returned by ``summary_table``; only primary metrics are used.
    """
    out: dict[tuple[str, str], dict[str, Any]] = {}
    kinds: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row["primary"] and row["verdict"] != Verdict.UNAVAILABLE:
            kinds.setdefault((row["stack"], row["clock"], row["kind"]), []).append(row)
    for (stack, clock, kind), cells in kinds.items():
        answer = out.setdefault(
            (stack, clock),
            {
                "name": stack,
                "technique": term(cells[0]["technique"]),
                "baseline": joined(dict.fromkeys(cell["baseline"] for cell in cells)),
                "clock": clock,
                "kinds": {},
            },
        )
        answer["kinds"][kind] = {"name": kind_name(kind), "text": sentence(cells), **_glance(cells)}
    return list(out.values())


def sentence(cells: list[Row]) -> Two:
    """A sentence on what workloads of one kind cost in one stack."""
    n = len(cells)
    by: dict[str, list[Row]] = {}
    for cell in sorted(cells, key=lambda c: c["ratio"] or math.inf):
        by.setdefault(cell["verdict"], []).append(cell)
    parts = [
        *_called(by.get(Verdict.COSTLIER, []), n, "more_many"),
        *_called(by.get(Verdict.CHEAPER, [])[::-1], n, "less_many"),
        *_not_told(by.get(Verdict.NOT_DISTINGUISHABLE, [])),
        *_undecided(by.get(Verdict.UNDETERMINED, [])),
    ]
    return joined(parts, "; ")


def _called(cells: list[Row], n: int, key: str) -> list[Two]:
    if len(cells) < 2:
        return [say("one", title=term(c["title"]), what=_cost_of(c)) for c in cells]
    return [say(key, k=len(cells), n=n, least=_named(cells[0]), most=_named(cells[-1]))]


def _cost_of(cell: Row) -> Two:
    how_much, within = cost(cell)
    text = say("costs", cost=how_much, interval=within, time=_time(cell))
    return joined([text, say("artefact")], "") if cell["verdict"] == Verdict.CHEAPER else text


def _named(cell: Row) -> Two:
    how_much, within = cost(cell)
    return say("named", cost=how_much, title=term(cell["title"]), interval=within, time=_time(cell))


def _time(cell: Row) -> Two:
    """The time of an operation on the baseline and here, if the metric is a time: costs may add, not multiply."""
    scale = SECONDS.get(cell["unit"])
    if scale is None or cell["better"] != "lower" or not (cell["base"] and cell["child"]):
        return two("")
    base, child = (number(time_text(cell[name] * scale)) for name in ("base", "child"))
    return say("becomes", base=base, child=child)


def _not_told(cells: list[Row]) -> list[Two]:
    if len(cells) == 1:
        how_much, within = cost(cells[0])
        what = say("none_one", cost=how_much, interval=within, floor=percent(cells[0]["aa_floor"]))
        return [say("one", title=term(cells[0]["title"]), what=what)]
    if not cells:
        return []
    return [
        say(
            "none_many", k=len(cells), within=_within(cells), floor=percent(max(c["aa_floor"] for c in cells))
        )
    ]


def _within(cells: list[Row]) -> Two:
    return span(min(c["low"] for c in cells), max(c["high"] for c in cells))


def _undecided(cells: list[Row]) -> list[Two]:
    if not cells:
        return []
    known = [c["ratio"] for c in cells if c["ratio"] is not None]
    why = joined(map(term, dict.fromkeys(c["why"] for c in cells)))
    so_far: Two = two("")
    if len(known) == 1:
        so_far = say("so_far", ratio=times(known[0]))
    elif known:
        so_far = say("so_far_many", low=times(known[0], like=known[-1]), high=times(known[-1]))
    if len(cells) > 1:
        return [say("undecided_many", k=len(cells), why=why, so_far=so_far)]
    return [say("one", title=term(cells[0]["title"]), what=say("undecided_one", why=why, so_far=so_far))]


def _glance(cells: list[Row]) -> dict[str, Any]:
    """A kind of work in a few characters, the shade of its cell (0 to 3), and how many workloads it covers."""
    called = sorted(c["ratio"] for c in cells if c["verdict"] in CALLED)
    of = say("glance_of", k=len(called), n=len(cells))
    if called:
        low, high = called[0], called[-1]
        if wording.near_one(low, high):  # to three digits, 1.003 would look like no overhead at all
            text = " \N{EN DASH} ".join(dict.fromkeys(wording.signed(ratio) for ratio in (low, high)))
        else:
            least, most = wording.number(low), wording.number(high)
            text = f"{least}{TIMES}" if least == most else f"{least} \N{EN DASH} {most}{TIMES}"
        shade = sum(high >= bound for bound in (1.2, 2.0, 10.0))
        return {
            "glance": number(text),
            "of": of,
            "shade": shade,
        }
    told = [c for c in cells if c["verdict"] == Verdict.NOT_DISTINGUISHABLE]
    if told:
        return {"glance": say("glance_none"), "of": _within(told), "shade": "none"}
    return {"glance": say("glance_unknown"), "of": of, "shade": "none"}


def doubts(
    rows: list[Row], *, clocks: Collection[tuple[str, str]], warned: Collection[tuple[str, str]]
) -> dict[str, Any]:
    """The cells to trust least, worst first: at most ten, primary metrics only.

    ``clocks``: (stack, workload) pairs whose clocks disagree; ``warned``: pairs that a warning names. Keys: cells
    (each with stack, title, kind, width and reasons), shown, doubtful and total.
    """
    found = []
    cells = [row for row in rows if row["primary"] and row["verdict"] != Verdict.UNAVAILABLE]
    for row in cells:
        reasons: list[Two] = []
        at = (row["stack"], row["workload"])
        wide = math.sqrt(row["high"] / row["low"]) if row["low"] else math.inf
        if row["verdict"] == Verdict.UNDETERMINED:
            reasons.append(term(row["why"]))
        elif wide > WIDE:
            reasons.append(say("doubt_wide"))
        if (row["aa_floor"] or 0) > FLOOR:
            reasons.append(say("doubt_floor", floor=percent(row["aa_floor"])))
        reasons += [say("doubt_artefact")] * (row["verdict"] == Verdict.CHEAPER)
        reasons += [say("doubt_clock")] * (at in clocks)
        reasons += [say("doubt_warning")] * (at in warned)
        if reasons:
            found.append((wide, row, reasons))
    found.sort(key=lambda each: -each[0])
    shown = [
        {
            "stack": row["stack"],
            "title": term(row["title"]),
            "kind": kind_name(row["kind"]),
            "ratio": times(row["ratio"], like=row["high"]),
            "interval": interval(row["low"], row["high"]),
            "width": number(f"{TIMES}/{DIVIDED} {wide:.3g}") if math.isfinite(wide) else two("n/a"),
            "reasons": joined(reasons, "; "),
            "counted": row["clock"] == "instructions",
        }
        for wide, row, reasons in found[:MOST_DOUBTFUL]
    ]
    return {"cells": shown, "shown": len(shown), "doubtful": len(found), "total": len(cells)}
