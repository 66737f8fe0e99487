"""`vbench blocks`: how many blocks a given precision takes."""

from __future__ import annotations

from typing import Annotated

import typer

from vbench.cli.console import say, show_table
from vbench.cli.options import Folder, Json, group, share
from vbench.errors import UsageError, VbenchError

app = group()


@app.command()
def blocks(
    folder: Folder,
    within: Annotated[
        float,
        typer.Option(parser=share, metavar="SHARE", help="Precision wanted for every ratio: 0.02 or 2%."),
    ] = 0.02,
    json: Json = False,
) -> None:
    """Estimate how many blocks a given precision takes.

    The run in the bundle serves as the pilot.
    """
    from vbench import load
    from vbench.stats.compare.summary import plain
    from vbench.stats.stopping import CAP, recommended_blocks

    if not 0 < within < 1:
        raise UsageError(f"--within {within:g}: it must be between 0 and 1, such as 0.02 for 2%")
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
            parts.append(f"no estimate for {len(rows) - len(known)}")
        say("; ".join(parts))
