"""Why a cell costs what it does: a second pass over it, in which its machine's emulator counts what is executed."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from functools import cache

from vbench.bundle.reasons import Reasons
from vbench.capsule.capsule import Capsule
from vbench.errors import HostError, NotComparable
from vbench.exact.counts import ENTERED, ENTRIES, Counts, Tally, entries, tally
from vbench.harness.events import Failed
from vbench.harness.exact import ExactWorker
from vbench.harness.invoke import Environment, Invocation, invoke
from vbench.harness.plan import Step
from vbench.harness.units import units_of
from vbench.hosts.base import Host
from vbench.layers.base import Shape
from vbench.layers.stack import Stack, open_layers
from vbench.technique import layer_of
from vbench.workload.model import Workload

_ASSISTED = ("kvm", "libkrun", "virtualbox", "pvh", "hvm")


def countable(stack: Stack) -> None:
    """Raises ``NotComparable`` for a stack whose instructions cannot be counted by where they are.

    That is one that is not exact, or has two hypervisors that use the processor's own assistance: they are the same
    code at the same addresses.
    """
    if not stack.exact():
        near = "/".join((stack.root, "testbed", *stack.layers))
        raise NotComparable(
            f"what is executed in {stack.path} cannot be counted: it is not on the testbed", f"try {near}"
        )
    if (emulator := layer_of(stack.layers[0])) != "testbed":
        raise NotComparable(f"what is executed on {emulator} cannot be counted: its emulator has no plugins")
    assisted = [word for word in stack.layers if layer_of(word) in _ASSISTED or word == "gvisor:kvm"]
    if len(assisted) > 1:
        raise NotComparable(
            f"in {stack.path}, what {assisted[1]} executes cannot be told from {assisted[0]}",
            "leave out one of them",
        )


def reasons(stack: Stack, workload: Workload, capsule: Capsule, *, model: bool = False) -> Reasons:
    """Count what an operation of a workload is made of: by the difference between twice its work and once.

    So what starting it takes is not in it. ``model``: caches of translations and of data, too, which takes longer.
    Raises ``NotComparable`` as :func:`countable` does.
    """
    countable(stack)
    with tally() as (counted, file):
        where, complete = entries_of(stack, capsule)
        told = (f"counts={file}", *where, *(["memory=on"] if model else []))
        found = _Counting(stack, workload, capsule, counted, told).count()
    if complete:
        return found
    seen = {name: count for name, count in found.counts.items() if name not in ENTERED}
    return replace(found, counts=seen, unseen=ENTERED)


@cache
def entries_of(stack: Stack, capsule: Capsule) -> tuple[tuple[str, ...], bool]:
    """Where the kernels in a stack are entered, by their own symbols, and whether all of them tell.

    It is the same place in each opening of its seed.
    """
    found: list[list[str]] = []
    with open_layers(stack, capsule, Shape()) as hosts:
        for host in hosts[1:]:
            told = host.run(["grep", "-E", ENTRIES, "/proc/kallsyms"], check=False, timeout=600)
            found.append(entries(told.text))
    return tuple(dict.fromkeys(each for one in found for each in one)), all(found)


class _Counting(ExactWorker):
    """Carries out one cell in a machine whose emulator counts."""

    def __init__(
        self, stack: Stack, workload: Workload, capsule: Capsule, counted: Tally, told: tuple[str, ...]
    ) -> None:
        self._step = Step(0, 0, workload.name, stack.path, "A")
        (unit,) = units_of(
            [stack], [self._step], {workload.name: workload}, [], shape=Shape(), capsule=capsule.digest
        )
        super().__init__(unit, capsule)
        self._workload, self._counted, self._told = workload, counted, told

    def _root(self, host: Host) -> Host:
        return host.but(counts=self._told)

    def count(self) -> Reasons:
        """Open the stack, and count once with the workload's work and once with twice as much."""
        with ExitStack() as opened:
            for event in self._open(opened):
                if isinstance(event, Failed):
                    raise HostError(event.reason)
            (env,) = self._environments.values()
            work = self._size(env, self._workload)
            counts, once = self._pass(env, work)
            operations = 0
            if work is not None:
                more, twice = self._pass(env, 2 * work)
                operations = _operations(twice.stdout, 2 * work) - _operations(once.stdout, work)
                more.subtract(counts)
                counts = more
        metric, value = next((each for each in once.values if each[0].primary), once.values[0])
        return Reasons(
            stack=env.stack.path,
            workload=self._workload.name,
            operations=operations,
            counts={name: count / (operations or 1) for name, count in counts.items() if count},
            metric=metric.name,
            unit=metric.unit,
            value=value,
        )

    def _pass(self, env: Environment, work: int | None) -> tuple[Counts, Invocation]:
        self._come_to(env, self._workload, self._step)
        before = self._counted.read()
        once = invoke(env, self._workload, work)
        counts = self._counted.read()
        counts.subtract(before)
        return counts, once


def _operations(stdout: bytes, work: int) -> int:
    """How many operations an invocation has done.

    The probe's does its work in each of its batches, after a warm-up of an eighth of it (``probe.c``), or of one pass
    (``membw``).
    """
    try:
        said = json.loads(stdout)
    except ValueError:
        return work
    if not isinstance(said, dict) or "batches" not in said:
        return work
    return work * len(said["batches"]) + (0 if said.get("name") == "membw" else work // 8 + 1)
