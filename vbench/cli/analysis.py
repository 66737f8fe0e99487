"""Commands that read bundles."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vbench.cli.console import say, show_table
from vbench.cli.options import Folder, Json, group, share
from vbench.errors import UsageError, VbenchError

app = group()


@app.command()
def report(
    folder: Folder,
    output: Annotated[Path | None, typer.Option("-o", help="The .html or .pdf file to write.")] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Write a PDF in place of HTML.")] = False,
    cells: Annotated[
        bool, typer.Option("--cells", help="List every cell: all metrics, intervals and verdicts.")
    ] = False,
    lang: Annotated[
        Literal["en", "fr"], typer.Option(help="Language shown first in the report; the HTML can switch.")
    ] = "en",
    json: Annotated[
        bool, typer.Option("--json", help="Print every cell as JSON; write no report unless -o is given.")
    ] = False,
) -> None:
    """Show what each layer costs, and write a self-contained report, in English and French."""
    from vbench import load
    from vbench.report import render, require_pdf, summary_table

    kind = output.suffix.lower() if output else ".pdf" if pdf else ".html"
    if kind not in (".html", ".htm", ".pdf") or (pdf and kind != ".pdf"):
        raise UsageError(
            f"{output}: a report is written as {'.pdf' if pdf else '.html or .pdf'}",
            "cells as data: --json; a figure: vbench plot",
        )
    pdf = kind == ".pdf"
    if pdf:
        require_pdf()
    loaded = load(folder)
    target = output or folder / f"report{kind}"
    if not target.parent.is_dir():
        raise VbenchError(
            f"cannot write {target}: there is no folder {target.parent}", "choose another file with -o"
        )
    rows = summary_table(loaded)
    if not rows:
        raise VbenchError(
            f"{folder} has nothing to report: {len(loaded.samples)} samples, none beside its baseline",
            f"finish the run: vbench resume {folder}",
        )
    if json:
        show_table(rows, json=True)
        if output is None:
            return
    else:
        _show(rows, loaded.info.failures, cells=cells)
    if output is None and target.is_symlink():
        target.unlink()  # it may be a stranger's, and leads out of the bundle
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


def _show(rows: list[dict[str, Any]], failures: Any, *, cells: bool) -> None:
    """The tables of a report, or every cell; then the sentences on them."""
    from shutil import get_terminal_size

    from vbench.report import overview
    from vbench.stats.wording import cost, interval

    if cells:
        known = [
            row | {"cost": cost(row["ratio"]), "interval": interval(row["low"], row["high"])} for row in rows
        ]
        shown = ("stack", "workload", "params", "metric", "clock", "n", "cost", "interval", "verdict")
        show_table(known, json=False, columns=[name for name in shown if name != "params" or _sweeps(rows)])
    else:
        width = max(overview.WIDTH, min(get_terminal_size().columns, 2 * overview.WIDTH))
        for line in overview.tables(rows, width):
            say(line)
    say("")
    for line in overview.sentences(rows, failures):
        say(line)


def _sweeps(rows: list[dict[str, Any]]) -> bool:
    """Whether a workload was measured with several parameters, which then tell its rows apart."""
    pairs = {(row["workload"], row["params"]) for row in rows}
    return len(pairs) > len({workload for workload, _ in pairs})


@app.command()
def plot(
    folder: Folder,
    figure: Annotated[str | None, typer.Argument(help="Which figure; --list names them.")] = None,
    output: Annotated[Path | None, typer.Option("-o", help="A .png, .svg or .pdf file.")] = None,
    stack: Annotated[
        list[str] | None, typer.Option("--stack", "-s", help="Of this stack only; may be repeated.")
    ] = None,
    workload: Annotated[str | None, typer.Option("--workload", "-w", help="Of this workload only.")] = None,
    clock: Annotated[str | None, typer.Option(help="wall or instructions.")] = None,
    dpi: Annotated[int, typer.Option(min=50, max=1200, help="Pixels an inch, of a PNG.")] = 150,
    list_them: Annotated[
        bool, typer.Option("--list", help="List the figures, and whether this bundle carries them.")
    ] = False,
    json: Json = False,
) -> None:
    """Draw a figure from a bundle; wall-clock and instruction-counted figures stay apart."""
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
        raise UsageError("where to? name a file: -o FILE.png", f"figures: {', '.join(FIGURES)}; see --list")
    if output.suffix.lower().lstrip(".") not in FORMATS:
        raise UsageError(f"{output}: a figure is a .png, .svg or .pdf file")
    save(draw(load(folder), figure or DEFAULT, stack=stack, workload=workload, clock=clock), output, dpi=dpi)
    say(f"figure: {output}")


@app.command()
def verify(folder: Folder, json: Json = False) -> None:
    """Check that a bundle is whole: schema, seals, digests, completeness, Parquet; name every problem."""
    from vbench.bundle.store import RUN, read_info
    from vbench.bundle.verify import examine

    if not (folder / RUN).exists():
        read_info(folder)  # raises: it is no bundle at all
    problems = examine(folder)
    if json:
        show_table(
            [{"file": each.file, "line": each.line, "problem": each.text} for each in problems], json=True
        )
    else:
        for problem in problems:
            say(f"{folder}/{problem}")
    if problems:
        raise VbenchError(f"{folder} is not whole: {len(problems)} problems")
    if not json:
        info = read_info(folder)
        rows = info.journal.rows if info.journal else 0
        say(f"{folder}: complete, {rows} samples, capsule {str(info.capsule.get('digest', ''))[:16]}")


@app.command()
def compare(
    before: Folder,
    after: Folder,
    threshold: Annotated[
        float, typer.Option(parser=share, metavar="SHARE", help="Ignore smaller changes: 0.02 or 2%.")
    ] = 0.0,
    absolute: Annotated[bool, typer.Option("--absolute", help="Values, not ratios to the baseline.")] = False,
    replay: Annotated[bool, typer.Option("--replay", help="Are counted instructions the same?")] = False,
    force: Annotated[bool, typer.Option("--force", help="Compare what is not comparable.")] = False,
    json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Did anything change between two runs: exit code 0 no, 1 yes, 2 trouble, 3 not comparable or decidable.

    Under --force, "nothing changed" is no answer, as unlike things were compared: exit code 3.
    """
    from vbench import load
    from vbench.stats.compare.bundles import compare as compared
    from vbench.stats.compare.summary import as_json, rows, summary
    from vbench.stats.compare.summary import markdown as page

    if json and markdown:
        raise UsageError("--json or --markdown, not both")
    try:
        one, two = load(before), load(after)
        if replay:
            raise typer.Exit(show_replay(one, two, json=json, markdown=markdown))
        found = compared(one, two, threshold=threshold, absolute=absolute, force=force)
    except VbenchError as error:
        error.exit_code = max(error.exit_code, 2)  # 1 says that something changed
        raise
    if json or markdown:
        typer.echo(dumps(as_json(found), indent=1, allow_nan=False) if json else page(found))
    else:
        for each in found.obstacles:
            say(f"not comparable, compared by force: {each}")
        columns = ("stack", "workload", "metric", "change", "interval", "verdict", "why")
        show_table(rows(found), json=False, columns=columns)
        for line in summary(found).splitlines():
            say(line)
    decided = found.decidable and not found.obstacles
    raise typer.Exit(1 if len(found.changed) else 0 if decided else 3)


@app.command()
def blocks(
    folder: Folder,
    within: Annotated[
        float,
        typer.Option(
            parser=share, metavar="SHARE", help="How precisely each ratio is to be known: 0.02 or 2%."
        ),
    ] = 0.02,
    json: Json = False,
) -> None:
    """How many blocks would make every ratio known so precisely, judged by this run as a pilot."""
    from vbench import load
    from vbench.stats.compare.summary import plain
    from vbench.stats.stopping import CAP, recommended_blocks

    if not 0 < within < 1:
        raise UsageError(f"--within {within:g}: a share between 0 and 1, such as 0.02 for 2%")
    cells = recommended_blocks(load(folder).samples, within)
    if not len(cells):
        raise VbenchError(f"{folder}: no stack was measured in the same block as its baseline")
    rows = []
    for row in plain(cells):
        why = "" if row["blocks"] else "a pilot needs two blocks" if row["n"] < 2 else f"more than {CAP}"
        rows.append(row | {"blocks": row["blocks"] and int(row["blocks"]), "why": why})
    rows.sort(key=lambda row: -(row["blocks"] or CAP + 1))
    show_table(rows, json=json, columns=("stack", "workload", "metric", "n", "width", "blocks", "why"))
    if not json:
        known = [row["blocks"] for row in rows if row["blocks"]]
        parts = []
        if known:
            parts.append(f"{max(known)} blocks: {len(known)} of {len(rows)} ratios within {within:.2%}")
        if len(known) < len(rows):
            parts.append(f"no number can be given for {len(rows) - len(known)}")
        say("; ".join(parts))


def show_replay(one: Any, two: Any, *, json: bool, markdown: bool, part: bool = False) -> int:
    """Show which instruction-counted cells came out the same; 1 where any did not."""
    from vbench.stats.compare.replay import replayed
    from vbench.stats.compare.summary import plain, share, table

    cells = replayed(one, two, part=part)
    shown = [
        {name: row[name] for name in ("stack", "workload", "metric")}
        | {
            name: share(None if row[name] is None else 1 + row[name], 4)
            for name in ("base_change", "ratio_change")
        }
        | {
            "tolerance": f"{row['tolerance']:.1%}",
            "same": "same" if row["same"] else "not the same",
            "why": row["why"],
        }
        for row in plain(cells)
    ]
    if markdown:
        typer.echo("\n".join(table(shown)))
    else:
        show_table(plain(cells) if json else shown, json=json)
    if not json and not markdown:
        say(f"{int(cells['same'].sum())} of {len(cells)} cells came out the same")
    return 0 if cells["same"].all() else 1
