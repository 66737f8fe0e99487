"""Running a plan: its stacks are split into units, each measured in randomized complete blocks."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vbench.bundle.journal import read_table
from vbench.bundle.store import JOURNAL, Bundle, Note, RunInfo, WorkloadInfo
from vbench.capsule.capsule import Capsule
from vbench.errors import BundleError, UsageError, first_problem
from vbench.harness.dispatch import Dispatcher, Place, left_out
from vbench.harness.events import Failed, Noted
from vbench.harness.places import here
from vbench.harness.plan import Plan, baseline_of, baselines_of, order_of
from vbench.harness.progress import Progress, SoFar, read_so_far
from vbench.harness.recorder import Recorder
from vbench.harness.units import Size, WorkUnit, units_of
from vbench.hosts.declared import LOCAL
from vbench.hosts.local import LocalHost
from vbench.layers.roots import cpus_for
from vbench.layers.stack import add_ons_of, pictures_of
from vbench.observe import facts, fairness
from vbench.workload.library import Library
from vbench.workload.model import Workload
from vbench.workload.selection import select

if TYPE_CHECKING:
    from vbench.stats.run import Run


def new_run(plan: Plan, workloads: Mapping[str, Workload], capsule: Capsule) -> RunInfo:
    """The record of a run that is about to start. Raises ``UsageError`` if this machine cannot provide the shape."""
    now = datetime.now(UTC)
    stacks = plan.all_stacks()
    if any(stack.root == LOCAL for stack in stacks):
        cpus_for(plan.shape())
    given = {each.name: each.technique for each in plan.machines}
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
            **add_ons_of(stacks),
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
        techniques={stack.path: given.get(stack.path) or stack.technique() for stack in stacks},
        pictures=pictures_of(stacks),
        versions=versions(),
        tools={each["name"]: each["version"] for each in capsule.manifest.packages},
    )


def plan_of(bundle: Bundle | Run, workloads: Library, only: Sequence[str] | None = None) -> Plan:
    """The plan that a bundle was begun with; ``only`` names the workloads or groups of interest.

    Raises ``BundleError`` if the plan is invalid, or if one of these workloads has changed since or is not here.
    """
    try:
        plan = Plan.model_validate({"openings": 1, **bundle.info.plan})
    except ValidationError as error:
        raise BundleError(f"{bundle.path}: its plan cannot be carried out: {first_problem(error)}") from None
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


def units_for(
    info: RunInfo,
    plan: Plan,
    workloads: Library,
    *,
    sizes: Mapping[tuple[str, str], int] | None = None,
    so_far: SoFar | None = None,
    results: Path | None = None,
) -> list[WorkUnit]:
    """What is left of a run's plan, as units; without ``so_far``, the whole plan.

    ``sizes`` are work sizes, by stack and workload, that an earlier run settled and this one repeats; ``results`` is
    the folder that results go to.
    """
    so_far = so_far or SoFar()
    todo = {name: workloads[name] for name in plan.workloads}
    stacks = plan.all_stacks()
    declared = {} if plan.apart else baselines_of(plan.machines)
    bases = {base.path for stack in stacks if (base := baseline_of(stack, declared)) is not None}
    # Where instructions are counted, figures repeat, so more blocks gain nothing.
    most = {stack.path: plan.most_blocks if stack.clock() == "wall" else plan.blocks for stack in stacks}
    given_up = {*plan.left_out, *((each.stack, each.workload) for each in info.failures)}
    steps = [
        step
        for step in order_of(plan, list(todo), stacks, bases)
        if (step.stack, step.workload) not in given_up
        and step.block < most[step.stack]
        and not so_far.has(step)
    ]
    known = {cell: (work, False) for cell, work in (sizes or {}).items()}
    known |= {cell: (work, True) for cell, work in so_far.sizes.items()}
    return units_of(
        stacks,
        steps,
        todo,
        [Size(stack=s, workload=w, work=work, recorded=done) for (s, w), (work, done) in known.items()],
        shape=plan.shape(),
        capsule=str(info.capsule.get("digest")),
        starts=plan.starts,
        blocks=plan.blocks,
        openings=plan.openings,
        machines=plan.machines,
        apart=plan.apart,
        results=None if results is None else str(results),
        needed=most.keys() - info.hosts.keys(),
    )


def execute(
    bundle: Bundle,
    workloads: Library,
    capsule: Capsule,
    progress: Progress,
    sizes: Mapping[tuple[str, str], int] | None = None,
    place: Place | None = None,
    *,
    lanes: int | None = None,
    end: Callable[[], None] | None = None,
) -> None:
    """Carry out a bundle's plan, or what is left of it; when this returns, every sample is in the journal.

    ``sizes``: see :func:`units_for`. ``place`` is where units are carried out, by default in this process;
    ``lanes`` and ``end`` go with it: see :class:`vbench.harness.dispatch.Dispatcher`. If a stack fails, that is noted
    and the rest goes on. Raises ``DigestMismatch`` before anything is measured with the wrong bytes, ``BundleError`` if
    results cannot be written, and ``VbenchError`` if no stack opens at all.
    """
    info = bundle.info
    if info.capsule.get("digest") != capsule.digest:
        raise BundleError(
            f"{bundle.path} was begun with capsule {info.capsule.get('digest')}, here is {capsule.digest}",
            "import the capsule that it was begun with",
        )
    plan, so_far = plan_of(bundle, workloads), read_so_far(bundle)
    units = units_for(info, plan, workloads, sizes=sizes, so_far=so_far, results=bundle.path)
    info.status = "running"
    bundle.save()
    recorder = Recorder(bundle)
    gaps: dict[tuple[str, str], list[str]] = {}
    for failed in planned_gaps(plan):
        recorder.take(failed)
        gaps.setdefault((failed.stack, failed.reason), []).append(str(failed.workload))
    for (path, reason), names in gaps.items():
        progress.say(left_out(path, names, reason))
    treatment = Treatment(plan)
    dispatcher = Dispatcher(
        recorder,
        progress,
        place or here(capsule),
        lanes=lanes,
        end=end,
        done=len(so_far.measured),
        enough=until_precise(plan, bundle),
        found=lambda opened: treatment.unlike(info, opened.stack),
    )
    try:
        dispatcher.carry_out(units)
    except BaseException:
        info.status = "interrupted"
        bundle.save()
        raise
    bundle.finish()


def planned_gaps(plan: Plan) -> Iterator[Failed]:
    """The cells that the plan leaves out on purpose, as failures."""
    planned = {stack.path for stack in plan.all_stacks()}
    for (path, name), reason in plan.left_out.items():
        if path in planned and name in plan.workloads:
            yield Failed(stack=path, workload=name, stage="plan", reason=reason)


class Treatment:
    """Differences in treatment between the stacks of a plan and their baselines, as stacks open; from any thread."""

    def __init__(self, plan: Plan) -> None:
        declared = baselines_of(plan.machines)
        self._pairs: dict[str, list[tuple[str, str]]] = {}
        for stack in plan.all_stacks():
            if (base := baseline_of(stack, declared)) is not None:
                for path in (stack.path, base.path):
                    self._pairs.setdefault(path, []).append((stack.path, base.path))

    def unlike(self, info: RunInfo, stack: str) -> Iterator[Noted]:
        """Those that a stack just opened takes part in, with the workloads that they affect."""
        for path, base in self._pairs.get(stack, ()):
            if path not in info.hosts or base not in info.hosts:
                continue
            for found in fairness.unequal({path: info.hosts[path], base: info.hosts[base]}, base):
                touched = [name for name, each in info.workloads.items() if each.kind in found.kinds]
                if touched or not found.kinds:
                    note = Note(
                        severity=found.severity, stacks=[found.stack], workloads=touched, text=found.text
                    )
                    yield Noted(notes=(note,))


def until_precise(plan: Plan, bundle: Bundle) -> Callable[[int], bool]:
    """A function that says whether the run may stop before a block: all cells still measured are precise enough.

    A resumed run that asks again about the same samples gets the same answer.
    """
    known: dict[int, bool] = {}

    def enough(block: int) -> bool:
        if plan.target_width is None or block < plan.blocks:
            return False
        if block not in known:
            # pandas, only where it is needed
            from vbench.stats.run import boots  # noqa: PLC0415
            from vbench.stats.stopping import narrow_enough  # noqa: PLC0415

            journal = bundle.path / JOURNAL
            samples = read_table(journal, journal.stat().st_size).to_pandas()
            samples = samples[samples["side"] == "workload"]
            samples = samples[(samples["clock"] == "wall") & (samples["block"] < block)]
            samples["boot"] = boots(samples, bundle.info)
            last = samples.loc[samples["block"] == block - 1, ["stack", "workload"]].drop_duplicates()
            known[block] = narrow_enough(samples.merge(last), plan.target_width)
        return known[block]

    return enough


def versions() -> dict[str, str]:
    """What measures here: the commit of vbench, Python, and the libraries that matter."""
    checkout = Path(__file__).parents[2]
    found = {"python": platform.python_version(), "commit": facts.harness(LocalHost(), checkout)}
    for name in ("vbench-layers", "paramiko", "psutil", "pandas", "scipy", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
