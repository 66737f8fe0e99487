"""`vbench quickstart`: the main job, from set-up to report."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vbench.cli.console import say
from vbench.cli.execution import start
from vbench.cli.options import group, workloads_of
from vbench.cli.report import report
from vbench.errors import VbenchError

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
    from vbench.cli.doctor import examine, show_rows
    from vbench.cli.install import install_missing
    from vbench.harness.plan import load_plan
    from vbench.layers.base import layer_classes

    install_missing(say)
    built = capsule.build(say)
    known = workloads_of(None)
    rows = examine("local")
    show_rows(rows)
    open_here = [row for row in rows if row.available]
    stacks = []
    if only is not Where.testbed:
        stacks += ["local", *(row.stack for row in open_here if not layer_classes()[row.layer].clock)]
    if only is not Where.local and any(row.layer == "testbed" for row in open_here):
        stacks += [f"local/testbed/{each}" for each in TECHNIQUES]
    if not stacks:
        raise VbenchError("the testbed does not open here", "vbench doctor says why")
    folder = start(
        load_plan(None, known, stacks=stacks, workloads=["quick"], blocks=blocks), known, built, out
    )
    report(folder)
