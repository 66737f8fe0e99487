"""What a terminal shows of a bundle: a table a clock in 80 columns, and sentences that say no more than is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundles import info, record

from vbench import load
from vbench.bundle.store import Failure
from vbench.report import overview, summary_table
from vbench.stats import wording

ROOT = Path(__file__).parents[2]
REFERENCE, BUSY = ROOT / "results/reference-testbed", ROOT / "notebooks/busy-machine"
Call = Callable[..., tuple[int, str, str]]
ROW: dict[str, Any] = {
    "stack": "local/uml", "baseline": "local", "workload": "os-nullcall", "params": "{}", "metric": "time",
    "primary": True, "clock": "wall", "n": 6, "boots": 6, "attained": 0.96875, "ratio": 2.8, "verdict": "costlier",
}  # fmt: skip


@pytest.mark.parametrize(
    ("ratio", "verdict", "shown"),
    [
        (1.006, "costlier", "+0.6%"), (1.0002, "costlier", "+.02%"), (1.21, "costlier", "+21%"),
        (2.81, "costlier", "2.8x"), (46.8, "costlier", "47x"), (1240.0, "costlier", "1240x"),
        (1.3, "not distinguishable", "="), (1.3, "undetermined", "~+30%"), (None, "undetermined", "~"),
        (0.0396, "cheaper", "-96%!"), (0.997, "cheaper", "-.3%!"),
    ],
)  # fmt: skip
def test_a_cell_says_what_is_known_in_five_characters(ratio: float | None, verdict: str, shown: str) -> None:
    line = overview.tables([ROW | {"ratio": ratio, "verdict": verdict}])[-2]
    assert line.split() == ["os-nullcall", shown]
    assert len(shown) <= 5


def test_clocks_have_tables_of_their_own_and_are_marked() -> None:
    counted = {
        "clock": "instructions",
        "stack": "local/testbed/kvm",
        "baseline": "local/testbed",
        "ratio": 1.5,
    }
    lines = overview.tables([ROW, ROW | counted])
    wall = lines.index("By the wall clock: cost over local")
    by_count = lines.index("By counted instructions (not seconds of any machine): cost over local/testbed")
    assert [line.split()[0] for line in lines[wall:by_count] if "x" in line] == ["os-nullcall"]
    assert "kvm" in lines[by_count + 1]
    assert "kvm" not in "".join(lines[:by_count])


def test_added_times_in_place_of_ratios() -> None:
    """What is not told, is not a time or has no figure has its sign, as with ratios."""
    rows = [
        ROW | {"stack": f"local/{name}", "added_s": added} | more
        for name, added, more in (
            ("a", 1.234e-6, {}),
            ("b", -4e-10, {"verdict": "undetermined"}),
            ("c", None, {}),
            ("d", 1e-6, {"verdict": "not distinguishable"}),
            ("e", None, {"verdict": "undetermined", "ratio": None}),
        )
    ]
    lines = overview.tables(rows, added=True)
    assert lines[0] == "By the wall clock: added time over local"
    assert lines[2].split()[1:] == ["+1.23us", "~-0.4ns", "/", "=", "~"]
    assert lines[-1] == overview.LEGEND_ADDED


def test_the_reference_fits_80_columns_and_breaks_no_name() -> None:
    rows = summary_table(load(REFERENCE))
    lines = overview.tables(rows)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    stacks = {row["stack"].removeprefix("local/testbed/") for row in rows if row["primary"]}
    assert all(stack in text for stack in stacks)
    body = [line for line in lines if line.split() and line.split()[0] in {row["workload"] for row in rows}]
    assert len(body) == 2 * 43  # eleven techniques take two tables, with each workload in both
    assert len(overview.sentences(rows, [])) <= 5
    assert "but kvm/bubblewrap over kvm" in text


def test_a_heading_ends_where_its_column_does() -> None:
    stacks = ["local/bubblewrap", "local/chroot", "local/kvm", "local/qemu"]
    rows = [ROW | {"stack": stack, "workload": name} for stack in stacks for name in ("a", "b" * 50)]
    lines = overview.tables(rows)
    heads = [line for line in lines[1:] if "x" not in line.replace("bubblewrap", "")][:4]
    ends = {word: line.index(word) + len(word) for line in heads for word in line.split() if word != "="}
    cells = next(line for line in lines if line.startswith("a "))
    assert ends["qemu"] == len(cells)


def test_sentences_claim_nothing_of_what_is_not_decided() -> None:
    undecided = [
        ROW | {"verdict": "undetermined", "n": 1, "attained": 0.0, "stack": s} for s in ("local/a", "local/b")
    ]
    assert overview.sentences(undecided, []) == ["0 of 2 differences are told, from 1 blocks."]
    few = "1 of 1 differences are told, from 6 blocks in 2 openings, intervals of 95.0% or more."
    assert overview.sentences([ROW | {"boots": 2, "attained": 0.95}], [])[0] == few
    odd = [ROW | {"ratio": 0.04, "verdict": "cheaper"}, ROW | {"stack": "local/b", "ratio": 3.0}]
    told = " ".join(overview.sentences(odd, [Failure(stack="local/c", stage="open", reason="it is gone")]))
    assert "Usually an artefact, as it beats its baseline: os-nullcall in local/uml." in told
    assert "lowest mean" not in told  # the only workload has an artefact in it
    assert "One is missing: local/c, because it is gone." in told


def test_report_prints_tables_and_cells_only_when_asked(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    code, said, _ = call("report", BUSY, "-o", out)
    assert (code, out.is_file()) == (0, True)
    assert "By the wall clock: cost over local" in said
    assert "not distinguishable" not in said
    code, said, _ = call("report", BUSY, "-o", out, "--cells")
    assert said.splitlines()[0].split()[:3] == ["stack", "workload", "metric"]
    assert "not distinguishable" in said


def test_report_writes_what_it_says_or_nothing(call: Call, tmp_path: Path) -> None:
    for name in ("t.csv", "t.tex", "t.md"):
        code, said, err = call("report", BUSY, "-o", tmp_path / name)
        assert (code, said) == (2, "")
        assert "a report is written as .html or .pdf" in err
        assert not (tmp_path / name).exists()
    before = sorted(BUSY.iterdir())
    code, said, _ = call("report", BUSY, "--json")
    assert (code, len(json.loads(said))) == (0, 6)
    assert sorted(BUSY.iterdir()) == before
    record(tmp_path / "empty", info(), finish=False)
    code, said, err = call("report", tmp_path / "empty")
    assert (code, said) == (1, "")
    assert "has nothing to report" in err
    assert f"vbench resume {tmp_path / 'empty'}" in err


def test_a_pdf_that_cannot_be_is_said_before_anything_else(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "weasyprint", None)
    code, said, err = call("report", REFERENCE, "--pdf", "-o", tmp_path / "r.pdf")
    assert (code, said) == (1, "")
    assert "a PDF needs WeasyPrint" in err


def test_words_for_ratios() -> None:
    nan = float("nan")
    assert wording.against(1.006, 1.005, 1.007, "local") == "0.6% more than local (+0.5% to +0.7%)"
    assert wording.against(0.9, nan, nan, "local") == "10% less than local"
    assert wording.against(2.31, 2.2, 2.4, "local") == "2.31 times local (2.20 to 2.40)"
    assert wording.against(1.00001, 1.0, 1.00002, "local").startswith("less than 0.01% more than local")
    assert wording.levels([0.96875, 0.0, 0.9688]) == "96.9%"
    assert wording.levels([0.958, 0.96875]) == "95.8% to 96.9%"
    assert (wording.cost(None), wording.cost(1.0058), wording.cost(2.81)) == ("n/a", "+0.58%", "2.81x")
    assert wording.interval(1.0, None) == "n/a"
