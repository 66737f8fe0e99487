"""`vbench quickstart`: everything from set-up to report."""

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


STARTS = 3
"""Blocks that begin in the same boot of the testbed: booting takes longer than all that is measured in it."""
TECHNIQUES = ("uml", "chroot", "xen/pv", "kvm", "xen")
"""What quickstart compares on the testbed, side by side; the slowest come first."""


class Where(StrEnum):
    """What quickstart can be limited to."""

    local = "local"
    testbed = "testbed"


@app.command()
def quickstart(
    blocks: Annotated[int, typer.Option(min=1, help="Number of blocks.")] = 6,
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle.")] = None,
    only: Annotated[
        Where | None, typer.Option(help="Only the layers of this machine, or only those on the emulated PC.")
    ] = None,
) -> None:
    """Set up what is missing, compare the techniques, write the report.

    The techniques are compared on the emulated PC, which counts instructions; those that work on this machine
    itself are also compared by the wall clock.
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
        # What needs an add-on has been built by somebody for something else.
        own = {name for name, layer in layer_classes().items() if not layer.clock and layer.needs is None}
        stacks += ["local", *(row.stack for row in open_here if row.layer in own)]
    if only is not Where.local and any(row.layer == "testbed" for row in open_here):
        stacks += [f"local/testbed/{each}" for each in TECHNIQUES]
    if not stacks:
        raise VbenchError("the testbed does not work here", "vbench doctor says why")
    folder = start(
        load_plan(None, known, stacks=stacks, workloads=["quick"], blocks=blocks, starts=STARTS),
        known,
        built,
        out,
    )
    report(folder)
