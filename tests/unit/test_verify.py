"""What verify finds wrong with a bundle, and where. All samples here are synthetic."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from bundles import SCHEMA_1, invocations, planned
from typer.testing import CliRunner

from vbench.bundle import tool_output
from vbench.bundle.store import Failure
from vbench.bundle.verify import Problem, examine
from vbench.cli.main import app
from vbench.errors import BundleError


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return planned(tmp_path / "b", invocations())


def texts(folder: Path) -> list[str]:
    return [str(problem) for problem in examine(folder)]


def test_a_whole_one_has_no_problem(whole: Path) -> None:
    assert examine(whole) == []
    assert examine(SCHEMA_1) == []
    done = CliRunner().invoke(app, ["verify", str(whole)])
    assert done.exit_code == 0
    assert "complete, 11 samples" in done.output
    assert json.loads(CliRunner().invoke(app, ["verify", "--json", str(whole)]).output) == []


def edit(path: Path, change: Callable[[list[bytes]], object]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))


def test_every_edited_line_is_named(whole: Path) -> None:
    def change(lines: list[bytes]) -> None:
        for number in (3, 7):
            lines[number - 1] = lines[number - 1].replace(b"5000.0", b"4999.0")

    edit(whole / "samples.jsonl", change)
    found = [
        problem for problem in examine(whole) if "fits its seal" in problem.text or "changed" in problem.text
    ]
    assert [problem.line for problem in found] == [3, 7]
    assert CliRunner().invoke(app, ["verify", str(whole)]).exit_code == 1
    rows = json.loads(CliRunner().invoke(app, ["verify", "--json", str(whole)]).stdout)
    assert [(row["file"], row["line"]) for row in rows][:2] == [("samples.jsonl", 3), ("samples.jsonl", 7)]


def test_a_line_taken_out_is_located(whole: Path) -> None:
    edit(whole / "samples.jsonl", lambda lines: lines.pop(4))
    found = texts(whole)
    assert any(text.startswith("samples.jsonl:5: the line was changed, or one before it") for text in found)
    assert "samples.jsonl:10: the journal ends here with 10 samples, run.json says 11" in found
    assert "samples.parquet: 11 rows, the journal has 10" in found


def test_lines_cut_from_the_end_are_located(whole: Path) -> None:
    edit(whole / "samples.jsonl", lambda lines: lines.__delitem__(slice(9, None)))
    found = texts(whole)
    assert "samples.jsonl:9: the journal ends here with 9 samples, run.json says 11" in found
    assert any("lacks 1 of 3 blocks, the first is block 2" in text for text in found)


def test_a_run_that_goes_on_says_so(tmp_path: Path) -> None:
    folder = planned(tmp_path / "b", invocations()[:5], finish=False)
    assert texts(folder) == [f"run.json: the run is running: finish it with vbench resume {folder}"]
    with (folder / "samples.jsonl").open("ab") as file:
        file.write(b'{"run":')
    assert "samples.jsonl: the last 7 bytes are an unfinished sample, which resuming drops" in texts(folder)


def test_missing_invocations_are_named(tmp_path: Path) -> None:
    rows = [
        group
        for group in invocations()
        if (group[0].stack, group[0].block, group[0].arm) != ("local", 1, "A'")
    ]
    found = texts(planned(tmp_path / "b", rows))
    assert found == ["samples.jsonl: null-call in local, arm A', lacks 1 of 3 blocks, the first is block 1"]


def test_what_a_failure_explains_is_not_missing(tmp_path: Path) -> None:
    rows = [group for group in invocations() if group[0].stack == "local" or group[0].block == 0]
    failure = Failure(stack="local/uml", stage="measure", reason="it died")
    assert examine(planned(tmp_path / "a", rows, failures=[failure])) == []
    assert len(examine(planned(tmp_path / "b", rows))) == 1


def test_a_sample_of_another_run_or_cell_is_located(tmp_path: Path) -> None:
    rows = invocations()
    rows[3] = [replace(rows[3][0], run="r2")]
    rows[4] = [replace(rows[4][0], work=7)]
    found = texts(planned(tmp_path / "b", rows))
    assert "samples.jsonl:4: the sample is of another run: 'r2'" in found
    assert "samples.jsonl:5: work size 7, in this cell until then 1000" in found


def test_parquet_that_says_something_else_is_located(whole: Path) -> None:
    frame = pd.read_parquet(whole / "samples.parquet")
    frame.loc[5, "value"] = 1.0
    frame.to_parquet(whole / "samples.parquet", index=False)
    assert texts(whole) == ["samples.parquet: row 6, value: 1.0 where the journal has 5000.0"]
    (whole / "samples.parquet").write_bytes(b"PAR1garbage")
    (problem,) = examine(whole)
    assert problem.text.startswith("it cannot be read: ")
    (whole / "samples.parquet").unlink()
    assert texts(whole) == ["samples.parquet: it is missing"]


def test_output_that_was_changed_or_lost_is_named(whole: Path) -> None:
    path = whole / "raw/local+uml.null-call.jsonl.gz"
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    found = texts(whole)
    assert f"raw/{path.name}: it was changed: its digest is not what run.json says" in found
    assert any(text.startswith(f"raw/{path.name}:4: ") and "no whole line" in text for text in found)
    path.write_bytes(
        b"".join(gzip.compress(gzip.decompress(data).splitlines(keepends=True)[n]) for n in (0, 1, 3))
    )
    assert any("no output of 1 invocations, the first is block 1, arm A" in text for text in texts(whole))
    path.unlink()
    assert texts(whole) == [f"raw/{path.name}: it is missing"]


@pytest.mark.parametrize("tail", [b"\x1f\x8b\x08", b"\0" * 50])
def test_half_a_line_of_output_is_cut_off_before_more_is_added(whole: Path, tail: bytes) -> None:
    path = whole / "raw/local+uml.null-call.jsonl.gz"
    data = path.read_bytes()
    path.write_bytes(data + tail)
    with pytest.raises(BundleError, match=r"gz:5: \d+ bytes are no whole line"):
        list(tool_output.invocations(path))
    tool_output.drop_torn_tails(whole)
    assert path.read_bytes() == data
    tool_output.keep(whole, ("local/uml", "null-call"), (9, "A", False), b"more")
    assert [*tool_output.invocations(path)][-1] == (9, "A", False)


def test_names_of_cells_lead_nowhere_else(tmp_path: Path) -> None:
    for name in ("x:path=../../../etc/passwd", "/etc/passwd", "..", "a" * 5000, "n\0l", "\n"):
        path = tool_output.file_of(tmp_path, ("local/uml", name))
        assert path.parent == tmp_path / "raw"
        assert path.resolve().parent == tmp_path / "raw"
        tool_output.keep(tmp_path, ("local/uml", name), (0, "A", False), b"")


def test_output_is_not_written_through_links(whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("mine")
    path = whole / "raw/local+uml.null-call.jsonl.gz"
    path.unlink()
    path.symlink_to(other)
    with pytest.raises(BundleError, match="symbolic link"):
        tool_output.keep(whole, ("local/uml", "null-call"), (0, "A", False), b"")
    tool_output.drop_torn_tails(whole)
    assert other.read_text() == "mine"
    (tmp_path / "raw2").mkdir()
    for each in (whole / "raw").iterdir():
        each.unlink()
    (whole / "raw").rmdir()
    (whole / "raw").symlink_to(tmp_path / "raw2")
    with pytest.raises(BundleError, match="symbolic link"):
        tool_output.keep(whole, ("local/uml", "null-call"), (0, "A", False), b"")
    assert list((tmp_path / "raw2").iterdir()) == []


def test_what_is_no_bundle_is_one_problem(tmp_path: Path) -> None:
    assert examine(tmp_path) == [
        Problem(tmp_path.name, None, f"{tmp_path} is not a result bundle: it has no run.json")
    ]
    (tmp_path / "run.json").write_text('{"schema": 9}')
    assert texts(tmp_path) == ["run.json: schema is 9, this vbench reads up to 4"]
