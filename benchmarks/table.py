"""All techniques of a bundle in one table, stacks down and workloads across: ``python benchmarks/table.py``.

Its output is ``docs/table.md``, of ``results/techniques-testbed``; another bundle may be named.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from vbench import load
from vbench.notebook import main_cells
from vbench.stats.run import Run
from vbench.stats.verdict import CALLED, Verdict
from vbench.stats.wording import added, cost, interval, levels

TECHNIQUES = Path(__file__).parents[1] / "results" / "techniques-testbed"
BASE = "local/testbed"


def whole(bundle: Path) -> str:
    """The page, of a bundle."""
    run = load(bundle)
    table = main_cells(run)
    table = table[table["clock"] == "instructions"]
    return "\n".join(_page(run, table, f"results/{bundle.resolve().name}")) + "\n"


def _page(run: Run, table: pd.DataFrame, name: str) -> Iterator[str]:
    yield "# All techniques on the testbed"
    yield ""
    yield f"`{name}`, by `python benchmarks/table.py`: by counted instructions, not seconds of any machine."
    sure = f"its interval ({levels(table['attained'])}, {table['n'].max()} boots)"
    yield f"Each cell is the ratio over the baseline, in brackets {sure}, and the time added to an"
    yield "operation. `=`: no difference told. `!`: beats its baseline, which is usually an artefact."
    yield ""
    names = [each for each in run.info.workloads if (table["workload"] == each).any()]
    yield f"| stack | over | {' | '.join(names)} |"
    yield f"|---|---|{'---|' * len(names)}"
    cells = {(row["stack"], row["workload"]): row for row in table.to_dict("records")}
    missing = {(each.stack, each.workload): each.reason for each in run.info.failures}
    reasons: list[str] = []
    for stack in [stack for stack in run.info.techniques if stack != BASE]:
        base = next((row["baseline"] for (mine, _), row in cells.items() if mine == stack), "")
        shown = []
        for workload in names:
            why = missing.get((stack, workload)) or missing.get((stack, None))
            if why and why not in reasons:
                reasons.append(why)
            row = cells.get((stack, workload))
            shown.append(_cell(row) if row else f"{reasons.index(why) + 1})" if why else "")
        yield f"| `{_short(stack)}` | `{_short(base)}` | {' | '.join(shown)} |"
    yield ""
    yield from (f"{number}) {why}" for number, why in enumerate(reasons, 1))


def _short(stack: str) -> str:
    return stack.removeprefix(f"{BASE}/").removeprefix("local/")


def _cell(row: dict[Any, Any]) -> str:
    if row["verdict"] not in CALLED:
        return "=" if row["verdict"] == Verdict.NOT_DISTINGUISHABLE else f"~ ({row['why']})"
    mark = "!" if row["verdict"] == Verdict.CHEAPER else ""
    more = f", {added(row['added_s'])}" if math.isfinite(row["added_s"]) else ""
    return f"{cost(row['ratio'])}{mark} [{interval(row['low'], row['high'])}]{more}"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, nargs="?", default=TECHNIQUES)
    sys.stdout.write(whole(parser.parse_args().bundle))


if __name__ == "__main__":
    main()
