"""Commands that measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vbench.commands.analysis import report
from vbench.commands.options import Folders, Names, Stacks, group, workloads_of
from vbench.console import CliWatcher, say, show_table, warn
from vbench.errors import UsageError

app = group()


@app.command()
def quickstart(
    blocks: Annotated[int, typer.Option(min=1, help="How many blocks.")] = 6,
    out: Annotated[Path | None, typer.Option(help="The bundle's folder.")] = None,
    testbed: Annotated[bool, typer.Option("--testbed", help="On the emulated PC: KVM and Xen, too.")] = False,
) -> None:
    """The main job: set up what is missing, measure every layer that works here, and write the report."""
    from vbench import capsule
    from vbench.doctor import examine
    from vbench.layer import layer_classes
    from vbench.plan import load_plan
    from vbench.setup import install_missing

    install_missing(say)
    built = capsule.build(say)
    known = workloads_of(None)
    if testbed:
        stacks, group = (
            [f"local/testbed/{each}" for each in ("chroot", "kvm", "xen", "xen/pv", "uml")],
            "testbed",
        )
    else:
        rows = [row for row in examine("local") if layer_classes()[row["layer"]].clock is None]
        show_table(rows, json=False, columns=("layer", "technique", "status", "detail"))
        stacks, group = ["local", *(row["stack"] for row in rows if row["available"])], "quick"
    folder = _start(
        load_plan(None, known, stacks=stacks, workloads=[group], blocks=blocks), known, built, out
    )
    report(folder)


@app.command()
def run(
    plan: Annotated[Path | None, typer.Argument(help="A plan file in TOML.")] = None,
    stack: Stacks = None,
    workload: Names = None,
    files: Folders = None,
    blocks: Annotated[int | None, typer.Option(help="How many blocks; 6 give a 95% interval.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides the order of everything.")] = None,
    out: Annotated[Path | None, typer.Option(help="The bundle's folder.")] = None,
) -> None:
    """Measure stacks against their baselines; the result is a bundle that `vbench report` reads."""
    from vbench import capsule
    from vbench.plan import load_plan

    known = workloads_of(files)
    chosen = load_plan(plan, known, stacks=stack, workloads=workload, blocks=blocks, seed=seed)
    _start(chosen, known, capsule.require(), out)


def _start(plan: Any, known: Any, built: Any, out: Path | None) -> Path:
    from vbench.run import new_run
    from vbench.store import Bundle

    info = new_run(plan, known, built)
    folder = out or Path("results") / info.id
    with Bundle.create(folder, info) as bundle:
        say(f"results go to {folder}")
        _carry_out(bundle, known, built)
    return folder


def _carry_out(bundle: Any, known: Any, built: Any) -> None:
    from vbench.run import execute

    with CliWatcher() as watcher:
        try:
            execute(bundle, known, built, watcher)
        except KeyboardInterrupt:
            warn(f"interrupted; every sample so far is kept: vbench resume {bundle.path}")
            raise
    left_out = len(bundle.info.failures)
    say(f"{bundle.journal.rows} samples" + (f", {left_out} cells or stacks left out" if left_out else ""))


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="The bundle of an interrupted run.")], files: Folders = None
) -> None:
    """Finish an interrupted run: same plan, same seed, nothing measured twice."""
    from vbench import capsule
    from vbench.store import Bundle

    known = workloads_of(files)
    with Bundle.open(folder) as bundle:
        if bundle.info.status == "complete":
            say(f"{folder} is complete already")
            return
        for name, info in bundle.info.workloads.items():
            if name not in known or known[name].digest != info.digest:
                raise UsageError(f"workload {name} has changed since {folder} was begun", "start a new run")
        _carry_out(bundle, known, capsule.require())
