"""`vbench replay`: run a bundle's plan again, and say which cells came out the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vbench.cli.compare import show_replay
from vbench.cli.console import warn
from vbench.cli.execution import start
from vbench.cli.options import Folder, Folders, Json, Names, Scheduler, Stacks, group, workloads_of

app = group()


@app.command()
def replay(
    folder: Folder,
    stack: Stacks = None,
    workload: Names = None,
    files: Folders = None,
    blocks: Annotated[
        int | None, typer.Option(help="Number of blocks; by default as many as the bundle has.")
    ] = None,
    scheduler: Scheduler = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle.")] = None,
    json: Json = False,
) -> None:
    """Run a bundle's plan again and say which cells came out the same.

    All of the plan or part of it, but only stacks that count instructions. Work sizes are taken from the
    bundle, so nothing is calibrated again.
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
            f"{folder}: no stack of this plan counts instructions, and wall-clock figures never repeat exactly",
            f"vbench run {folder} --out AGAIN, then vbench compare {folder} AGAIN",
        )
    if left := [path for path in chosen.stacks if path not in counted]:
        warn(f"left out: {', '.join(left)}; wall-clock figures never repeat exactly")
    chosen = chosen.model_copy(update={"stacks": counted})
    plan = plan.model_copy(update=chosen.model_dump(include={"stacks", "workloads", "blocks"}))
    built = capsule.require()
    if before.info.capsule.get("digest") != built.digest:
        warn(
            f"{folder} was made with capsule {before.info.capsule.get('digest')}, the one here is {built.digest}"
        )
    rows = before.samples[before.samples["clock"] == "instructions"]
    cells = rows.drop_duplicates(["stack", "workload"])[["stack", "workload", "work"]]
    sizes = {
        (stack, workload): int(work) for stack, workload, work in cells.itertuples(index=False, name=None)
    }
    again = start(plan, known, built, out, sizes, scheduler)
    raise typer.Exit(show_replay(before, load(again), json=json, markdown=False, part=True))
