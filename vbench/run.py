"""Running a plan: open its stacks, measure in randomized complete blocks, journal every sample."""

from __future__ import annotations

import contextlib
import gzip
import json
import platform
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from vbench import facts
from vbench.capsule import Capsule, verify_inside
from vbench.errors import BundleError, ConnectionLost, DigestMismatch, VbenchError
from vbench.host import Host
from vbench.journal import Sample, canonical
from vbench.layer import make_layer
from vbench.local import LocalHost
from vbench.measure import Environment, Invocation, invoke, prepare
from vbench.plan import Plan, Step, schedule, with_baselines
from vbench.stack import LOCAL, Stack, cpus_for, open_root
from vbench.store import JOURNAL, Bundle, Failure, Note, RunInfo, WorkloadInfo
from vbench.workload import Workload

_MAKE_ROOM = "make room, then: vbench resume"


class Watcher(Protocol):
    """Told what a run is doing. All methods return at once."""

    def say(self, text: str) -> None:
        """One line worth keeping."""

    def doing(self, text: str, done: int, total: int, remaining_s: float | None) -> None:
        """What runs now; ``remaining_s`` from what invocations really took, ``None`` while unknown."""


def new_run(plan: Plan, workloads: Mapping[str, Workload], capsule: Capsule) -> RunInfo:
    """The record of a run that is about to start. Raises ``UsageError`` where the shape cannot be given."""
    cpus_for(plan.shape())
    now = datetime.now(UTC)
    stacks = with_baselines(plan.stacks)
    return RunInfo(
        id=f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        created=now.isoformat(timespec="seconds"),
        plan=plan.model_dump(),
        seed=plan.seed,
        capsule={
            "digest": capsule.digest,
            "drift": capsule.manifest.drift,
            "kernel": capsule.manifest.kernel,
        },
        workloads={
            name: WorkloadInfo(
                digest=workloads[name].digest,
                kind=workloads[name].kind,
                title=workloads[name].title,
                primary=workloads[name].primary.name,
            )
            for name in plan.workloads
        },
        techniques={stack.path: stack.technique() for stack in stacks},
        versions=_versions(),
    )


def execute(bundle: Bundle, workloads: Mapping[str, Workload], capsule: Capsule, watch: Watcher) -> None:
    """Carry out the plan of a bundle, or what is left of it; every sample is in the journal when it returns.

    A stack that fails is recorded and the rest goes on. Raises ``DigestMismatch`` before anything is
    measured with wrong bytes, ``BundleError`` when results cannot be written, and ``VbenchError`` when no
    stack opens at all.
    """
    info = bundle.info
    if info.capsule.get("digest") != capsule.digest:
        raise BundleError(
            f"{bundle.path} was begun with capsule {info.capsule.get('digest')}, here is {capsule.digest}",
            "import the capsule that it was begun with",
        )
    plan = Plan.model_validate(info.plan)
    todo = {name: workloads[name] for name in plan.workloads}
    info.status = "running"
    info.notes += [Note(severity="warning", text=text) for text in facts.noise()]
    bundle.save()
    try:
        with _environments(plan, bundle, capsule, watch) as environments:
            _prepare(environments, todo, bundle, watch)
            _measure(environments, plan, todo, bundle, watch)
    except BaseException:
        info.status = "interrupted"
        bundle.save()
        raise
    bundle.finish()


@contextmanager
def _environments(
    plan: Plan, bundle: Bundle, capsule: Capsule, watch: Watcher
) -> Iterator[dict[str, Environment]]:
    """Open every stack of the plan once; stacks share what lies below them. Checks digests and facts."""
    info, shape = bundle.info, plan.shape()
    stacks = with_baselines(plan.stacks)
    hosts: dict[str, Host] = {}
    found: dict[str, Environment] = {}
    # A run that is resumed tries again what did not open or died before.
    earlier = {failure.stack: failure.reason for failure in info.failures if failure.workload is None}
    info.failures = [failure for failure in info.failures if failure.workload is not None]
    _, others = cpus_for(shape)
    outside = LocalHost("outside", capsule.payload(), cpus=others)
    with ExitStack() as opened:
        for number, stack in enumerate(stacks):
            watch.doing(f"opening {stack.path}", number, len(stacks), None)
            begin = time.monotonic()
            try:
                for depth in range(stack.depth + 1):
                    part = stack.prefix(depth)
                    if part.path in hosts:
                        continue
                    context = (
                        open_root(part.root, capsule, shape)
                        if depth == 0
                        else make_layer(part.layers[-1]).open(hosts[stack.prefix(depth - 1).path], shape)
                    )
                    hosts[part.path] = opened.enter_context(context)
                host = hosts[stack.path]
                digest = verify_inside(host)
                known = facts.collect(host)
            except DigestMismatch:
                raise
            except VbenchError as error:
                _fail(bundle, watch, Failure(stack=stack.path, stage="open", reason=str(error)))
                continue
            peer = (
                outside
                if stack.depth <= 1 and stack.root == LOCAL
                else hosts[stack.prefix(stack.depth - 1).path]
            )
            before = info.hosts.get(stack.path, {})
            seconds = f"{time.monotonic() - begin:.2f}"
            info.hosts[stack.path] = {**before, **known, "files_digest": digest, "open_seconds": seconds}
            found[stack.path] = Environment(stack, host, peer)
            if stack.path in earlier:
                text = f"it was opened anew when the run was resumed, because {earlier[stack.path]}"
                info.notes.append(Note(severity="warning", stacks=[stack.path], text=text))
        if not found:
            raise VbenchError("no stack of the plan could be opened", "vbench doctor says what is missing")
        _compare(info)
        bundle.save()
        yield found


def _compare(info: RunInfo) -> None:
    """Note where stacks got other resources than their baseline."""
    for path in info.hosts:
        base = Stack.parse(path).baseline()
        if base is not None and base.path in info.hosts:
            pair = {path: info.hosts[path], base.path: info.hosts[base.path]}
            for stack, text in facts.unequal(pair, base.path):
                note = Note(severity="info", stacks=[stack], text=text)
                if note not in info.notes:
                    info.notes.append(note)


def _prepare(
    environments: Mapping[str, Environment], workloads: Mapping[str, Workload], bundle: Bundle, watch: Watcher
) -> None:
    """Set up, calibrate and warm up every workload everywhere; cells that cannot are recorded as failures."""
    done, total = 0, len(environments) * len(workloads)
    sizes = {(row["stack"], row["workload"]): row["work"] for row in _rows(bundle) if row["warmup"]}
    for path, env in environments.items():
        settled = bundle.info.hosts[path].setdefault("work", {})
        for name, workload in workloads.items():
            watch.doing(f"calibrating {name} in {path}", done, total, None)
            done += 1
            if env.dead or _failed(bundle, path, name):
                continue
            try:
                warm = prepare(env, workload, sizes.get((path, name)) if workload.work else None)
            except VbenchError as error:
                _fail_in(env, bundle, watch, name, "prepare", error)
                continue
            if (path, name) not in sizes:
                step = Step(0, 0, name, path, "A")
                _record(bundle, env, workload, step, warm, warmup=True)
            settled[name] = env.work[name]
        bundle.save()


def _measure(
    environments: Mapping[str, Environment],
    plan: Plan,
    workloads: Mapping[str, Workload],
    bundle: Bundle,
    watch: Watcher,
) -> None:
    stacks = [stack.path for stack in with_baselines(plan.stacks)]
    bases = {base.path for path in stacks if (base := Stack.parse(path).baseline()) is not None}
    steps = schedule(plan, list(workloads), stacks, bases)
    have = _recorded(bundle)
    pending = [step for step in steps if (step.block, step.workload, step.stack, step.arm) not in have]
    for number, step in enumerate(pending):
        env = environments.get(step.stack)
        if env is None or env.dead or step.workload not in env.expected:
            continue
        left = sum(
            environments[later.stack].expected.get(later.workload, 0.0)
            for later in pending[number:]
            if later.stack in environments
        )
        text = f"block {step.block + 1}/{plan.blocks}: {step.workload} in {step.stack}"
        watch.doing(text, len(steps) - len(pending) + number, len(steps), left)
        workload = workloads[step.workload]
        try:
            once = invoke(env, workload, env.work[step.workload])
        except VbenchError as error:
            _fail_in(env, bundle, watch, step.workload, "measure", error)
            continue
        env.expected[step.workload] = once.wall_s
        _record(bundle, env, workload, step, once)
    for env in environments.values():
        _tear_down(env, workloads)


def _tear_down(env: Environment, workloads: Mapping[str, Workload]) -> None:
    for workload in workloads.values():
        if workload.teardown is not None and not env.dead and workload.name in env.expected:
            argv = workload.render(workload.teardown.command, env.host.program, scratch=env.host.scratch)
            with contextlib.suppress(VbenchError):  # all is measured, and the environment goes away now
                env.host.run(argv, check=False, timeout=workload.teardown.timeout_s * env.slowdown)


def _record(
    bundle: Bundle,
    env: Environment,
    workload: Workload,
    step: Step,
    once: Invocation,
    *,
    warmup: bool = False,
) -> None:
    base = env.stack.baseline()
    _keep_raw(bundle.path, step, once.stdout, warmup)
    bundle.append(
        [
            Sample(
                run=bundle.info.id,
                stack=step.stack,
                baseline=base.path if base else step.stack,
                workload=workload.name,
                params=canonical(workload.params),
                metric=metric.name,
                unit=metric.unit,
                better=metric.better,
                value=value,
                block=step.block,
                order=step.order,
                arm=step.arm,
                warmup=warmup,
                work=env.work[workload.name] or 1,
                clock=env.stack.clock(),
                guest_s=once.guest_s,
                parent_s=once.parent_s,
                host_cpu_s=once.host_cpu_s,
                rss_mib=once.rss_mib,
                start=once.start,
            )
            for metric, value in once.values
        ]
    )


def _keep_raw(folder: Path, step: Step, stdout: bytes, warmup: bool) -> None:
    """Add a tool's output to ``raw/``: one compressed file a cell, one JSON line an invocation."""
    line = {"block": step.block, "arm": step.arm, "warmup": warmup, "stdout": stdout.decode(errors="replace")}
    member = gzip.compress(f"{json.dumps(line)}\n".encode())
    path = folder / "raw" / f"{step.stack.replace('/', '+')}.{step.workload}.jsonl.gz"
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            whole = file.write(member) == len(member)
            if not whole:  # half a member would make all that follow unreadable
                file.truncate(size)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror}", _MAKE_ROOM) from error
    if not whole:
        raise BundleError(f"cannot write {path}: the disk is full", _MAKE_ROOM)


def _recorded(bundle: Bundle) -> set[tuple[int, str, str, str]]:
    """(block, workload, stack, arm) of every measurement that the journal holds."""
    return {
        (row["block"], row["workload"], row["stack"], row["arm"])
        for row in _rows(bundle)
        if not row["warmup"]
    }


def _rows(bundle: Bundle) -> list[dict[str, Any]]:
    with (bundle.path / JOURNAL).open() as journal:
        return [json.loads(line) for line in journal]


def _failed(bundle: Bundle, stack: str, workload: str) -> bool:
    return any(f.stack == stack and f.workload == workload for f in bundle.info.failures)


def _fail_in(
    env: Environment, bundle: Bundle, watch: Watcher, workload: str, stage: str, error: VbenchError
) -> None:
    """Record that a cell could not be measured; a lost connection ends the whole environment."""
    if isinstance(error, BundleError):
        raise error
    env.expected.pop(workload, None)
    lost = isinstance(error, ConnectionLost) or not _answers(env)
    if lost:
        env.dead = str(error)
    name = None if lost else workload
    _fail(bundle, watch, Failure(stack=env.stack.path, workload=name, stage=stage, reason=str(error)))


def _answers(env: Environment) -> bool:
    try:
        env.host.run(["true"], timeout=30 * env.slowdown)
    except VbenchError:
        return False
    return True


def _fail(bundle: Bundle, watch: Watcher, failure: Failure) -> None:
    what = f"{failure.stack}: {failure.workload}" if failure.workload else failure.stack
    watch.say(f"{what} is left out, because {failure.reason}")
    bundle.info.failures.append(failure)
    bundle.save()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("vbench-layers", "paramiko", "psutil", "pandas", "scipy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
