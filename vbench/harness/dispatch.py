"""Handing units to workers, and passing their events on to the recorder and to the user."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from typing import cast

from vbench.errors import VbenchError
from vbench.harness.events import Began, Event, Failed, Measured, Noted, Opened
from vbench.harness.progress import Estimate, Progress
from vbench.harness.recorder import Recorder
from vbench.harness.units import WorkUnit
from vbench.hosts.process import kill_all

LANES = 64
"""Other machines measured at a time, at most; each takes a thread and a connection."""
Place = Callable[[WorkUnit], Iterator[Event]]
"""Where a unit is carried out: yields its events as they happen; leaving the iterator ends the unit."""


class Dispatcher:
    """Has units carried out: those by this machine's clock first, alone and undisturbed, then those on other machines
    side by side, and last those whose clock counts instructions, ``lanes`` at a time: by default, as many as there are
    processors here.

    ``end`` is called when the run is given up, to end what is being carried out elsewhere. ``done``: invocations
    already measured. ``enough`` says, before each wall-clock block, whether the run may stop
    there. ``found`` returns what to note about a stack that has just been opened.
    """

    def __init__(
        self,
        recorder: Recorder,
        progress: Progress,
        place: Place,
        *,
        lanes: int | None = None,
        end: Callable[[], None] | None = None,
        done: int = 0,
        enough: Callable[[int], bool] = lambda block: False,
        found: Callable[[Opened], Iterable[Noted]] = lambda opened: (),
    ) -> None:
        self._lanes, self._end = lanes or len(os.sched_getaffinity(0)), end
        self._recorder, self._progress, self._place = recorder, progress, place
        self._done, self._enough, self._found = done, enough, found
        self._stop = threading.Event()
        self._opened = 0

    def carry_out(self, units: Sequence[WorkUnit]) -> None:
        """Have all units carried out; when this returns, every event has been recorded.

        Raises ``VbenchError`` if there are units but none of their stacks could be opened, and whatever a worker or
        the recorder raises.
        """
        total = self._done + sum(len(unit.steps) for unit in units)
        estimate = Estimate(self._progress, [unit.name for unit in units], self._done, total)
        by_wall = [unit for unit in units if unit.clock == "wall"]
        for unit in by_wall:
            if unit.here:
                self._follow(unit, estimate)
        self._together([unit for unit in by_wall if not unit.here], LANES, estimate)
        # Deepest first: they take longest, and the last one runs alone.
        beside = sorted((unit for unit in units if unit.clock != "wall"), key=lambda unit: -unit.depth)
        self._together(beside, self._lanes, estimate)
        if units and not self._opened and not self._done:
            raise VbenchError("no stack of the plan could be opened", "vbench doctor says what is missing")

    def _together(self, units: Sequence[WorkUnit], most: int, estimate: Estimate) -> None:
        """Have units carried out, so many at a time."""
        estimate.at_once = max(1, min(len(units), most))
        with ThreadPoolExecutor(estimate.at_once, thread_name_prefix="worker") as pool:
            futures = [pool.submit(self._follow, unit, estimate) for unit in units]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                # A worker cleans up when its iterator is left; killing its machines gets it there at once.
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                kill_all()
                if self._end is not None:
                    self._end()
                raise

    def _follow(self, unit: WorkUnit, estimate: Estimate) -> None:
        with closing(cast("Generator[Event]", self._place(unit))) as events:
            for event in events:
                if self._stop.is_set():
                    return
                if isinstance(event, Began):
                    if unit.clock == "wall" and event.block is not None and self._enough(event.block):
                        break
                    estimate.began(unit.name, event)
                    continue
                if isinstance(event, Failed):
                    self._progress.say(
                        left_out(event.stack, [event.workload] if event.workload else [], event.reason)
                    )
                self._recorder.take(event)
                if isinstance(event, Opened):
                    self._opened += 1
                    for noted in self._found(event):
                        self._recorder.take(noted)
                elif isinstance(event, Measured) and not event.warmup:
                    estimate.measured()
        estimate.finished(unit.name)


def left_out(stack: str, workloads: Sequence[str], reason: str) -> str:
    """A gap as one line for the user; no workloads means the whole stack."""
    match workloads:
        case []:
            return f"{stack} is left out, because {reason}"
        case [name]:
            return f"{stack}: {name} is left out, because {reason}"
    return f"{stack}: {len(workloads)} workloads are left out, because {reason}"
