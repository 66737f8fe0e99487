"""The worker: carries out one unit of a run on this machine and yields what happens as events."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from vbench.bundle.samples import canonical
from vbench.bundle.store import Note
from vbench.capsule.capsule import Capsule, verify_inside
from vbench.errors import BundleError, ConnectionLost, DigestMismatch, VbenchError
from vbench.harness.events import Began, Event, Failed, Measured, Noted, Opened, Settled, Value
from vbench.harness.invoke import Environment, Invocation, invoke, places, prepare
from vbench.harness.lifecycle import Opener
from vbench.harness.plan import Step
from vbench.harness.units import Size, WorkUnit
from vbench.hosts.base import Host
from vbench.hosts.declared import LOCAL
from vbench.layers.base import make_layer
from vbench.layers.roots import open_root, outside
from vbench.layers.stack import Stack, open_layer
from vbench.observe import facts, identity, machine, noise
from vbench.workload.model import Workload

log = logging.getLogger(__name__)

_NOISE = "noise"
"""The topic of notes on what has disturbed the measurements so far; they are updated after each block."""


class Worker:
    """Carries out a unit. It knows nothing about other workers, and neither resumes nor decides when to stop.

    Raises ``BundleError`` if its capsule is not the one that the unit asks for.
    """

    def __init__(self, unit: WorkUnit, capsule: Capsule) -> None:
        if capsule.digest != unit.capsule:
            raise BundleError(
                f"the unit {unit.name} is for capsule {unit.capsule}, here is {capsule.digest}",
                "import the capsule that it was made with",
            )
        self._unit, self._capsule = unit, capsule
        self._workloads: Mapping[str, Workload] = {each.name: each for each in unit.workloads}
        self._sizes = {(size.stack, size.workload): size for size in unit.sizes}
        self._environments: dict[str, Environment] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._machines: dict[str, machine.Machine] = {}
        self._watches: dict[str, noise.Watch] = {}
        self._roots: dict[str, Host] = {}  # machines, which are opened once
        self._ahead = Counter((step.stack, step.workload) for step in unit.steps)

    def run(self) -> Iterator[Event]:
        """Open the stacks, measure the steps, close everything. Leaving the iterator early closes everything, too.

        By the wall clock they are opened several times in the course of it, see :meth:`WorkUnit.opening`. If a stack or
        a cell fails, that is an event, and the rest goes on. Raises ``DigestMismatch`` before anything
        is measured with the wrong bytes.
        """
        with ExitStack() as machines:
            first = True
            for steps in self._openings():
                with ExitStack() as opened:
                    for event in self._open(opened, machines=machines, anew=not first):
                        if first or not isinstance(event, Opened):  # what it shows is known
                            yield event
                    if first:
                        yield from self._other_hardware()
                    planned = {(step.stack, step.workload) for step in steps}
                    for path in self._environments:
                        for name in self._workloads:
                            # A cell that was already warm before the run was resumed waits for its turn, so that a run
                            # that keeps being cut short still makes progress each time.
                            if (path, name) in planned and not (first and self._recorded(path, name)):
                                yield from self._prepare(path, name)
                    yield from self._measure(steps)
                    yield from self._look()
                    self._tear_down()
                first = False

    def _openings(self) -> list[list[Step]]:
        """The steps of each opening, in order."""
        unit = self._unit
        return [
            [step for step in unit.steps if unit.opening(step) == opening]
            for opening in sorted({unit.opening(step) for step in unit.steps}) or [0]
        ]

    def _look(self) -> Iterator[Noted]:
        """What has disturbed each machine so far."""
        for root, watch in self._watches.items():
            try:
                found = watch.look()
            except ConnectionLost:  # whoever measures there will notice
                continue
            yield self._noted(root, found, f"{_NOISE} {root}")

    def _noted(self, root: str, found: list[noise.Finding], topic: str | None) -> Noted:
        there = [path for path in self._unit.stacks if Stack.parse(path).root == root]
        stacks = [path for path in there if path in self._environments] or there
        notes = [Note(severity=severity, stacks=stacks, text=text) for severity, text in found]
        return Noted(notes=tuple(notes), topic=topic)

    def _open(
        self, opened: ExitStack, seed: int = 1, *, machines: ExitStack | None = None, anew: bool = False
    ) -> Iterator[Event]:
        """Open every stack once, sharing the layers they have in common. Checks digests and collects facts.

        ``machines`` is where machines are left open, if other stacks are opened ``anew``: those that work. What was
        given up in one of them stays so.
        """
        hosts, known_as = dict(self._roots), self._environments
        self._environments = {}
        for path in self._unit.stacks:
            if anew and (path not in known_as or known_as[path].dead):
                continue
            stack = Stack.parse(path)
            yield Began(stage="opening", stack=path)
            begin = time.monotonic()
            try:
                if stack.root not in hosts:
                    self._open_part(stack.prefix(0), hosts, machines or opened, seed)
                    if machines:
                        self._roots[stack.root] = hosts[stack.root]
                    if (
                        self._unit.clock == "wall"
                    ):  # counted instructions do not depend on what else runs there
                        self._machines[stack.root] = there = machine.of(hosts[stack.root])
                        yield self._noted(stack.root, noise.before(there), None)
                restless = [
                    host.name
                    for depth in range(stack.depth + 1)
                    for host in self._open_part(stack.prefix(depth), hosts, opened, seed)
                ]
                env = self._environment(stack, hosts)
                if anew:
                    verify_inside(env.host)
                    env.failed, env.expected = known_as[path].failed, known_as[path].expected
                    known = self._facts[path]
                else:
                    known = self._examine(env)
                seconds = time.monotonic() - begin
            except DigestMismatch:
                raise
            except VbenchError as error:
                log.info("%s does not open: %s", path, error)
                yield Failed(stack=path, stage="open", reason=str(error))
                continue
            log.info("opened %s in %.1f s", path, seconds)
            at = _peer_at(env.host)
            known["peer"] = at if hosts[at].peer_at else facts.ON_THE_MACHINE
            known["open_seconds"] = f"{seconds:.2f}"
            self._environments[path] = env
            self._facts[path] = known
            yield Opened(stack=path, facts=known)
            yield from self._held_against(stack, known)
            texts = [f"{name} did not come to rest" for name in dict.fromkeys(restless)]
            if notes := [Note(severity="warning", stacks=[path], text=text) for text in texts]:
                yield Noted(notes=tuple(notes))

    def _held_against(self, stack: Stack, known: Mapping[str, Any]) -> Iterator[Noted]:
        """What a machine shows that contradicts what it is declared to be."""
        machine = self._unit.machine(stack.root)
        if machine is not None and not stack.layers:
            texts = [f"{stack.path}: {text}" for text in identity.contradictions(machine.system, known)]
            if notes := [Note(severity="warning", stacks=[stack.path], text=text) for text in texts]:
                yield Noted(notes=tuple(notes))

    def _other_hardware(self) -> Iterator[Event]:
        """Machines that show other hardware than their baseline: they are not measured."""
        for path in [path for path in self._environments if not Stack.parse(path).layers]:
            base = self._unit.baseline(Stack.parse(path))
            if base is None or base.path not in self._facts:
                continue
            pair = self._facts[path], self._facts[base.path]
            if odd := identity.odd_hardware(*pair):
                text = f"{path} may be on other hardware than its baseline {base.path}: {'; '.join(odd)}"
                yield Noted(notes=(Note(severity="warning", stacks=[path], text=text),))
            if unlike := identity.other_hardware(*pair):
                del self._environments[path]
                reason = f"it shows other hardware than its baseline {base.path}: {'; '.join(unlike)}"
                yield Failed(stack=path, stage="open", reason=reason)

    def _examine(self, env: Environment) -> dict[str, Any]:
        """Check the digest of an environment that has come to rest, and collect its facts."""
        digest = verify_inside(env.host)
        here = env.stack.depth == 0 and env.stack.root == LOCAL
        known = facts.collect(env.host, self._unit.results if here else None)
        if env.stack.depth == 0 and env.stack.root != LOCAL:
            known["round_trip_s"] = f"{machine.round_trip(env.host):.4f}"
        return {**known, "files_digest": digest}

    def _open_part(self, part: Stack, hosts: dict[str, Host], opened: ExitStack, seed: int) -> list[Host]:
        """Open a part of a stack, if it is not open; the hosts that did not come to rest."""
        if part.path in hosts:
            return []
        shape = self._unit.shape
        if part.depth == 0:
            pinned = self._unit.clock == "wall"
            address = self._unit.address(part.root)
            root = open_root(part.root, self._capsule, shape, pinned=pinned, seed=seed, address=address)
            hosts[part.path] = self._root(opened.enter_context(root))
            return []
        way = [hosts[part.prefix(depth).path] for depth in range(part.depth)]
        restless = open_layer(opened, way, make_layer(part.layers[-1]), shape)
        hosts[part.path] = way[-1]
        return restless

    def _root(self, host: Host) -> Host:
        """A machine just opened, as stacks are opened on it."""
        return host

    def _environment(self, stack: Stack, hosts: Mapping[str, Host]) -> Environment:
        host = hosts[stack.path]
        peer = hosts[(at := _peer_at(host))]
        if at == stack.root:  # the peer on the machine itself gets CPUs of its own
            peer = outside(peer, self._capsule, self._unit.shape)
        below = [hosts[stack.prefix(depth).path] for depth in range(stack.depth, 0, -1)]
        quiet = [each for each in below if each.placement.clock == "instructions"]
        return Environment(stack, host, peer, self._opener(stack, hosts), tuple(quiet))

    def _opener(self, stack: Stack, hosts: Mapping[str, Host]) -> Opener | None:
        """How another environment of this stack is opened; ``None`` if it is a machine of its own."""
        layer, counted = stack.top(), self._unit.clock != "wall"
        if layer is None or self._unit.baseline(stack) is None:
            return Opener.bare(hosts[stack.path], counted)
        if layer.own_machine:
            return None
        parent = hosts[stack.prefix(stack.depth - 1).path]
        return Opener(parent, lambda: layer.open(parent, self._unit.shape), counted)

    def _recorded(self, path: str, name: str) -> bool:
        size = self._sizes.get((path, name))
        return size is not None and size.recorded

    def _prepare(self, path: str, name: str) -> Iterator[Event]:
        """Set up, calibrate and warm up a workload; a warm-up already in the journal is not reported again."""
        env = self._environments.get(path)
        if env is None or env.dead or name in env.failed:
            return
        workload, size = self._workloads[name], self._sizes.get((path, name))
        yield Began(stage="calibrating", stack=path, workload=name)
        try:
            warm = prepare(env, workload, size.work if size and workload.work else None)
        except VbenchError as error:
            yield self._given_up(env, name, "prepare", error)
            return
        if not self._recorded(path, name):
            yield self._measured(env, Step(0, 0, name, path, "A"), warm, warmup=True)
            self._sizes[path, name] = Size(stack=path, workload=name, work=env.work[name] or 1)
        yield Settled(stack=path, workload=name, work=env.work[name])

    def _measure(self, steps: Sequence[Step]) -> Iterator[Event]:
        block, ahead = steps[0].block if steps else 0, self._ahead
        for step in steps:
            ahead[step.stack, step.workload] -= 1
            env, workload = self._environments.get(step.stack), self._workloads[step.workload]
            if env is None or env.dead:
                continue
            if step.workload not in env.work and step.workload not in env.failed:
                yield from self._prepare(step.stack, step.workload)
            if env.dead or step.workload in env.failed:
                continue
            if step.block != block:
                yield from self._look()
            block = step.block
            left = sum(self._expected(*cell) * times for cell, times in ahead.items())
            left += self._expected(step.stack, step.workload)
            yield Began(
                stage="measuring",
                stack=step.stack,
                workload=step.workload,
                block=step.block,
                remaining_s=left,
            )
            try:
                self._watch(env)
                once = invoke(env, workload, env.work[step.workload])
            except VbenchError as error:
                yield self._given_up(env, step.workload, "measure", error)
                continue
            env.expected[step.workload] = once.wall_s
            yield self._measured(env, step, once)

    def _watch(self, env: Environment) -> None:
        """Begin to watch the machine that an environment is on, unless that is being done."""
        root = env.stack.root
        if root in self._machines and root not in self._watches:
            self._watches[root] = noise.Watch(self._machines[root])

    def _expected(self, stack: str, workload: str) -> float:
        env = self._environments.get(stack)
        return 0.0 if env is None or env.dead else env.expected.get(workload, 0.0)

    def _measured(self, env: Environment, step: Step, once: Invocation, *, warmup: bool = False) -> Measured:
        base, workload = self._unit.baseline(env.stack), self._workloads[step.workload]
        return Measured(
            stack=step.stack,
            baseline=base.path if base else step.stack,
            workload=step.workload,
            params=canonical(workload.params),
            block=step.block,
            order=step.order,
            arm=step.arm,
            warmup=warmup,
            work=env.work[step.workload] or 1,
            clock=self._unit.clock,
            values=tuple(
                Value(metric=metric.name, unit=metric.unit, better=metric.better, value=value)
                for metric, value in once.values
            ),
            guest_s=once.guest_s,
            parent_s=once.parent_s,
            cost=once.cost,
            start=once.start,
            stdout=once.stdout,
        )

    def _given_up(self, env: Environment, workload: str, stage: str, error: VbenchError) -> Failed:
        """Give up a cell that could not be measured, or the whole environment if its connection is lost."""
        env.failed.add(workload)
        env.expected.pop(workload, None)
        lost = isinstance(error, ConnectionLost) or not _answers(env)
        if lost:
            env.dead = str(error)
        log.info("%s: %s is given up: %s", env.stack.path, workload, error)
        return Failed.model_validate(
            {
                "stack": env.stack.path,
                "workload": None if lost else workload,
                "stage": stage,
                "reason": str(error),
            }
        )

    def _tear_down(self) -> None:
        for env in self._environments.values():
            for workload in self._workloads.values():
                if workload.teardown is not None and not env.dead and workload.name in env.expected:
                    argv = workload.render(workload.teardown.command, env.host.program, **places(env.host))
                    with contextlib.suppress(
                        VbenchError
                    ):  # everything is measured, and the environment is about to go
                        env.host.run(argv, check=False, timeout=workload.teardown.timeout_s * env.slowdown)


def _peer_at(host: Host) -> str:
    return host.peer_at or host.name


def _answers(env: Environment) -> bool:
    try:
        env.host.run(["true"], timeout=30 * env.slowdown)
    except VbenchError:
        return False
    return True
