"""What a run would do and how long it would take, judging by earlier bundles; nothing is opened."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbench.bundle.store import read_info, read_samples
from vbench.errors import BundleError
from vbench.harness.units import Cell, WorkUnit
from vbench.layers.stack import Stack

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Times:
    """Seconds to open each stack, and to prepare each cell and measure it once; ``sources``: the bundles used."""

    opening: dict[str, float] = field(default_factory=dict)
    preparing: dict[Cell, float] = field(default_factory=dict)
    measuring: dict[Cell, float] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Expected:
    """One stack of a future run: what will be done in it, and how many seconds that takes, as far as is known.

    ``unknown``: workloads that no earlier bundle has timed in this stack.
    """

    stack: str
    baseline: str
    clock: str
    workloads: int
    invocations: int
    opening_s: float | None
    preparing_s: float | None
    measuring_s: float | None
    unknown: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """The sum of what is known."""
        return (self.opening_s or 0.0) + (self.preparing_s or 0.0) + (self.measuring_s or 0.0)


def read_times(folders: Iterable[Path], wanted: Sequence[WorkUnit]) -> Times:
    """What the bundles in ``folders`` say about the units' stacks, newest first; damaged bundles are skipped."""
    from vbench.stats.timing import timing  # noqa: PLC0415  (pandas, only where it is needed)

    found = []
    for folder in folders:
        try:
            info = read_info(folder)
            if not {*info.hosts} & {stack for unit in wanted for stack in unit.stacks}:
                continue
            found.append((info.created, folder, info, timing(read_samples(folder, info))))
        except BundleError:
            continue
    times = Times()
    cells = {(step.stack, step.workload) for unit in wanted for step in unit.steps}
    for _, folder, info, table in sorted(found, key=lambda each: each[0], reverse=True):
        before = len(times.opening), len(times.preparing), len(times.measuring)
        for unit in wanted:
            for stack in unit.stacks:
                seconds = str(info.hosts.get(stack, {}).get("open_seconds", ""))
                if seconds.replace(".", "", 1).isdigit():
                    times.opening.setdefault(stack, float(seconds))
        for cell, *both in _told(info.hosts, table):
            for known, value in zip((times.preparing, times.measuring), both, strict=True):
                if cell in cells and math.isfinite(value):
                    known.setdefault(cell, value)
        if (len(times.opening), len(times.preparing), len(times.measuring)) != before:
            times.sources.append(str(folder))
    return times


def _told(hosts: Mapping[str, Mapping[str, Any]], table: pd.DataFrame) -> Iterator[tuple[Cell, float, float]]:
    """Seconds that cells took to prepare and to measure once, as a bundle tells them, maybe a stranger's."""
    for stack, known in hosts.items():
        for workload, value in known.get("took_s", {}).items():
            if isinstance(value, (int, float)) and value >= 0:
                yield (stack, workload), 0.0, float(value)  # what is counted is prepared anew each time
    for row in table.itertuples():
        prepare_s, invoke_s = (float(str(value)) for value in (row.prepare_s, row.invoke_s))
        yield (str(row.stack), str(row.workload)), prepare_s, invoke_s


def expected(units: Iterable[WorkUnit], times: Times) -> list[Expected]:
    """Each stack of the units, with what is known about how long it takes.

    If only a cell's preparation time is unknown, it counts as three invocations, the fewest that calibration takes.
    """
    rows = []
    for unit in units:
        for path in unit.stacks:
            steps = [step for step in unit.steps if step.stack == path]
            names = dict.fromkeys(step.workload for step in steps)
            base, opening = unit.baseline(Stack.parse(path)), times.opening.get(path)
            times_opened = len(
                {unit.opening(step) if unit.clock == "wall" else unit.boot(step) for step in steps}
            )
            if opening is not None:
                opening *= times_opened
            again = (
                times_opened - 1 if unit.clock == "wall" else 0
            )  # workloads are set up and warmed up as often
            once: Mapping[str, float] = {
                name: times.measuring[path, name] for name in names if (path, name) in times.measuring
            }
            rows.append(
                Expected(
                    stack=path,
                    baseline=base.path if base else "",
                    clock=unit.clock,
                    workloads=len(names),
                    invocations=len(steps),
                    opening_s=opening,
                    preparing_s=sum(
                        times.preparing.get((path, name), 3 * seconds) + again * seconds
                        for name, seconds in once.items()
                    )
                    if once
                    else None,
                    measuring_s=sum(once.get(step.workload, 0.0) for step in steps) if once else None,
                    unknown=tuple(name for name in names if name not in once),
                )
            )
    return rows


def whole(rows: Sequence[Expected], at_once: int) -> float:
    """Seconds that the run takes, as far as is known: wall-clock stacks first, then the others in parallel."""
    by_wall = sum(row.seconds for row in rows if row.clock == "wall")
    beside = [row.seconds for row in rows if row.clock != "wall"]
    return by_wall + max([0.0, *beside, sum(beside) / at_once])
