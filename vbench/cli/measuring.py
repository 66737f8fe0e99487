"""Commands that measure."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vbench.cli import dry_run
from vbench.cli.analysis import report, show_replay
from vbench.cli.console import CliWatcher, say, show_table, warn
from vbench.cli.options import Folder, Folders, Json, Names, Stacks, group, share, workloads_of
from vbench.errors import UsageError, VbenchError

app = group()

TECHNIQUES = ("uml", "chroot", "xen/pv", "kvm", "xen")
"""What quickstart compares on the testbed; what takes longest comes first, as they run side by side."""


class Where(StrEnum):
    """What quickstart can be confined to."""

    local = "local"
    testbed = "testbed"


@app.command()
def quickstart(
    blocks: Annotated[int, typer.Option(min=1, help="How many blocks.")] = 6,
    out: Annotated[Path | None, typer.Option(help="The bundle's folder.")] = None,
    only: Annotated[
        Where | None, typer.Option(help="This machine's own layers, or those on the emulated PC.")
    ] = None,
) -> None:
    """The main job: set up what is missing, compare the techniques, and write the report.

    All techniques on the emulated PC, where instructions are counted, and beside them by the wall clock those
    that this machine has.
    """
    from vbench.capsule import capsule
    from vbench.cli.doctor import examine
    from vbench.cli.install import install_missing
    from vbench.harness.plan import load_plan
    from vbench.layers.base import layer_classes

    install_missing(say)
    built = capsule.build(say)
    known = workloads_of(None)
    rows = examine("local")
    show_table(rows, json=False, columns=("layer", "technique", "status", "detail"))
    open_here = [row for row in rows if row["available"]]
    stacks = []
    if only is not Where.testbed:
        stacks += ["local", *(row["stack"] for row in open_here if not layer_classes()[row["layer"]].clock)]
    if only is not Where.local and any(row["layer"] == "testbed" for row in open_here):
        stacks += [f"local/testbed/{each}" for each in TECHNIQUES]
    if not stacks:
        raise VbenchError("the testbed does not open here", "vbench doctor says why")
    folder = _start(
        load_plan(None, known, stacks=stacks, workloads=["quick"], blocks=blocks), known, built, out
    )
    report(folder)


@app.command()
def run(
    plan: Annotated[
        Path | None, typer.Argument(help="A plan file in TOML, or a bundle whose plan is carried out anew.")
    ] = None,
    stack: Stacks = None,
    workload: Names = None,
    files: Folders = None,
    blocks: Annotated[int | None, typer.Option(help="How many blocks; 6 give a 95% interval.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides the order of everything.")] = None,
    target_width: Annotated[
        float | None,
        typer.Option(
            parser=share,
            metavar="SHARE",
            help="Add blocks until every interval's half-width is below this (wall-clock stacks); 0.02 or 2%.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The bundle's folder.")] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be opened and measured, and how long it takes.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print JSON instead of a table.")
    ] = False,
) -> None:
    """Measure stacks against their baselines; the result is a bundle that `vbench report` reads."""
    from vbench.bundle.store import read_info
    from vbench.capsule import capsule
    from vbench.harness.plan import load_plan

    known = workloads_of(files)
    bundle = plan if plan is not None and plan.is_dir() else None
    chosen = load_plan(
        None if bundle else plan,
        known,
        begin=read_info(bundle).plan if bundle else None,
        stacks=stack,
        workloads=workload,
        blocks=blocks,
        seed=seed,
        target_width=target_width,
    )
    if dry:
        dry_run.show(chosen, known, capsule.require(), json=json)
        return
    if json:
        raise UsageError("--json goes with --dry-run", "vbench report BUNDLE --json gives figures")
    folder = _start(chosen, known, capsule.require(), out)
    say(f"next: vbench report {folder}")


def _start(plan: Any, known: Any, built: Any, out: Path | None, sizes: Any = None) -> Path:
    from vbench.bundle.store import Bundle
    from vbench.harness.run import new_run

    info = new_run(plan, known, built)
    folder = out or Path("results") / info.id
    with _turn(plan), Bundle.create(folder, info) as bundle:
        say(f"results go to {folder}")
        _carry_out(bundle, known, built, sizes)
    return folder


def _turn(plan: Any) -> Any:
    """This machine for a run by the wall clock alone; those that count instructions share it."""
    from vbench.harness.plan import with_baselines
    from vbench.hosts.workspace import measuring

    return measuring(alone=any(stack.clock() == "wall" for stack in with_baselines(plan.stacks)))


def _carry_out(bundle: Any, known: Any, built: Any, sizes: Any = None) -> None:
    from vbench.harness.run import execute

    with CliWatcher() as watcher:
        try:
            execute(bundle, known, built, watcher, sizes)
        except KeyboardInterrupt:
            warn(f"interrupted; every sample so far is kept: vbench resume {bundle.path}")
            raise
    left_out = len(bundle.info.failures)
    say(f"{bundle.journal.rows} samples" + (f", {left_out} cells or stacks left out" if left_out else ""))


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="The bundle of an interrupted run.")],
    files: Folders = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try anew what failed in a complete run.")] = False,
) -> None:
    """Finish an interrupted run: same plan, same seed, nothing measured twice."""
    from vbench.bundle.store import Bundle
    from vbench.capsule import capsule
    from vbench.harness.run import plan_of

    known = workloads_of(files)
    with Bundle.open(folder) as bundle:
        if bundle.info.status == "complete":
            failures = [failure for failure in bundle.info.failures if not failure.planned]
            if not (retry and failures):
                more = (
                    f"; {len(failures)} stacks or cells were left out, --retry tries them" if failures else ""
                )
                say(f"{folder} is complete already{more}")
                return
        with _turn(plan_of(bundle, known)):
            if bundle.info.status == "complete":
                bundle.reopen()
            _carry_out(bundle, known, capsule.require())
    say(f"next: vbench report {folder}")


@app.command()
def replay(
    folder: Folder,
    stack: Stacks = None,
    workload: Names = None,
    files: Folders = None,
    blocks: Annotated[int | None, typer.Option(help="Fewer blocks than the bundle has.")] = None,
    out: Annotated[Path | None, typer.Option(help="The new bundle's folder.")] = None,
    json: Json = False,
) -> None:
    """Run a bundle's plan again, whole or in part, and say which instruction-counted cells came out the same.

    Work sizes are those of the bundle, so nothing is calibrated anew.
    """
    from vbench import load
    from vbench.capsule import capsule
    from vbench.errors import NotComparable
    from vbench.harness.plan import load_plan
    from vbench.harness.run import plan_of
    from vbench.layers.stack import Stack

    known, before = workloads_of(files), load(folder)
    plan = plan_of(before, known, workload)
    chosen = load_plan(
        None,
        known,
        stacks=stack or plan.stacks,
        workloads=workload or plan.workloads,
        blocks=blocks or plan.blocks,
    )
    counted = [path for path in chosen.stacks if Stack.parse(path).clock() == "instructions"]
    if not counted:
        raise NotComparable(
            f"{folder}: no stack of this plan counts instructions, and by the wall clock nothing repeats exactly",
            f"vbench run {folder} --out AGAIN, then vbench compare {folder} AGAIN",
        )
    if left := [path for path in chosen.stacks if path not in counted]:
        warn(f"{', '.join(left)}: left out, as by the wall clock nothing repeats exactly")
    chosen = chosen.model_copy(update={"stacks": counted})
    plan = plan.model_copy(update=chosen.model_dump(include={"stacks", "workloads", "blocks"}))
    built = capsule.require()
    if before.info.capsule.get("digest") != built.digest:
        warn(f"{folder} was made with capsule {before.info.capsule.get('digest')}, here is {built.digest}")
    rows = before.samples[before.samples["clock"] == "instructions"]
    sizes = rows.groupby(["stack", "workload"])["work"].first().to_dict()
    again = _start(plan, known, built, out, sizes)
    raise typer.Exit(show_replay(before, load(again), json=json, markdown=False, part=True))
