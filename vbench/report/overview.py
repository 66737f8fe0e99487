"""A bundle's overview for a terminal: one table per clock, workloads down and techniques across, then sentences.

Wall-clock and instruction-counted ratios never share a table. Only the primary metric of each workload is shown;
``vbench report --cells`` lists every cell.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from vbench.stats import wording
from vbench.stats.verdict import CALLED, Verdict

Row = dict[str, Any]
WIDTH = 80
LEGEND = "=  no difference told   ~  not decided   -  not measured   !  beats its baseline"
LEGEND_ADDED = "=  no difference told   ~  not decided   -  not measured   /  not a time"
_HEADINGS = {
    "wall": "By the wall clock: {what} over {base}",
    "instructions": "By counted instructions (not seconds of any machine): {what} over {base}",
}
_LEAST = 5  # characters: the minimum width of a column of figures


def tables(rows: Sequence[Row], width: int = WIDTH, *, added: bool = False) -> list[str]:
    """The lines of the tables, one table per clock, no line longer than ``width`` if names allow it.

    ``rows``: as returned by :func:`vbench.report.summary_table`. ``added``: added times in place of ratios.
    """
    out: list[str] = []
    for clock in ("wall", "instructions"):
        if mine := [row for row in rows if row["primary"] and row["clock"] == clock]:
            stacks = list(dict.fromkeys(row["stack"] for row in sorted(mine, key=lambda row: row["stack"])))
            out += ["", *_table(mine, stacks, clock, width, added)]
    return [*out[1:], LEGEND_ADDED if added else LEGEND] if out else []


def _table(rows: Sequence[Row], stacks: list[str], clock: str, width: int, added: bool) -> Iterator[str]:
    bases = {row["stack"]: row["baseline"] for row in rows}
    usual = _usual(rows)
    yield _HEADINGS[clock].format(what="added time" if added else "cost", base=usual)
    for stack in stacks:
        if bases[stack] != usual:
            yield f"  but {_short(stack, usual)} over {_short(bases[stack], usual)}"
    several = _with_params(rows)
    names = list(dict.fromkeys(_name(row, several) for row in rows))
    text = _added if added else _cell
    cells = {(_name(row, several), row["stack"]): text(row) for row in rows}
    first = max(map(len, names))
    fit = max(1, (width - first) // (1 + max(_LEAST, *map(len, cells.values()))))
    for start in range(0, len(stacks), fit):
        part = stacks[start : start + fit]
        room = (width - first) // len(part)
        labels = [_short(stack, usual) for stack in part]
        column = min(room, 1 + max(_LEAST, *map(len, labels), *map(len, cells.values())))
        yield from _heads(labels, first, column)
        for name in names:
            yield f"{name:<{first}}" + "".join(f"{cells.get((name, s), '-'):>{column}}" for s in part)


def _usual(rows: Iterable[Row]) -> str:
    """The most common baseline."""
    bases = list({row["stack"]: row["baseline"] for row in rows}.values())
    return max(sorted({*bases}), key=bases.count, default="")


def _heads(labels: list[str], first: int, column: int) -> list[str]:
    """Column headings aligned right with their columns; a long one goes above its neighbours, and none is wrapped."""
    lines: list[str] = []
    for number, label in enumerate(labels):
        end = first + (number + 1) * column
        for line in range(len(lines) + 1):
            if line == len(lines):
                lines.append("")
            if len(lines[line]) < end - len(label) or not lines[line]:
                lines[line] = f"{lines[line]:<{end - len(label)}}{label}"
                break
    return lines[::-1]


def _short(stack: str, base: str) -> str:
    return stack.removeprefix(f"{base}/").removeprefix("local/")


def _with_params(rows: Iterable[Row]) -> set[str]:
    """The workloads that were measured with several parameters under one name."""
    seen: dict[str, set[str]] = {}
    for row in rows:
        seen.setdefault(row["workload"], set()).add(row["params"])
    return {workload for workload, params in seen.items() if len(params) > 1}


def _name(row: Row, several: set[str]) -> str:
    return f"{row['workload']} {row['params']}" if row["workload"] in several else str(row["workload"])


def _cell(row: Row) -> str:
    """One ratio in at most five characters.

    +0.6%, 2.8x, 47x; = if not distinguishable; -96%! for an artefact; ~2.8x if undetermined.
    """
    ratio = row["ratio"]
    if row["verdict"] == Verdict.NOT_DISTINGUISHABLE:
        return "="
    if ratio is None:
        return "~"
    if row["verdict"] == Verdict.UNDETERMINED:
        return f"~{_ratio(ratio, rough=True)}"
    return f"{_ratio(ratio, rough=True)}!" if row["verdict"] == Verdict.CHEAPER else _ratio(ratio)


def _added(row: Row) -> str:
    """One added time: +1.2us; = if not distinguishable; ~+1.2us if undetermined; / if the metric is no time."""
    if row["verdict"] == Verdict.NOT_DISTINGUISHABLE:
        return "="
    if row["added_s"] is None:
        return "~" if row["ratio"] is None else "/"
    undecided = "~" if row["verdict"] == Verdict.UNDETERMINED else ""
    return undecided + wording.added(row["added_s"]).replace(" ", "")


def _ratio(ratio: float, *, rough: bool = False) -> str:
    """A ratio in at most five characters, or four if ``rough``."""
    if ratio >= 1.5:
        return f"{ratio:.1f}x" if ratio < 9.95 else f"{ratio:.0f}x"
    percent = 100 * (ratio - 1)
    if abs(percent) >= (0.95 if rough else 9.95):
        return f"{percent:+.0f}%"
    if abs(percent) >= 0.05:
        return f"{percent:+.1f}%".replace("0.", ".") if rough else f"{percent:+.1f}%"
    return f"{percent:+.0f}%" if rough else f"{percent:+.2f}%".replace("0.", ".")


def sentences(rows: Sequence[Row], failures: Sequence[Any]) -> list[str]:
    """At most five sentences: how much is called, lowest and highest cost by clock, doubts, and what is missing.

    ``failures``: the run's (see :class:`vbench.bundle.store.Failure`).
    """
    out = [_told(rows), *_extremes(rows)]
    odd = [
        f"{row['workload']} in {row['stack']}"
        for row in rows
        if row["primary"] and row["verdict"] == Verdict.CHEAPER
    ]
    if odd:
        out.append(f"Usually an artefact, as it beats its baseline: {', '.join(odd[:3])}{_more(odd, 3)}.")
    if failures:
        reasons = list(dict.fromkeys(failure.reason for failure in failures))
        missing = f"{len(failures)} cells or stacks are missing" if len(failures) > 1 else "One is missing"
        out.append(
            f"{missing}: {failures[0].stack}, because {reasons[0].rstrip('.'):.300}{_more(reasons, 1)}."
        )
    return out


def _more(found: Sequence[Any], shown: int) -> str:
    return f" and {len(found) - shown} more" if len(found) > shown else ""


def _told(rows: Sequence[Row]) -> str:
    cells = [row for row in rows if row["primary"] and row["verdict"] != Verdict.UNAVAILABLE]
    called = [row for row in cells if row["verdict"] in CALLED]
    blocks = sorted({row["n"] for row in cells if row["n"]})
    span = f"{blocks[0]}" if len(blocks) == 1 else f"{blocks[0]} to {blocks[-1]}" if blocks else "no"
    levels = [row["attained"] for row in cells if row["attained"]]
    sure = f", intervals of {min(levels):.1%} or more" if levels else ""
    begun = []
    for clock, name in (("wall", "openings"), ("instructions", "boots")):
        few = {row["boots"] for row in cells if row["clock"] == clock and 0 < row["boots"] < row["n"]}
        begun += [f"{few.pop()} {name}"] if len(few) == 1 else []
    shared = f" in {' and '.join(begun)}" if begun else ""
    return f"{len(called)} of {len(cells)} differences are told, from {span} blocks{shared}{sure}."


def _extremes(rows: Sequence[Row]) -> Iterator[str]:
    """By clock, the lowest mean cost of a stack over the common baseline, and the costliest cell.

    Workloads in which some stack beats its baseline are excluded from the means; stacks that lack any other workload
    have no mean.
    """
    decided = [
        row for row in rows if row["primary"] and row["verdict"] in (*CALLED, Verdict.NOT_DISTINGUISHABLE)
    ]
    for clock in ("wall", "instructions"):
        mine = [row for row in decided if row["clock"] == clock]
        usual = _usual(mine)
        odd = {_key(row) for row in mine if row["verdict"] == Verdict.CHEAPER}
        logs: dict[str, dict[Any, float]] = {}
        for row in mine:
            if _key(row) not in odd and row["baseline"] == usual:
                logs.setdefault(row["stack"], {})[_key(row)] = math.log(row["ratio"])
        most = max(
            (row for row in mine if row["verdict"] == Verdict.COSTLIER),
            key=lambda row: row["ratio"],
            default=None,
        )
        whole = max(map(len, logs.values()), default=0)
        means = {stack: sum(each.values()) / whole for stack, each in logs.items() if len(each) == whole}
        if most is None or len(means) < 2:
            continue
        least = min(means, key=lambda stack: means[stack])
        cost = wording.against(math.exp(means[least]), math.nan, math.nan, "its baseline")
        by = "By the wall clock" if clock == "wall" else "By instructions"
        yield (
            f"{by}, the lowest mean cost is that of {least} ({cost}, over {whole} workloads), the highest single one "
            f"{most['workload']} in {most['stack']} ({wording.number(most['ratio'])} times)."
        )


def _key(row: Row) -> tuple[str, str]:
    return row["workload"], row["params"]
