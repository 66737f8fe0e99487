"""How far a run has got: what its journal already holds, and how its progress is reported."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from vbench.bundle import tool_output
from vbench.bundle.samples import problem
from vbench.bundle.store import JOURNAL, Bundle
from vbench.errors import BundleError
from vbench.harness.events import Began
from vbench.harness.plan import Step


class Progress(Protocol):
    """Is told what a run is doing. All methods return at once."""

    def say(self, text: str) -> None:
        """A line worth keeping on the screen."""

    def doing(self, now: Began, done: int, total: int, remaining_s: float | None) -> None:
        """What is running now; ``remaining_s`` is based on how long invocations took, ``None`` while unknown."""


@dataclass(frozen=True)
class SoFar:
    """What a journal holds: the invocations measured, and the work sizes settled, by stack and workload."""

    measured: frozenset[tuple[int, str, str, str]] = frozenset()
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)

    def has(self, step: Step) -> bool:
        """Whether an invocation has been measured."""
        return (step.block, step.workload, step.stack, step.arm) in self.measured


def read_so_far(bundle: Bundle) -> SoFar:
    """What a bundle's journal holds; an incomplete line of tool output left by a power cut is removed.

    Raises ``BundleError`` for anything that vbench cannot have written.
    """
    tool_output.drop_torn_tails(bundle.path)
    path, measured, sizes = bundle.path / JOURNAL, set(), {}
    with path.open() as journal:
        for number, line in enumerate(journal, 1):
            row = json.loads(line)
            if wrong := problem(row):
                raise BundleError(f"{path}:{number}: the line {wrong}")
            if row["run"] != bundle.info.id:
                raise BundleError(f"{path}:{number}: the sample is of another run, {row['run']!r:.80}")
            if row["warmup"]:
                sizes[row["stack"], row["workload"]] = row["work"]
            else:
                measured.add((row["block"], row["workload"], row["stack"], row["arm"]))
    return SoFar(frozenset(measured), sizes)


class Estimate:
    """How long a run will still take, judging by its units' own estimates; safe to use from several threads."""

    def __init__(self, progress: Progress, units: Iterable[str], done: int, total: int) -> None:
        self._progress, self._done, self._total = progress, done, total
        self._waiting = {*units}
        # Only of units under way: what is asked at every invocation must not grow with the number of machines.
        self._left: dict[str, float | None] = {}
        self._lock = threading.Lock()
        self.at_once = 1

    def began(self, unit: str, event: Began) -> None:
        """A unit begins something."""
        with self._lock:
            self._waiting.discard(unit)
            self._left[unit] = event.remaining_s
            known = [seconds for seconds in self._left.values() if seconds is not None]
            complete = not self._waiting and len(known) == len(self._left)
            left = max([*known, sum(known) / self.at_once]) if known and complete else None
            self._progress.doing(event, self._done, self._total, left)

    def measured(self) -> None:
        """Another invocation is done."""
        with self._lock:
            self._done += 1

    def finished(self, unit: str) -> None:
        """A unit has nothing more to do."""
        with self._lock:
            self._waiting.discard(unit)
            self._left.pop(unit, None)
