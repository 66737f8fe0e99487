"""What is known of techniques from elsewhere, held against a bundle: ``python benchmarks/validity.py``.

Its output is ``docs/validity.md``. ``benchmarks/validity.toml`` has the claims, each with its source. A claim holds or
fails if the intervals of its cells leave no other answer, and is else not decided.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
from other_tools import RESULT, TOOLS
from pydantic import BaseModel

from vbench import load
from vbench.notebook import main_cells
from vbench.stats.verdict import Verdict
from vbench.stats.wording import cost, interval

HERE = Path(__file__).parent
REFERENCE = HERE.parent / "results" / "reference-testbed"
BASE = "local/testbed"


class Claim(BaseModel, extra="forbid"):
    """A claim of the list; see there."""

    says: str
    source: str
    kind: Literal["between", "ascending", "alike", "no_faster", "unmeasurable"]
    cells: list[str] = []
    least: float = 0.0
    most: float = math.inf
    within: float = 0.0
    reason: str = ""


class Cell(NamedTuple):
    """A ratio with its interval, and what it is of."""

    name: str
    ratio: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """The cell as text."""
        stack, workload = self.name.split()
        return f"`{workload}` in `{stack}`: {cost(self.ratio)} ({interval(self.low, self.high)})"


class Judged(NamedTuple):
    """What became of a claim, and the figures."""

    claim: Claim
    answer: Literal["holds", "fails", "not decided", "not measurable"]
    shown: list[str]


Answer = Literal["holds", "fails", "not decided"]


def claims() -> list[Claim]:
    """The claims of the list."""
    listed = tomllib.loads((HERE / "validity.toml").read_text(encoding="utf-8"))
    return [Claim.model_validate(each) for each in listed["claim"]]


def judge(claim: Claim, table: pd.DataFrame) -> Judged:
    """Hold a claim against the overheads of a bundle, of primary metrics only."""
    if claim.kind == "unmeasurable":
        return Judged(claim, "not measurable", [claim.reason])
    if claim.kind == "no_faster":
        told = table[(table["verdict"] == Verdict.CHEAPER) & (table["ratio"] < 1 - claim.within)]
        found = [_cell(row) for row in told.sort_values("ratio").to_dict("records")]
        return Judged(claim, "fails" if found else "holds", [cell.text for cell in found])
    cells = [_find(name, table) for name in claim.cells]
    if lacking := [name for name, cell in zip(claim.cells, cells, strict=True) if cell is None]:
        return Judged(claim, "not measurable", [f"not in the bundle: {', '.join(lacking)}"])
    known = [cell for cell in cells if cell is not None]
    answers = [*_ANSWERS[claim.kind](claim, known)]
    order: tuple[Answer, ...] = ("fails", "not decided", "holds")
    return Judged(claim, min(answers, key=order.index), [cell.text for cell in known])


def _between(claim: Claim, cells: list[Cell]) -> Iterator[Answer]:
    for cell in cells:
        inside = claim.least <= cell.low and cell.high <= claim.most
        outside = cell.high < claim.least or cell.low > claim.most
        yield "holds" if inside else "fails" if outside else "not decided"


def _ascending(_: Claim, cells: list[Cell]) -> Iterator[Answer]:
    for less, more in itertools.pairwise(cells):
        yield "holds" if less.high < more.low else "fails" if less.low > more.high else "not decided"


def _alike(claim: Claim, cells: list[Cell]) -> Iterator[Answer]:
    for one, other in zip(cells[::2], cells[1::2], strict=True):
        far = math.log1p(claim.within)
        least, most = math.log(other.low / one.high), math.log(other.high / one.low)
        inside, outside = -far <= least and most <= far, most < -far or least > far
        yield "holds" if inside else "fails" if outside else "not decided"


_ANSWERS: dict[str, Callable[[Claim, list[Cell]], Iterator[Answer]]] = {
    "between": _between,
    "ascending": _ascending,
    "alike": _alike,
}


def _find(name: str, table: pd.DataFrame) -> Cell | None:
    stack, workload = name.split()
    found = table[(table["stack"] == f"{BASE}/{stack}") & (table["workload"] == workload)]
    return _cell(found.to_dict("records")[0]) if len(found) and math.isfinite(found["low"].iloc[0]) else None


def _cell(row: dict[Hashable, Any]) -> Cell:
    stack = str(row["stack"]).removeprefix(f"{BASE}/")
    ratio, low, high = (float(row[name]) for name in ("ratio", "low", "high"))
    return Cell(f"{stack} {row['workload']}", ratio, low, high)


def page(judged: list[Judged], bundle: str) -> Iterator[str]:
    """The page, as Markdown."""
    count = Counter(each.answer for each in judged)
    yield "# Validity"
    yield ""
    yield f"What is known of techniques from elsewhere, held against `{bundle}`, by `python benchmarks/validity.py`:"
    yield f"{', '.join(f'{n} {answer}' for answer, n in count.most_common())}. A claim holds or fails if the intervals"
    yield "of its cells leave no other answer, and is else not decided. What fails stays here."
    for number, each in enumerate(judged, 1):
        yield ""
        yield f"## {number}. {each.claim.says}"
        yield f"**{each.answer.capitalize()}.** Known from: {each.claim.source}."
        yield ""
        yield from (f"- {shown}" for shown in each.shown)


def tools(table: pd.DataFrame) -> Iterator[str]:
    """What other people's tools say in the same stacks, beside the ratios of the bundle; as Markdown."""
    said = json.loads(RESULT.read_text(encoding="utf-8"))
    yield ""
    yield "## Other people's tools in the same stacks"
    yield "`python benchmarks/other_tools.py` runs them inside: Debian's perf and ioping, which know nothing of vbench;"
    yield "of one opening each, so without intervals. Ours are the bundle's workloads that ask the same."
    yield ""
    yield "| tool | workload | stack | theirs, baseline | theirs, here | their ratio | our ratio | theirs over ours |"
    yield "|---|---|---|---|---|---|---|---|"
    for tool in TOOLS:
        base = said["testbed"][tool.name]
        for path, figures in said.items():
            stack = path.removeprefix("testbed").lstrip("/")
            cell = _find(f"{stack} {tool.workload}", table) if stack else None
            if cell is not None:
                ratio = figures[tool.name] / base
                shown = f"{base:g} {tool.unit} | {figures[tool.name]:g} {tool.unit}"
                ratios = f"{ratio:.3f} | {cell.ratio:.3f} | {ratio / cell.ratio:.3f}"
                yield f"| `{tool.name}` | `{tool.workload}` | `{stack}` | {shown} | {ratios} |"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, nargs="?", default=REFERENCE)
    given = parser.parse_args()
    sys.stdout.write(whole(given.bundle))


def whole(bundle: Path) -> str:
    """The page, of a bundle."""
    run = load(bundle)
    table = main_cells(run)
    judged = [judge(claim, table) for claim in claims()]
    return "\n".join([*page(judged, f"results/{bundle.resolve().name}"), *tools(table)]) + "\n"


if __name__ == "__main__":
    main()
