"""Deriving cells of a bundle anew: where instructions are counted, each must come out to the last byte."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vbench.bundle import tool_output
from vbench.bundle.journal import read_table
from vbench.bundle.store import JOURNAL, read_info
from vbench.capsule.capsule import Capsule
from vbench.errors import NotComparable
from vbench.exact import boot
from vbench.harness.events import Failed, Measured
from vbench.harness.exact import worker_for
from vbench.harness.plan import Plan, Step
from vbench.harness.recorder import samples_from
from vbench.harness.units import Size, units_of
from vbench.layers.stack import Stack, add_ons_of
from vbench.terms import Clock
from vbench.workload.model import Workload

COUNTED: Clock = "instructions"


@dataclass(frozen=True)
class Cell:
    """One invocation of a bundle, and its rows there as they are in the journal, by side and metric."""

    step: Step
    work: int
    rows: Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True)
class Derived:
    """What came of a cell: ``difference`` is the first one from the bundle, or empty."""

    step: Step
    seed: int
    start: int  # in the boot of that seed, from 1
    difference: str

    def __str__(self) -> str:
        cell = (
            f"{self.step.stack} {self.step.workload}, seed {self.seed}, start {self.start}, {self.step.arm}"
        )
        return f"{cell}: {self.difference or 'exact'}"


def choose(folder: Path, count: int, chance: random.Random | None = None) -> list[Cell]:
    """Some of a bundle's invocations in stacks that count instructions, at random; all, if there are not more.

    Raises ``NotComparable`` if the bundle has none that were measured exactly.
    """
    info = read_info(folder)
    if info.journal is None or boot.PROGRAMS.name not in info.capsule.get("add_ons", {}):
        raise NotComparable(
            f"{folder} has no cell that was measured exactly",
            "it was made by the wall clock, or by a vbench whose testbed was not exact yet",
        )
    found: dict[Step, dict[tuple[str, str], Mapping[str, Any]]] = {}
    for row in read_table(folder / JOURNAL, info.journal.size).to_pylist():
        if row["clock"] == COUNTED and not row["warmup"] and Stack.parse(row["stack"]).exact():
            step = Step(row["block"], row["order"], row["workload"], row["stack"], row["arm"])
            found.setdefault(step, {})[row["side"], row["metric"]] = row
    cells = [Cell(step, next(iter(rows.values()))["work"], rows) for step, rows in found.items()]
    return (chance or random.SystemRandom()).sample(cells, min(count, len(cells)))


def derive(
    folder: Path, cells: Sequence[Cell], workloads: Mapping[str, Workload], capsule: Capsule
) -> Iterator[Derived]:
    """Measure some cells of a bundle again, and compare each with what the bundle holds, byte by byte.

    Raises ``BundleError`` if this is not the bundle's capsule, and ``NotComparable`` if this is not its testbed.
    """
    info = read_info(folder)
    plan = Plan.model_validate(info.plan)
    stacks = [Stack.parse(path) for path in dict.fromkeys(cell.step.stack for cell in cells)]
    here, there = add_ons_of(stacks).get("add_ons"), info.capsule.get("add_ons")
    if here is None or here[boot.PROGRAMS.name] != (there or {}).get(boot.PROGRAMS.name):
        raise NotComparable(
            f"{folder} was measured on testbed {there}, here is {here}",
            "vbench capsule build makes the testbed's part",
        )
    wanted = {cell.step: cell for cell in cells}
    units = units_of(
        stacks,
        sorted(wanted, key=lambda step: (step.block, step.stack)),
        {name: workloads[name] for name in dict.fromkeys(cell.step.workload for cell in cells)},
        [Size(stack=c.step.stack, workload=c.step.workload, work=c.work) for c in cells],
        shape=plan.shape(),
        capsule=str(info.capsule.get("digest")),
        starts=plan.starts,
    )
    for unit in units:
        for event in worker_for(unit, capsule).run():
            match event:
                case Measured():
                    step = Step(event.block, event.order, event.workload, event.stack, event.arm)
                    found = {step: _difference(folder, wanted[step], event)}
                case Failed(workload=workload):
                    found = {
                        step: event.reason
                        for step in wanted
                        if step.stack == event.stack and workload in {None, step.workload}
                    }
                case _:
                    found = {}
            for step, difference in found.items():
                yield Derived(step, unit.boot(step) + 1, unit.start(step) + 1, difference)


def _difference(folder: Path, cell: Cell, event: Measured) -> str:
    """The first difference between an invocation and the bundle's rows and output, or nothing."""
    once = (event.block, event.arm, event.warmup)
    kept = tool_output.read(folder, (event.stack, event.workload)).get(once)
    if kept is None:
        return "the bundle does not hold its output"
    if kept != (said := event.stdout.decode(errors="replace")):
        unlike = (n for n, (one, other) in enumerate(zip(kept, said, strict=False)) if one != other)
        at = next(unlike, min(len(kept), len(said)))
        begin = max(0, at - 30)
        return f"its output from character {at} is {said[begin : at + 30]!r}, not {kept[begin : at + 30]!r}"
    run = str(next(iter(cell.rows.values()))["run"])
    new = {(row.side, row.metric): row for row in samples_from(event, run)}
    for key in dict.fromkeys([*cell.rows, *new]):
        if key not in new or key not in cell.rows:
            return f"{key[1]} is only {'in the bundle' if key in cell.rows else 'here'}"
        for name, value in cell.rows[key].items():
            if value != getattr(new[key], name):
                return f"{key[1]}: {name} is {getattr(new[key], name)!r}, not {value!r}"
    return ""
