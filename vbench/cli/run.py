"""`vbench run`: measure stacks against their baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vbench.cli import dry_run
from vbench.cli.console import say
from vbench.cli.execution import start
from vbench.cli.options import (
    Folders,
    Hosts,
    Names,
    Scheduler,
    Stacks,
    group,
    machines_of,
    share,
    workloads_of,
)
from vbench.errors import UsageError

app = group()


@app.command()
def run(
    plan: Annotated[
        Path | None, typer.Argument(help="Plan file (TOML), or a bundle whose plan is run again.")
    ] = None,
    stack: Stacks = None,
    workload: Names = None,
    files: Folders = None,
    blocks: Annotated[
        int | None, typer.Option(help="Number of blocks; a 95% interval takes at least 6.")
    ] = None,
    starts: Annotated[
        int | None,
        typer.Option(
            help="Blocks that begin in the same boot, where instructions are counted; by default 1."
        ),
    ] = None,
    openings: Annotated[
        int | None,
        typer.Option(help="How often environments are opened in the course of the run, by the wall clock."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random order of measurements.")] = None,
    target_width: Annotated[
        float | None,
        typer.Option(
            parser=share,
            metavar="SHARE",
            help="Add blocks until every interval's half-width is below this (wall-clock stacks); 0.02 or 2%.",
        ),
    ] = None,
    hosts: Hosts = None,
    machine: Annotated[
        str | None,
        typer.Option(help="Measure this machine without its baseline, as a session for `vbench pair`."),
    ] = None,
    scheduler: Scheduler = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle.")] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be opened and measured, and how long it takes.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print JSON instead of a table.")
    ] = False,
) -> None:
    """Measure stacks against their baselines.

    The result is a bundle, which `vbench report` reads.
    """
    from vbench.bundle.store import read_info
    from vbench.capsule import capsule
    from vbench.harness.plan import load_plan

    known = workloads_of(files)
    bundle = plan if plan is not None and plan.is_dir() else None
    chosen = load_plan(
        None if bundle else plan,
        known,
        begin=read_info(bundle).plan if bundle else None,
        stacks=[machine] if machine else stack,
        apart=True if machine else None,
        workloads=workload,
        blocks=blocks,
        seed=seed,
        target_width=target_width,
        starts=starts,
        openings=openings,
        machines=machines_of(hosts, None if bundle else plan),
    )
    if dry:
        dry_run.show(chosen, known, capsule.require(), json=json)
        return
    if json:
        raise UsageError("--json goes with --dry-run", "for figures: vbench report BUNDLE --json")
    folder = start(chosen, known, capsule.require(), out, scheduler=scheduler)
    say(f"next: vbench report {folder}")
