"""`vbench advise`: which measured stack suits given needs."""

from __future__ import annotations

from typing import Annotated

import typer

from vbench.cli.console import say, show_table
from vbench.cli.options import Folder, Json, group, share

app = group()


@app.command()
def advise(
    folder: Folder,
    need: Annotated[
        list[str] | None, typer.Option("--need", help="A requirement, such as other-os; may be repeated.")
    ] = None,
    workload_mix: Annotated[
        str | None,
        typer.Option(
            "--workload-mix", help="Weights of your workloads, such as web=0.6,db=0.4 or os=1,disk=2."
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(parser=share, metavar="SHARE", help="Ignore differences smaller than this: 0.05 or 5%."),
    ] = 0.0,
    json: Json = False,
) -> None:
    """Say which measured stack suits your needs and workloads.

    And what would change that answer.
    """
    from vbench import load
    from vbench.advisor.advise import advise as weigh_up
    from vbench.stats.wording import cost, interval

    advice = weigh_up(load(folder), need or (), workload_mix, threshold=threshold)
    if json:
        show_table([advice.as_dict()], json=True)
        return
    for line in advice.lines:
        say(line)
    say("")
    rows = [
        row
        | {
            "cost": cost(row["ratio"]),
            "interval": interval(row["low"], row["high"]),
            "why": "; ".join(filter(None, [row["reason"], row["missing"]])),
        }
        for row in advice.records()
    ]
    columns = ["stack", "cost", "interval", "verdict", *(["why"] if any(row["why"] for row in rows) else [])]
    show_table(rows, json=False, columns=columns)
