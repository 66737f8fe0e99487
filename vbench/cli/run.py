"""`vbench run`: measure stacks against their baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vbench.cli.console import say
from vbench.cli.execution import start
from vbench.cli.options import Folders, Names, Stacks, group, share, workloads_of

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
    seed: Annotated[int | None, typer.Option(help="Seed of the random order of measurements.")] = None,
    target_width: Annotated[
        float | None,
        typer.Option(
            parser=share,
            metavar="SHARE",
            help="Add blocks until every interval's half-width is below this (wall-clock stacks); 0.02 or 2%.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle.")] = None,
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
        stacks=stack,
        workloads=workload,
        blocks=blocks,
        seed=seed,
        target_width=target_width,
    )
    folder = start(chosen, known, capsule.require(), out)
    say(f"next: vbench report {folder}")
