"""`vbench verify`: whether a bundle is whole."""

from __future__ import annotations

from vbench.cli.console import say, show_table
from vbench.cli.options import Folder, Json, group
from vbench.errors import VbenchError

app = group()


@app.command()
def verify(folder: Folder, json: Json = False) -> None:
    """Check that a bundle is whole, and name every problem.

    Checked are its schema, seals, digests, completeness and Parquet file.
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
