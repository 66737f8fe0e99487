"""`vbench compare`: whether anything changed between two runs."""

from __future__ import annotations

from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer

from vbench.cli.console import say, show_table
from vbench.cli.options import Folder, Json, group, share
from vbench.errors import UsageError, VbenchError

if TYPE_CHECKING:
    from vbench.stats.run import Run

app = group()


@app.command()
def compare(
    before: Folder,
    after: Folder,
    threshold: Annotated[
        float,
        typer.Option(parser=share, metavar="SHARE", help="Ignore changes smaller than this: 0.02 or 2%."),
    ] = 0.0,
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Compare values instead of ratios to the baseline.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Check only whether instruction-counted cells came out the same.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Compare even what is not comparable.")] = False,
    json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Tell whether anything changed between two runs.

    Exit code: 0 no, 1 yes, 2 error, 3 not comparable or not decidable. With --force, unlike things were
    compared, so "nothing changed" is no answer and gives 3.
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
            say(f"not comparable, compared because of --force: {each}")
        columns = ("stack", "workload", "metric", "change", "interval", "verdict", "why")
        show_table(rows(found), json=False, columns=columns)
        for line in summary(found).splitlines():
            say(line)
    decided = found.decidable and not found.obstacles
    raise typer.Exit(1 if len(found.changed) else 0 if decided else 3)


def show_replay(one: Run, two: Run, *, json: bool, markdown: bool, part: bool = False) -> int:
    """Show which instruction-counted cells came out the same; returns 1 if any did not, else 0."""
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
