"""Commands that read bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vbench.commands.options import Folder, Json, group
from vbench.console import say, show_table
from vbench.errors import UsageError, VbenchError

app = group()


@app.command()
def report(
    folder: Folder,
    output: Annotated[Path | None, typer.Option("-o", help="The HTML file.")] = None,
    json: Json = False,
) -> None:
    """Show what each layer costs, and write a self-contained report."""
    from vbench import load
    from vbench.report import render, summary_table

    loaded = load(folder)
    show_table(
        summary_table(loaded), json=json, columns=("stack", "workload", "ratio", "low", "high", "verdict")
    )
    target = output or folder / "report.html"
    try:
        target.write_text(render(loaded), encoding="utf-8")
    except OSError as error:
        raise VbenchError(
            f"cannot write {target}: {error.strerror}", "choose another file with -o"
        ) from error
    if not json:
        say(f"report: {target}")


@app.command()
def plot(
    folder: Folder,
    output: Annotated[Path, typer.Option("-o", help="A .png, .svg or .pdf file.")],
    clock: Annotated[str | None, typer.Option(help="wall or instructions.")] = None,
) -> None:
    """Draw the figure 'relative performance by technique'; wall-clock and instruction-counted stay apart."""
    from vbench import load
    from vbench.plot import save
    from vbench.report import figure

    if output.suffix not in {".png", ".svg", ".pdf"}:
        raise UsageError(f"{output}: a figure is a .png, .svg or .pdf file")
    save(figure(load(folder), clock=clock), output)
    say(f"figure: {output}")


@app.command()
def verify(folder: Folder) -> None:
    """Check a bundle: its schema, its journal's seals, and that it is complete."""
    from vbench import load

    loaded = load(folder)
    if loaded.info.status != "complete":
        raise VbenchError(f"{folder} is {loaded.info.status}", f"finish it with: vbench resume {folder}")
    say(
        f"{folder}: complete, {len(loaded.samples)} samples, capsule {loaded.info.capsule.get('digest', '')[:16]}"
    )
