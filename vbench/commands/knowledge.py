"""Commands that say what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from vbench.commands.options import Folders, Json, group, workloads_of
from vbench.console import show_table

app = group()


@app.command()
def doctor(
    parent: Annotated[str, typer.Argument(help="Where the layers would open.")] = "local", json: Json = False
) -> None:
    """Say of every layer whether it can open here, and if not, why and what mends it."""
    from vbench.doctor import examine

    rows = examine(parent)
    if not json:
        for row in rows:
            row["detail"] += f"\nmend: {row['mend']}" if row["mend"] else ""
    show_table(rows, json=json, columns=("layer", "technique", "status", "detail"))


@app.command()
def layers(json: Json = False) -> None:
    """List the layers that vbench knows."""
    from vbench.layer import layer_classes

    rows = [
        {"layer": name, "technique": layer.technique.value, "what it is": layer.summary}
        for name, layer in layer_classes().items()
    ]
    show_table(rows, json=json)


@app.command()
def workloads(
    name: Annotated[str | None, typer.Argument(help="Show one workload whole.")] = None,
    files: Folders = None,
    json: Json = False,
) -> None:
    """List the workloads, or say of one what it measures, what it does not, and what it exposes."""
    from vbench.selection import find, page, summary

    known = workloads_of(files)
    if name is not None:
        lines = page(find(known, name))
        show_table([lines] if json else [{"": key, " ": text} for key, text in lines.items()], json=json)
    else:
        show_table([summary(each) for each in known.values()], json=json)
