"""The journal and the bundle. All samples here are synthetic."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import vbench
from vbench.errors import BundleError
from vbench.journal import COLUMNS, Journal, Sample, canonical
from vbench.store import Bundle, Failure, RunInfo, WorkloadInfo, load

SAMPLE = Sample(
    run="r1", stack="local/uml", baseline="local", workload="null-call", params="{}", metric="latency", unit="ns",
    better="lower", value=5000.0, block=0, order=1, arm="A", warmup=False, work=1000, clock="wall", guest_s=1.0,
    parent_s=1.1, host_cpu_s=None, rss_mib=300.0, start="2026-01-01T00:00:00Z",
)  # fmt: skip


def group(block: int, metrics: int = 3) -> list[Sample]:
    return [replace(SAMPLE, block=block, metric=f"m{i}") for i in range(metrics)]


def info() -> RunInfo:
    workload = WorkloadInfo(digest="0" * 64, kind="os", title="Null system call", primary="m0")
    return RunInfo(id="r1", created="2026-01-01T00:00:00Z", seed=7, workloads={"null-call": workload})


def write(folder: Path, blocks: int = 4, *, finish: bool = False) -> Path:
    with Bundle.create(folder, info()) as bundle:
        for block in range(blocks):
            bundle.append(group(block))
        if finish:
            bundle.finish()
    return folder / "samples.jsonl"


def test_round_trip(tmp_path: Path) -> None:
    write(tmp_path / "b", finish=True)
    run = vbench.load(tmp_path / "b")
    assert tuple(run.samples.columns) == COLUMNS
    assert len(run.samples) == 12
    assert run.samples["value"].dtype == "float64"
    assert run.samples["warmup"].dtype == "bool"
    assert run.samples["host_cpu_s"].isna().all()
    assert run.info.status == "complete"
    assert (tmp_path / "b" / "samples.parquet").stat().st_size > 0
    assert run.info.workloads["null-call"].primary == "m0"


def test_run_json_says_schema_and_refuses_another(tmp_path: Path) -> None:
    write(tmp_path)
    raw = json.loads((tmp_path / "run.json").read_text())
    assert raw["schema"] == 1
    (tmp_path / "run.json").write_text(json.dumps(raw | {"schema": 2}))
    with pytest.raises(BundleError, match="schema is 2"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": 1}', "[" * 100_000, '{"schema":1,"seed":"x"}'])
def test_a_bad_run_json_is_one_clear_error(tmp_path: Path, text: str) -> None:
    write(tmp_path)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(BundleError, match=r"run\.json"):
        load(tmp_path)


def test_every_torn_tail_is_dropped_whole_group(tmp_path: Path) -> None:
    path = write(tmp_path, blocks=3)
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    whole = len(b"".join(lines[:6]))
    for cut in range(whole + 1, len(data), 37):
        path.write_bytes(data[:cut])
        run = load(tmp_path)
        assert len(run.samples) == 6
        assert "left out" in run.info.notes[-1].text
        journal = Journal(path)
        assert (journal.rows, journal.dropped) == (6, cut - whole)
        journal.append(group(2))
        journal.close()
        assert path.read_bytes() == data


def test_a_page_of_zeros_at_the_end_is_a_torn_tail(tmp_path: Path) -> None:
    path = write(tmp_path, blocks=3)
    data = path.read_bytes()
    whole = len(b"".join(data.splitlines(keepends=True)[:6]))
    path.write_bytes(data[:whole] + b"\0" * 100 + data[whole + 100 :])
    assert len(load(tmp_path).samples) == 6


@pytest.mark.parametrize("finish", [False, True])
def test_an_edited_line_is_located(tmp_path: Path, finish: bool) -> None:
    path = write(tmp_path, finish=finish)
    lines = path.read_bytes().splitlines(keepends=True)
    for number in (1, 5, 12):
        edited = [*lines]
        edited[number - 1] = edited[number - 1].replace(b"5000.0", b"4000.0")
        path.write_bytes(b"".join(edited))
        with pytest.raises(BundleError, match=rf"samples\.jsonl:{number}: .*changed"):
            load(tmp_path)
        assert len(load(tmp_path, check=False).samples) == 12
    path.write_bytes(b"".join(lines[:4] + lines[5:]))
    with pytest.raises(BundleError, match=r"samples\.jsonl:5: .*changed"):
        load(tmp_path)
    with pytest.raises(BundleError, match=r"samples\.jsonl:5"):
        Bundle.open(tmp_path)


def test_a_finished_journal_cut_short_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, finish=True)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:9]))
    with pytest.raises(BundleError, match=r"9 samples, but run\.json says 12"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"value":5000.0,', b"", "lacks the column 'value'"),
        (b'"value":5000.0', b'"value":"fast"', "value = 'fast', not float"),
        (b'"value":5000.0', b'"value":NaN', "not a finite number"),
        (b'"value":5000.0', b'"value":null', "value = None"),
        (b'"parent_s":1.1', b'"parent_s":Infinity', "not a finite number"),
        (b'"block":1', b'"block":1.5', "block = 1.5, not int"),
        (b'"block":1', b'"block":-1', "below 0"),
        (b'"better":"lower"', b'"better":"faster"', "not one of higher, lower"),
        (b'"warmup":false', b'"warmup":0', "warmup = 0, not bool"),
        (b'"work":1000', b'"work":true', "work = True, not int"),
        (b'"params":"{}"', b'"params":"[]"', "canonical JSON"),
        (b'{"run"', b'x{"run"', "is not JSON"),
    ],
)
def test_bad_rows_are_located(tmp_path: Path, old: bytes, new: bytes, words: str) -> None:
    path = write(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    assert old in lines[4]
    lines[4] = lines[4].replace(old, new)
    path.write_bytes(b"".join(lines))
    with pytest.raises(BundleError, match=r"samples\.jsonl:5: ") as caught:
        load(tmp_path, check=False)
    assert words in caught.value.message


def test_a_sample_counted_twice_is_located(tmp_path: Path) -> None:
    with Bundle.create(tmp_path, info()) as bundle:
        bundle.append(group(0))
        bundle.append(group(0, metrics=1))
    with pytest.raises(BundleError, match=r"samples\.jsonl:4: .*twice"):
        load(tmp_path)


def test_nan_never_enters_the_journal(tmp_path: Path) -> None:
    path = write(tmp_path)
    before = path.read_bytes()
    with Bundle.open(tmp_path) as bundle, pytest.raises(BundleError, match="not a finite number"):
        bundle.append([SAMPLE, replace(SAMPLE, value=float("nan"))])
    assert path.read_bytes() == before


def test_full_disk_leaves_the_journal_valid(tmp_path: Path) -> None:
    path = write(tmp_path, blocks=2)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Bundle.open(tmp_path) as bundle:
        # The limit stands in for a full disk: part of the group fits, then the write fails.
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 700, hard))
        try:
            with pytest.raises(BundleError, match="cannot write") as caught:
                bundle.append(group(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.hint
        assert path.read_bytes() == before
        bundle.append(group(2))
    assert len(load(tmp_path).samples) == 9


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    write(tmp_path)
    with Bundle.open(tmp_path), pytest.raises(BundleError, match="being written"):
        Bundle.open(tmp_path)


def test_bundles_are_not_overwritten_and_folders_are_checked(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(BundleError, match="already holds"):
        Bundle.create(tmp_path, info())
    with pytest.raises(BundleError, match="not a result bundle"):
        load(tmp_path / "none")
    with pytest.raises(BundleError, match="cannot create"):
        Bundle.create(tmp_path / "run.json" / "x", info())


def test_save_is_atomic_and_survives_a_full_disk(tmp_path: Path) -> None:
    write(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Bundle.open(tmp_path) as bundle:
        bundle.info.failures.append(Failure(stack="local/kvm", stage="probe", reason="x" * 10_000))
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
        try:
            with pytest.raises(BundleError, match="cannot write"):
                bundle.save()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "run.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "samples.jsonl"]


def test_an_empty_journal_loads(tmp_path: Path) -> None:
    write(tmp_path, blocks=0)
    run = load(tmp_path)
    assert run.samples.empty
    assert run.overheads().empty


def test_ids_cannot_name_paths() -> None:
    with pytest.raises(ValueError, match="id"):
        RunInfo(id="../x", created="", seed=1)


def test_canonical() -> None:
    assert canonical({"b": 1, "a": "x"}) == canonical({"a": "x", "b": 1}) == '{"a":"x","b":1}'


def test_analysis_imports_no_host_code() -> None:
    code = (
        "import sys, vbench, vbench.store, vbench.overhead, vbench.plot, vbench.report\n"
        "bad = {'paramiko', 'psutil', 'vbench.host', 'vbench.ssh', 'vbench.layer'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, vbench.store; assert 'pandas' not in sys.modules and 'pyarrow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
