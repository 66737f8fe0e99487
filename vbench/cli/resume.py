"""`vbench resume`: finish an interrupted run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vbench.cli.console import say
from vbench.cli.execution import carry_out, turn
from vbench.cli.options import Folders, group, workloads_of

app = group()


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="Bundle of the interrupted run.")],
    files: Folders = None,
    retry: Annotated[bool, typer.Option("--retry", help="Retry what failed in a complete run.")] = False,
) -> None:
    """Finish an interrupted run.

    Plan and seed stay the same, and nothing is measured twice.
    """
    from vbench.bundle.store import Bundle
    from vbench.capsule import capsule
    from vbench.harness.run import plan_of

    known = workloads_of(files)
    with Bundle.open(folder) as bundle:
        if bundle.info.status == "complete":
            failures = [failure for failure in bundle.info.failures if not failure.planned]
            if not (retry and failures):
                more = (
                    f"; {len(failures)} stacks or cells were left out, --retry tries them again"
                    if failures
                    else ""
                )
                say(f"{folder} is already complete{more}")
                return
        with turn(plan_of(bundle, known)):
            if bundle.info.status == "complete":
                bundle.reopen()
            carry_out(bundle, known, capsule.require())
    say(f"next: vbench report {folder}")
