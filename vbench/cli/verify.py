"""`vbench verify`: whether a bundle is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vbench.cli.console import say, show_table
from vbench.cli.options import Folder, Folders, Json, group, workloads_of
from vbench.errors import VbenchError

app = group()


@app.command()
def verify(
    folder: Folder,
    spot: Annotated[
        int, typer.Option(metavar="N", min=0, help="Also derive N random cells anew, on the testbed.")
    ] = 0,
    files: Folders = None,
    json: Json = False,
) -> None:
    """Check that a bundle is whole, and name every problem.

    Checked are its schema, seals, digests, completeness and Parquet file. With --spot, cells whose instructions are
    counted are measured once more, and must come out the same to the last byte.
    """
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
    if spot:
        _derive(folder, spot, files, json=json)


def _derive(folder: Path, count: int, files: list[Path] | None, *, json: bool) -> None:
    from vbench.bundle.store import read_info
    from vbench.capsule import capsule
    from vbench.harness.run import versions
    from vbench.harness.spot import choose, derive

    known = workloads_of(files)
    rows, different = [], 0
    for each in derive(folder, choose(folder, count), known, capsule.require()):
        different += bool(each.difference)
        where = {"stack": each.step.stack, "workload": each.step.workload}
        begun = {"seed": each.seed, "start": each.start, "arm": each.step.arm}
        rows.append({**where, **begun, "result": each.difference or "exact"})
        if not json:
            say(str(each))
    if json:
        show_table(rows, json=True)
    else:
        say(f"{len(rows) - different} of {len(rows)} cells came out exactly")
    if different:
        there, here = read_info(folder).versions.get("commit"), versions()["commit"]
        changed = f"measured by vbench {there}, derived by {here}, which may open a stack by other steps"
        raise VbenchError(
            f"{folder}: {different} of {len(rows)} cells came out otherwise",
            changed if there != here else None,
        )
