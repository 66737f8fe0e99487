"""A lane: stacks that are open and measured together, in the order that the schedule gives."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from vbench.capsule.capsule import Capsule, verify_inside
from vbench.errors import BundleError, ConnectionLost, DigestMismatch, VbenchError
from vbench.harness.invoke import Environment, invoke, places, prepare
from vbench.harness.lifecycle import Birth
from vbench.harness.plan import Step
from vbench.harness.recorder import Recorder
from vbench.hosts.base import Host
from vbench.hosts.local import LocalHost
from vbench.layers.base import Shape, make_layer
from vbench.layers.stack import LOCAL, Stack, cpus_for, open_root
from vbench.observe import facts
from vbench.workload.model import Workload


class Stopped(Exception):
    """The run is being given up."""


@dataclass(frozen=True)
class Lane:
    """Stacks by their wall clock share one lane, because they must be compared moment by moment.

    Where a clock counts instructions, nothing outside a stack can touch its figures: each stack is a lane of
    its own, with a testbed of its own, and lanes run side by side.
    """

    name: str
    stacks: tuple[Stack, ...]
    clock: str


def lanes_of(stacks: Sequence[Stack]) -> list[Lane]:
    """The lanes of a run; that of the wall clock first."""
    wall = tuple(stack for stack in stacks if stack.clock() == "wall")
    counted = [Lane(stack.path, (stack,), "instructions") for stack in stacks if stack not in wall]
    return ([Lane("wall clock", wall, "wall")] if wall else []) + counted


def carry_out(
    lane: Lane,
    steps: Sequence[Step],
    workloads: Mapping[str, Workload],
    capsule: Capsule,
    shape: Shape,
    recorder: Recorder,
    stop: threading.Event,
) -> int:
    """Open the lane's stacks, measure its steps, close them; returns how many stacks were open.

    A stack that fails is recorded and the rest goes on. Raises ``DigestMismatch`` before anything is
    measured with wrong bytes, ``BundleError`` when results cannot be written, ``Stopped`` when told to.
    """
    with _environments(lane, capsule, shape, recorder, stop) as environments:
        recorder.compare_traits()
        for env in environments.values():
            _prepare(env, lane, workloads, recorder, stop)
        _measure(environments, lane, steps, workloads, recorder, stop)
        for env in environments.values():
            _tear_down(env, workloads)
        recorder.finished(lane.name)
        return len(environments)


@contextmanager
def _environments(
    lane: Lane, capsule: Capsule, shape: Shape, recorder: Recorder, stop: threading.Event
) -> Iterator[dict[str, Environment]]:
    """Open every stack of the lane once; they share what lies below them. Checks digests, collects facts."""
    hosts: dict[str, Host] = {}
    found: dict[str, Environment] = {}
    with ExitStack() as opened:
        for stack in lane.stacks:
            _check(stop)
            recorder.doing(f"opening {stack.path}", lane.name)
            begin = time.monotonic()
            try:
                for depth in range(stack.depth + 1):
                    part = stack.prefix(depth)
                    if part.path not in hosts:
                        context = (
                            open_root(part.root, capsule, shape, pinned=lane.clock == "wall")
                            if depth == 0
                            else make_layer(part.layers[-1]).open(hosts[stack.prefix(depth - 1).path], shape)
                        )
                        hosts[part.path] = opened.enter_context(context)
                host = hosts[stack.path]
                digest = verify_inside(host)
                known = facts.collect(host, None if stack.depth else recorder.folder)
                seconds = f"{time.monotonic() - begin:.2f}"
                counted = lane.clock == "instructions"
                below = [hosts[stack.prefix(n).path] for n in range(stack.depth, 0, -1)] if counted else []
                quiet = tuple(each for each in below if each.placement.clock == "instructions")
                for each in quiet:
                    if not facts.come_to_rest(each):
                        recorder.note("warning", stack.path, f"{each.name} did not come to rest")
            except DigestMismatch:
                raise
            except VbenchError as error:
                _check(stop)
                recorder.failure(stack, None, "open", error)
                continue
            at = _peer_at(host)
            known["peer"] = at if hosts[at].peer_at else facts.ON_THE_MACHINE
            recorder.opened(stack, {**known, "files_digest": digest, "open_seconds": seconds})
            peer, birth = _peer(stack, hosts, capsule, shape), _birth(stack, hosts, shape)
            found[stack.path] = Environment(stack, host, peer, birth, quiet)
        yield found


def _peer(stack: Stack, hosts: Mapping[str, Host], capsule: Capsule, shape: Shape) -> Host:
    """Where the other end of a stack's network workloads runs; this machine's end has CPUs of its own."""
    at = _peer_at(hosts[stack.path])
    return LocalHost("outside", capsule.payload(), cpus=cpus_for(shape)[1]) if at == LOCAL else hosts[at]


def _peer_at(host: Host) -> str:
    return host.peer_at or host.name


def _birth(stack: Stack, hosts: Mapping[str, Host], shape: Shape) -> Birth | None:
    """How another environment of this stack is opened; ``None`` where it is a machine of its own."""
    layer, counted = stack.top(), stack.clock() != "wall"
    if layer is None or stack.baseline() is None:
        return Birth.bare(hosts[stack.path], counted)
    if layer.own_machine:
        return None
    parent = hosts[stack.prefix(stack.depth - 1).path]
    return Birth(parent, lambda: layer.open(parent, shape), counted)


def _prepare(
    env: Environment,
    lane: Lane,
    workloads: Mapping[str, Workload],
    recorder: Recorder,
    stop: threading.Event,
) -> None:
    """Set up, calibrate and warm up every workload; cells that cannot are recorded as failures."""
    for name, workload in workloads.items():
        _check(stop)
        recorder.doing(f"calibrating {name} in {env.stack.path}", lane.name)
        if env.dead or recorder.has_failed(env.stack, name):
            continue
        size = recorder.sizes.get((env.stack.path, name))
        known = recorder.given.get((env.stack.path, name)) if size is None else size
        try:
            warm = prepare(env, workload, known if workload.work else None)
        except VbenchError as error:
            _give_up(env, recorder, name, "prepare", error, stop)
            continue
        if size is None:
            recorder.sample(env, workload, Step(0, 0, name, env.stack.path, "A"), warm, warmup=True)
        recorder.settled(env.stack, name, env.work[name])


def _measure(
    environments: Mapping[str, Environment],
    lane: Lane,
    steps: Sequence[Step],
    workloads: Mapping[str, Workload],
    recorder: Recorder,
    stop: threading.Event,
) -> None:
    pending = [
        step
        for step in steps
        if step.stack in environments
        and (step.block, step.workload, step.stack, step.arm) not in recorder.measured
    ]
    for number, step in enumerate(pending):
        _check(stop)
        if recorder.enough(step.block):
            break
        env, workload = environments[step.stack], workloads[step.workload]
        if env.dead or step.workload not in env.expected:
            continue
        left = sum(environments[later.stack].expected.get(later.workload, 0.0) for later in pending[number:])
        recorder.doing(f"block {step.block + 1}: {step.workload} in {step.stack}", lane.name, left)
        try:
            once = invoke(env, workload, env.work[step.workload])
        except VbenchError as error:
            _give_up(env, recorder, step.workload, "measure", error, stop)
            continue
        env.expected[step.workload] = once.wall_s
        recorder.sample(env, workload, step, once)


def _tear_down(env: Environment, workloads: Mapping[str, Workload]) -> None:
    for workload in workloads.values():
        if workload.teardown is not None and not env.dead and workload.name in env.expected:
            argv = workload.render(workload.teardown.command, env.host.program, **places(env.host))
            with contextlib.suppress(VbenchError):  # all is measured, and the environment goes away now
                env.host.run(argv, check=False, timeout=workload.teardown.timeout_s * env.slowdown)


def _give_up(
    env: Environment, recorder: Recorder, workload: str, stage: str, error: VbenchError, stop: threading.Event
) -> None:
    """Record that a cell could not be measured; a lost connection ends the whole environment."""
    _check(stop)
    if isinstance(error, BundleError):
        raise error
    env.expected.pop(workload, None)
    lost = isinstance(error, ConnectionLost) or not _answers(env)
    if lost:
        env.dead = str(error)
    recorder.failure(env.stack, None if lost else workload, stage, error)


def _answers(env: Environment) -> bool:
    try:
        env.host.run(["true"], timeout=30 * env.slowdown)
    except VbenchError:
        return False
    return True


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped
