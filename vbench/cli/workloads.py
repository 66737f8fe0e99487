"""`vbench workloads`: what can be measured."""

from __future__ import annotations

from typing import Annotated

import typer

from vbench.cli.console import show_table
from vbench.cli.options import Folders, Json, group, workloads_of

app = group()


@app.command()
def workloads(
    name: Annotated[str | None, typer.Argument(help="Show this workload in full.")] = None,
    files: Folders = None,
    json: Json = False,
) -> None:
    """List the workloads, or show one in full.

    In full: what it measures, what it does not, and which technique it exposes.
    """
    from vbench.workload.selection import find, page, summary

    known = workloads_of(files)
    if name is not None:
        lines = page(find(known, name))
        show_table([lines] if json else [{"": key, " ": text} for key, text in lines.items()], json=json)
    else:
        show_table([summary(each) for each in known.values()], json=json)
