"""`vbench report`: what each layer costs, as tables and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vbench.cli.console import say, show_table
from vbench.cli.options import Folder, group
from vbench.errors import UsageError, VbenchError

if TYPE_CHECKING:
    from vbench.stats.run import Run

app = group()


@app.command()
def report(
    folder: Folder,
    output: Annotated[
        Path | None, typer.Option("-o", help="Write the report to this .html or .pdf file.")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Write a PDF instead of HTML.")] = False,
    cells: Annotated[
        bool, typer.Option("--cells", help="List every cell, with all metrics, intervals and verdicts.")
    ] = False,
    added: Annotated[
        bool,
        typer.Option("--added", help="Show the time that each operation takes longer, in place of ratios."),
    ] = False,
    lang: Annotated[
        Literal["en", "fr"], typer.Option(help="Language shown first; the HTML report can switch.")
    ] = "en",
    json: Annotated[
        bool, typer.Option("--json", help="Print every cell as JSON; write a report only if -o is given.")
    ] = False,
) -> None:
    """Show what each layer costs and write a self-contained report.

    The report is in English and French.
    """
    from vbench import load
    from vbench.report import render, require_pdf, summary_table

    kind = output.suffix.lower() if output else ".pdf" if pdf else ".html"
    if kind not in (".html", ".htm", ".pdf") or (pdf and kind != ".pdf"):
        raise UsageError(
            f"{output}: a report is written as {'.pdf' if pdf else '.html or .pdf'}",
            "for the cells as data use --json, for a figure vbench plot",
        )
    pdf = kind == ".pdf"
    if pdf:
        require_pdf()
    loaded = load(folder)
    target = output or folder / f"report{kind}"
    if not target.parent.is_dir():
        raise VbenchError(
            f"cannot write {target}: the folder {target.parent} does not exist", "choose another file with -o"
        )
    rows = summary_table(loaded)
    if not rows:
        raise VbenchError(
            f"{folder} has nothing to report: {len(loaded.samples)} samples, none measured together with its baseline",
            f"finish the run: vbench resume {folder}",
        )
    if json:
        show_table(declared_too(rows, loaded), json=True)
        if output is None:
            return
    else:
        _show(loaded, rows, cells=cells, added=added)
    if output is None and target.is_symlink():
        target.unlink()  # a stranger may have made it, and it leads out of the bundle
    _write(render(loaded, lang=lang, printed=pdf), target, pdf=pdf)
    if not json:
        say(f"report: {target}")


def _write(page: str, target: Path, *, pdf: bool) -> None:
    from vbench.report import write_pdf

    try:
        if pdf:
            write_pdf(page, target)
        else:
            target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise VbenchError(
            f"cannot write {target}: {error.strerror}", "choose another file with -o"
        ) from error


MOST_STACKS = 60
"""Stacks of a run over several machines up to which a terminal shows each; of more, machines by hardware only."""


def _show(run: Run, rows: list[dict[str, Any]], *, cells: bool, added: bool) -> None:
    """Print the tables of a report, or every cell; then the sentences about them."""
    from shutil import get_terminal_size

    from vbench.report import LEVEL, machines, overview
    from vbench.stats.declared import named, systems
    from vbench.stats.machines import with_systems
    from vbench.stats.wording import added as time_added
    from vbench.stats.wording import cost, interval

    known, run = systems(run.info), with_systems(run)
    rows = [row | {name: named(row[name], known) for name in ("stack", "baseline")} for row in rows]
    width = max(overview.WIDTH, min(get_terminal_size().columns, 2 * overview.WIDTH))
    by_machine = [] if cells else [*machines.lines(run, LEVEL, width)]

    if cells:
        told = [
            row
            | {"cost": cost(row["ratio"]), "interval": interval(row["low"], row["high"])}
            | {"added": time_added(row["added_s"])}
            for row in rows
        ]
        shown = (
            "stack",
            "workload",
            "params",
            "metric",
            "clock",
            "n",
            "cost",
            "interval",
            "added",
            "verdict",
        )
        show_table(told, json=False, columns=[name for name in shown if name != "params" or _sweeps(rows)])
    elif not by_machine or len({row["stack"] for row in rows}) <= MOST_STACKS:
        for line in overview.tables(rows, width, added=added):
            say(line)
        if by_machine:
            say("")
    for line in by_machine:
        say(line)
    say("")
    for line in overview.sentences(rows, run.info.failures):
        say(line)


def declared_too(rows: list[dict[str, Any]], run: Run) -> list[dict[str, Any]]:
    """The rows; of a run whose hosts file declares machines, with what it says of the one that each stands on."""
    from vbench.stats.declared import Declared, declared, root_of

    if not (machines := declared(run.info)):
        return rows
    found = [(row, machines.get(root_of(row["stack"]), Declared())) for row in rows]
    return [row | {"system": each.system, "hardware": each.hardware} for row, each in found]


def _sweeps(rows: list[dict[str, Any]]) -> bool:
    """Whether a workload was measured with several parameters, which then tell its rows apart."""
    pairs = {(row["workload"], row["params"]) for row in rows}
    return len(pairs) > len({workload for workload, _ in pairs})
