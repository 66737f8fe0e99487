"""`vbench resume`: finish an interrupted run."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from vbench.cli.console import say
from vbench.cli.execution import carry_out, cluster, turn
from vbench.cli.options import Folders, Scheduler, group, workloads_of

app = group()


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="Bundle of the interrupted run.")],
    files: Folders = None,
    retry: Annotated[bool, typer.Option("--retry", help="Retry what failed in a complete run.")] = False,
    scheduler: Scheduler = None,
) -> None:
    """Finish an interrupted run.

    Plan and seed stay the same, and nothing is measured twice.
    """
    from vbench.bundle.store import Bundle
    from vbench.capsule import capsule
    from vbench.harness.run import plan_of
    from vbench.hosts.workspace import tidy

    with suppress(OSError):  # where nothing can be written, nothing was left
        tidy()  # a run that was killed when all was measured has nothing left to open, and so no session
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
        built = capsule.require()
        with turn(plan_of(bundle, known)), cluster(scheduler, built) as elsewhere:
            if bundle.info.status == "complete":
                bundle.reopen()
            carry_out(bundle, known, built, elsewhere=elsewhere)
    say(f"next: vbench report {folder}")
