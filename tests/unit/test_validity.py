"""The page on validity is what its program says of the reference, and the program can say no."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from validity import BASE, REFERENCE, Claim, claims, judge, whole

PAGE = Path(__file__).parents[2] / "docs" / "validity.md"


def table(**cells: tuple[float, float, float]) -> pd.DataFrame:
    """Cells by workload: ratio, low and high, all of one stack."""
    rows = [
        {"stack": f"{BASE}/x", "workload": name, "ratio": ratio, "low": low, "high": high}
        | {"verdict": "cheaper" if high < 1 else "costlier"}
        for name, (ratio, low, high) in cells.items()
    ]
    return pd.DataFrame(rows)


def answer(kind: str, known: pd.DataFrame, **more: object) -> str:
    claim = Claim.model_validate({"says": "s", "source": "f", "kind": kind} | more)
    return judge(claim, known).answer


def test_the_page_is_of_the_reference() -> None:
    assert PAGE.read_text(encoding="utf-8") == whole(REFERENCE)


def test_each_claim_has_a_source_and_cells_or_a_reason() -> None:
    for claim in claims():
        assert claim.source
        assert bool(claim.cells) != (claim.kind in ("unmeasurable", "no_faster"))
        assert bool(claim.reason) == (claim.kind == "unmeasurable")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [((1.1, 1.0, 1.2), "holds"), ((1.1, 1.0, 1.4), "not decided"), ((1.5, 1.4, 1.6), "fails")],
)
def test_a_ratio_between_bounds(cell: tuple[float, float, float], expected: str) -> None:
    assert answer("between", table(w=cell), cells=["x w"], least=0.9, most=1.3) == expected
    assert answer("between", table(w=cell), cells=["x other"], least=0.9, most=1.3) == "not measurable"


@pytest.mark.parametrize(
    ("more", "expected"),
    [((1.5, 1.4, 1.6), "holds"), ((1.3, 1.15, 1.4), "not decided"), ((1.0, 0.9, 1.05), "fails")],
)
def test_an_order(more: tuple[float, float, float], expected: str) -> None:
    known = table(less=(1.1, 1.1, 1.2), more=more)
    assert answer("ascending", known, cells=["x less", "x more"]) == expected


@pytest.mark.parametrize(
    ("other", "expected"),
    [((1.1, 1.1, 1.11), "holds"), ((1.1, 1.1, 1.3), "not decided"), ((1.5, 1.4, 1.6), "fails")],
)
def test_two_that_are_alike(other: tuple[float, float, float], expected: str) -> None:
    known = table(one=(1.1, 1.1, 1.11), other=other)
    assert answer("alike", known, cells=["x one", "x other"], within=0.05) == expected


def test_what_beats_its_baseline_by_more_than_allowed_is_named() -> None:
    known = table(a=(0.98, 0.97, 0.99), b=(0.5, 0.4, 0.6), c=(1.2, 1.1, 1.3))
    judged = judge(Claim(says="s", source="f", kind="no_faster", within=0.03), known)
    assert judged.answer == "fails"
    assert [shown.split(":")[0] for shown in judged.shown] == ["`b` in `x`"]
    assert answer("no_faster", known, within=0.7) == "holds"
