"""`vbench plot`: one figure of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vbench.cli.console import say, show_table
from vbench.cli.options import Folder, Json, group
from vbench.errors import UsageError

app = group()


@app.command()
def plot(
    folder: Folder,
    figure: Annotated[str | None, typer.Argument(help="Name of the figure; --list shows them.")] = None,
    output: Annotated[Path | None, typer.Option("-o", help="Output file: .png, .svg or .pdf.")] = None,
    stack: Annotated[
        list[str] | None, typer.Option("--stack", "-s", help="Only this stack; may be repeated.")
    ] = None,
    workload: Annotated[str | None, typer.Option("--workload", "-w", help="Only this workload.")] = None,
    clock: Annotated[str | None, typer.Option(help="Only this clock: wall or instructions.")] = None,
    dpi: Annotated[
        int, typer.Option(min=50, max=1200, help="Resolution of a PNG, in pixels per inch.")
    ] = 150,
    list_them: Annotated[
        bool, typer.Option("--list", help="List the figures, and whether this bundle has the data for them.")
    ] = False,
    json: Json = False,
) -> None:
    """Draw a figure from a bundle.

    Wall-clock and instruction-counted values are never drawn together.
    """
    from vbench import load
    from vbench.figures import DEFAULT, FIGURES, available, draw
    from vbench.plot import FORMATS, save

    if list_them:
        rows = [
            {"figure": name, "shows": FIGURES[name].shows, "here": why or "yes"}
            for name, why in available(load(folder)).items()
        ]
        show_table(rows, json=json)
        return
    if output is None:
        raise UsageError(
            "no output file given", f"use -o FILE.png; figures: {', '.join(FIGURES)}, see --list"
        )
    if output.suffix.lower().lstrip(".") not in FORMATS:
        raise UsageError(f"{output}: a figure is a .png, .svg or .pdf file")
    save(draw(load(folder), figure or DEFAULT, stack=stack, workload=workload, clock=clock), output, dpi=dpi)
    say(f"figure: {output}")
