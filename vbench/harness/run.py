"""Running a plan: its stacks in lanes, each measured in randomized complete blocks."""

from __future__ import annotations

import os
import platform
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vbench.bundle.journal import read_table
from vbench.bundle.store import JOURNAL, Bundle, Note, RunInfo, WorkloadInfo
from vbench.capsule.capsule import Capsule
from vbench.errors import BundleError, UsageError, VbenchError
from vbench.harness.plan import Plan, schedule, with_baselines
from vbench.harness.recorder import Recorder, Watcher
from vbench.harness.worker import Lane, carry_out, lanes_of
from vbench.hosts.local import LocalHost
from vbench.hosts.process import kill_all
from vbench.layers.stack import Stack, cpus_for
from vbench.observe import facts, noise
from vbench.workload.library import Library
from vbench.workload.model import Workload
from vbench.workload.selection import select

if TYPE_CHECKING:
    from vbench.stats.run import Run


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
            "mended": capsule.manifest.mended,
            "kernel": capsule.manifest.kernel,
        },
        workloads={
            name: WorkloadInfo(
                digest=workloads[name].digest,
                kind=workloads[name].kind,
                title=workloads[name].title,
                primary=workloads[name].primary.name,
                talks_to_peer=workloads[name].talks_to_peer,
                resolutions={m.name: m.resolution for m in workloads[name].metrics if m.resolution},
            )
            for name in plan.workloads
        },
        techniques={stack.path: stack.technique() for stack in stacks},
        versions=_versions(),
        tools={each["name"]: each["version"] for each in capsule.manifest.packages},
    )


def plan_of(bundle: Bundle | Run, workloads: Library, only: Sequence[str] | None = None) -> Plan:
    """The plan that a bundle was begun with; ``only``: the workloads or groups of it that are of interest.

    Raises ``BundleError`` when it is none, or when one of these workloads is not here as it was then.
    """
    try:
        plan = Plan.model_validate(bundle.info.plan)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{bundle.path}: its plan cannot be carried out: {where}: {first['msg']}") from None
    wanted = {one.name for text in only or () for one in select(workloads, text)}
    for name in plan.workloads if only is None else [name for name in plan.workloads if name in wanted]:
        begun = bundle.info.workloads.get(name)
        try:
            same = begun is not None and workloads[name].digest == begun.digest
        except (KeyError, UsageError):
            same = False
        if not same:
            raise BundleError(
                f"{bundle.path}: workload {name!r:.80} is not here as it was when the run was begun",
                "give its folder with --workloads, or start a new run",
            )
    return plan


def execute(
    bundle: Bundle,
    workloads: Library,
    capsule: Capsule,
    watch: Watcher,
    sizes: Mapping[tuple[str, str], int] | None = None,
) -> None:
    """Carry out the plan of a bundle, or what is left of it; every sample is in the journal when it returns.

    ``sizes`` are work sizes by stack and workload that an earlier run settled, and that this one repeats.

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
    plan = plan_of(bundle, workloads)
    todo = {name: workloads[name] for name in plan.workloads}
    stacks = with_baselines(plan.stacks)
    bases = {base.path for stack in stacks if (base := stack.baseline()) is not None}
    planned = {stack.path for stack in stacks}
    left_out = {cell: why for cell, why in plan.left_out.items() if cell[0] in planned and cell[1] in todo}
    steps = [
        step
        for step in schedule(plan, list(todo), [stack.path for stack in stacks], bases)
        if (step.stack, step.workload) not in left_out
    ]
    info.status = "running"
    by_wall_clock = [stack.path for stack in stacks if stack.clock() == "wall"]
    if by_wall_clock:  # counted instructions do not depend on what else runs here
        info.notes += [
            Note(severity=severity, stacks=by_wall_clock, text=text) for severity, text in noise.before()
        ]
    bundle.save()
    recorder = Recorder(bundle, watch, len(steps))
    recorder.given = sizes or {}
    for (path, name), reason in left_out.items():
        recorder.failure(Stack.parse(path), name, "plan", VbenchError(reason))
    lanes = lanes_of(stacks)
    recorder.left = {lane.name: None for lane in lanes}
    recorder.enough = _until_precise(plan, bundle.path)
    stop = threading.Event()

    def measure(lane: Lane) -> int:
        mine = {stack.path for stack in lane.stacks}
        most = plan.most_blocks if lane.clock == "wall" else plan.blocks  # what repeats gains nothing by more
        own = [step for step in steps if step.stack in mine and step.block < most]
        return carry_out(lane, own, todo, capsule, plan.shape(), recorder, stop)

    try:
        _in_lanes(lanes, measure, recorder, stop)
    except BaseException:
        info.status = "interrupted"
        bundle.save()
        raise
    bundle.finish()


def _until_precise(plan: Plan, folder: Path) -> Callable[[int], bool]:
    """Whether the run may end before a block, because all cells that are still measured are known well enough.

    Asked anew by a resumed run, of the same samples, it answers the same.
    """
    known: dict[int, bool] = {}

    def enough(block: int) -> bool:
        if plan.target_width is None or block < plan.blocks:
            return False
        if block not in known:
            from vbench.stats.stopping import narrow_enough  # noqa: PLC0415  (pandas, only where it is needed)

            journal = folder / JOURNAL
            samples = read_table(journal, journal.stat().st_size).to_pandas()
            samples = samples[samples["side"] == "workload"]
            samples = samples[(samples["clock"] == "wall") & (samples["block"] < block)]
            last = samples.loc[samples["block"] == block - 1, ["stack", "workload"]].drop_duplicates()
            known[block] = narrow_enough(samples.merge(last), plan.target_width)
        return known[block]

    return enough


def _in_lanes(
    lanes: list[Lane], measure: Callable[[Lane], int], recorder: Recorder, stop: threading.Event
) -> None:
    """Measure the wall clock's lane alone and undisturbed, then the others side by side.

    Raises ``VbenchError`` when no stack of any lane could be opened.
    """
    opened = sum(measure(lane) for lane in lanes if lane.clock == "wall")
    # The deepest first: they take longest, and the last lane runs alone.
    side_by_side = sorted(
        (lane for lane in lanes if lane.clock != "wall"), key=lambda lane: -lane.stacks[0].depth
    )
    recorder.at_once = max(1, min(len(side_by_side), len(os.sched_getaffinity(0))))
    with ThreadPoolExecutor(recorder.at_once, thread_name_prefix="lane") as pool:
        futures = [pool.submit(measure, lane) for lane in side_by_side]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            # The lanes' own with blocks clean up; ending their machines brings them there at once.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            kill_all()
            raise
    if opened + sum(future.result() for future in futures) == 0:
        raise VbenchError("no stack of the plan could be opened", "vbench doctor says what is missing")


def _versions() -> dict[str, str]:
    checkout = Path(__file__).parents[2]
    found = {"python": platform.python_version(), "commit": facts.harness(LocalHost(), checkout)}
    for name in ("vbench-layers", "paramiko", "psutil", "pandas", "scipy", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
