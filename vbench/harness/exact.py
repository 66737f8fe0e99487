"""The worker for counted instructions: each invocation begins from a snapshot, so its figure is a fact.

A block is a boot with a seed of its own, or one of several starts in the same boot. The stack is opened once a boot and
saved, and each cell begins in that state: no order, no calibration and nothing else that runs here can show in it. What
a figure varies by is what the seed sets, random numbers of the kernel and where pages lie, and what disturbs a start:
process numbers, pages in use, the phase of timers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from vbench.capsule.capsule import Capsule
from vbench.errors import DigestMismatch, VbenchError
from vbench.exact.opening import trail_of
from vbench.harness.events import Began, Event, Failed, Opened, Settled
from vbench.harness.invoke import Environment, Invocation, invoke, rehearse, run_command, set_up
from vbench.harness.plan import Step
from vbench.harness.units import WorkUnit
from vbench.harness.worker import Worker
from vbench.layers.stack import Stack
from vbench.workload.calibration import calibrate
from vbench.workload.model import Workload

log = logging.getLogger(__name__)

# Another start from the same boot and set-up: process numbers, pages and timers are moved, each start further.
_DISTURB = (
    "{ echo $(($(cat /proc/sys/kernel/ns_last_pid) + $1)) > /proc/sys/kernel/ns_last_pid; } 2> /dev/null;"
    ' dd if=/dev/zero of=/dev/shm/vbench-pages bs=4096 count="$2" 2> /dev/null; sleep "$3"'
)
_PROCESSES, _PAGES, _SECONDS = 97, 37, 0.0013


def worker_for(unit: WorkUnit, capsule: Capsule) -> Worker:
    """The worker for a unit's stacks."""
    exact = all(Stack.parse(path).exact() for path in unit.stacks)
    return ExactWorker(unit, capsule) if exact else Worker(unit, capsule)


class ExactWorker(Worker):
    """Carries out a unit of one stack on a deterministic machine."""

    def __init__(self, unit: WorkUnit, capsule: Capsule) -> None:
        super().__init__(unit, capsule)
        self._known: dict[str, Any] = {}
        self._took: dict[str, float] = {}  # seconds of ours that a cell takes
        self._settled: set[str] = set()

    def run(self) -> Iterator[Event]:
        """Boot by boot, open the stack with the boot's seed, and measure each step from the same state."""
        told, given_up = False, set[str]()
        for boot in sorted({self._unit.boot(step) for step in self._unit.steps}):
            # In any order: those that share a set-up come one after the other.
            steps = [step for step in self._unit.steps if self._unit.boot(step) == boot]
            steps.sort(key=self._prepared)
            with ExitStack() as opened:
                before = told
                for event in self._open(opened, seed=boot + 1):
                    told |= isinstance(event, Opened)
                    if not before or isinstance(event, (Began, Failed)):
                        yield event
                for env in self._environments.values():
                    env.failed |= given_up
                    for number, step in enumerate(steps):
                        if step.workload in env.failed:
                            continue
                        ahead = {each.workload for each in steps[number:]} - env.failed
                        known = ahead <= self._took.keys()
                        left = (
                            sum(self._took.get(each.workload, 0.0) for each in steps[number:])
                            if known
                            else None
                        )
                        yield from self._cell(env, step, left)
                    given_up |= env.failed
            self._environments.clear()

    def _prepared(self, step: Step) -> tuple[tuple[str, ...], str]:
        """What is done before a step's workload is run, for sorting."""
        workload = self._workloads[step.workload]
        return tuple(workload.setup.command if workload.setup else ()), workload.name

    def _examine(self, env: Environment) -> dict[str, Any]:
        """Save the machine, and look into it at the first block only: what is read stays in no cell's caches."""
        trail = trail_of(env.host)
        assert trail is not None  # noqa: S101 - its stack is exact
        mark = trail.mark()
        env.steals = False  # all that its processor could wait for is counted
        trail.back_to(mark)
        if not self._known:
            self._known = super()._examine(env)
            trail.note()  # known the next time
            trail.back_to(mark)
        for host in (*env.quiet, env.host):
            host.run(["sync"], timeout=120 * env.slowdown)
        env.host.run(
            [*env.host.program("vbench-probe"), "nullcall", "--work", "1"], timeout=120 * env.slowdown
        )
        env.host.usage()
        self._saved = trail, trail.park()
        return dict(self._known)

    def _cell(self, env: Environment, step: Step, left: float | None) -> Iterator[Event]:
        workload = self._workloads[step.workload]
        yield Began(
            stage="measuring", stack=step.stack, workload=step.workload, block=step.block, remaining_s=left
        )
        begin = time.monotonic()
        try:
            once = self._once(env, workload, step)
        except DigestMismatch:
            raise
        except VbenchError as error:
            yield self._given_up(env, step.workload, "measure", error)
            return
        self._took[step.workload] = time.monotonic() - begin
        if step.workload not in self._settled:
            self._settled.add(step.workload)
            took_s = round(self._took[step.workload], 2)
            work = env.work[step.workload]
            yield Settled(stack=step.stack, workload=step.workload, work=work, took_s=took_s)
        yield self._measured(env, step, once)

    def _once(self, env: Environment, workload: Workload, step: Step) -> Invocation:
        """Set up, rehearse, and measure."""
        self._come_to(env, workload, step)
        return invoke(env, workload, env.work[workload.name])

    def _come_to(self, env: Environment, workload: Workload, step: Step) -> None:
        """Be where a step is to be measured, set up and rehearsed."""
        if workload.name not in env.work:
            env.work[workload.name] = self._size(env, workload)
        self._set_up(env, workload)
        # The baseline's second measurement is one start more.
        if n := 2 * self._unit.start(step) + (step.arm != "A"):
            moved = [str(n * _PROCESSES), str(n * _PAGES), f"{n * _SECONDS:.4f}"]
            env.host.run(["sh", "-c", _DISTURB, "disturb", *moved], check=False)
        if (least := _rehearsal(workload)) is not None:
            rehearse(env, workload, least)
        env.leave = self._saved[0].leave

    def _size(self, env: Environment, workload: Workload) -> int | None:
        """The work that all stacks do of a workload; of one that says none, what its time in this one asks for."""
        if workload.work is None:
            return None
        if (size := self._sizes.get((env.stack.path, workload.name))) is not None:
            return size.work
        if workload.work.counted is not None:
            return workload.work.counted
        self._set_up(env, workload)
        env.leave = None
        return calibrate(lambda work: run_command(env, workload, work), workload.work, counted=True)

    def _set_up(self, env: Environment, workload: Workload) -> None:
        """Go back to where all cells begin, and set up; for workloads one after the other that share it, once."""
        trail, mark = self._saved
        trail.back_to(mark)
        set_up(env, workload)
        trail.park()


def _rehearsal(workload: Workload) -> int | None:
    """With how much work to run a workload first, so that nothing of it is read for the first time when it is measured.

    ``None``: not at all, if it warms up by itself, or if the rehearsal would do as much as what is measured.
    """
    work = workload.work
    if work is None or workload.warms_up or (work.counted is not None and work.counted <= work.min):
        return None
    return work.min
