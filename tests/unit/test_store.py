"""The journal and the bundle. All samples here are synthetic."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pandas as pd
import pytest
from bundles import (
    SAMPLE,
    SCHEMA_1,
    about_group,
    group,
    schema_3_journal,
    schema_3_rows,
    write_journal,
)

import vbench
from vbench.bundle.journal import Journal, extent_of
from vbench.bundle.migrations import SCHEMA
from vbench.bundle.samples import COLUMNS, COSTS, LATER, Common, Sample, canonical, problem, samples_of
from vbench.bundle.store import Bundle, Failure, RunInfo, WorkloadInfo
from vbench.bundle.verify import examine
from vbench.errors import BundleError
from vbench.stats.run import ONCE, load
from vbench.workload.resolution import Resolution


def test_round_trip(tmp_path: Path) -> None:
    write_journal(tmp_path / "b", finish=True)
    run = vbench.load(tmp_path / "b")
    assert tuple(run.samples.columns) == (*COLUMNS, "peer", "boot", "resolution")
    assert len(run.samples) == 12
    assert run.samples["value"].dtype == "float64"
    assert run.samples["warmup"].dtype == "bool"
    assert set(run.samples["side"]) == {"workload"}
    assert run.host_costs.empty
    assert run.info.status == "complete"
    assert (tmp_path / "b" / "samples.parquet").stat().st_size > 0
    assert run.info.workloads["null-call"].primary == "m0"


def test_run_json_says_schema_and_refuses_another(tmp_path: Path) -> None:
    write_journal(tmp_path)
    raw = json.loads((tmp_path / "run.json").read_text())
    assert raw["schema"] == SCHEMA
    (tmp_path / "run.json").write_text(json.dumps(raw | {"schema": SCHEMA + 1}))
    with pytest.raises(BundleError, match=f"schema is {SCHEMA + 1}"):
        load(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"schema": 1}', "[" * 100_000, '{"schema":1,"seed":"x"}', '{"schema":true}']
)
def test_a_bad_run_json_is_one_clear_error(tmp_path: Path, text: str) -> None:
    write_journal(tmp_path)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(BundleError, match=r"run\.json"):
        load(tmp_path)


def test_every_torn_tail_is_dropped_whole_group(tmp_path: Path) -> None:
    path = write_journal(tmp_path, blocks=3)
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
    path = write_journal(tmp_path, blocks=3)
    data = path.read_bytes()
    whole = len(b"".join(data.splitlines(keepends=True)[:6]))
    path.write_bytes(data[:whole] + b"\0" * 100 + data[whole + 100 :])
    assert len(load(tmp_path).samples) == 6


@pytest.mark.parametrize("finish", [False, True])
def test_an_edited_line_is_located(tmp_path: Path, finish: bool) -> None:
    path = write_journal(tmp_path, finish=finish)
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
    path = write_journal(tmp_path, finish=True)
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
        (b'"side":"workload"', b'"side":"guest"', "not one of workload, host"),
        (b'"side":"workload",', b"", "lacks the column 'host_cpu_s'"),
        (b'"warmup":false', b'"warmup":0', "warmup = 0, not bool"),
        (b'"work":1000', b'"work":true', "work = True, not int"),
        (b'"params":"{}"', b'"params":"[]"', "canonical JSON"),
        (b'{"run"', b'x{"run"', "is not JSON"),
    ],
)
def test_bad_rows_are_located(tmp_path: Path, old: bytes, new: bytes, words: str) -> None:
    path = write_journal(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    assert old in lines[4]
    lines[4] = lines[4].replace(old, new)
    path.write_bytes(b"".join(lines))
    with pytest.raises(BundleError, match=r"samples\.jsonl:5: ") as caught:
        load(tmp_path, check=False)
    assert words in caught.value.message


def test_a_sample_counted_twice_is_located(tmp_path: Path) -> None:
    with Bundle.create(tmp_path, about_group()) as bundle:
        bundle.append(group(0))
        bundle.append(group(0, metrics=1))
    with pytest.raises(BundleError, match=r"samples\.jsonl:4: .*twice"):
        load(tmp_path)


def test_nan_never_enters_the_journal(tmp_path: Path) -> None:
    path = write_journal(tmp_path)
    before = path.read_bytes()
    with Bundle.open(tmp_path) as bundle, pytest.raises(BundleError, match="not a finite number"):
        bundle.append([SAMPLE, replace(SAMPLE, value=float("nan"))])
    assert path.read_bytes() == before


def test_full_disk_leaves_the_journal_valid(tmp_path: Path) -> None:
    path = write_journal(tmp_path, blocks=2)
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
    write_journal(tmp_path)
    with Bundle.open(tmp_path), pytest.raises(BundleError, match="being written"):
        Bundle.open(tmp_path)


def test_bundles_are_not_overwritten_and_folders_are_checked(tmp_path: Path) -> None:
    write_journal(tmp_path)
    with pytest.raises(BundleError, match="already holds"):
        Bundle.create(tmp_path, about_group())
    with pytest.raises(BundleError, match="not a result bundle"):
        load(tmp_path / "none")
    with pytest.raises(BundleError, match="cannot create"):
        Bundle.create(tmp_path / "run.json" / "x", about_group())


def test_save_is_atomic_and_survives_a_full_disk(tmp_path: Path) -> None:
    write_journal(tmp_path)
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
    write_journal(tmp_path, blocks=0)
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
        "import sys, vbench, vbench.bundle.store, vbench.stats.overhead, vbench.plot, vbench.report\n"
        "bad = {'paramiko', 'psutil', 'vbench.hosts.base', 'vbench.layers.base'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import sys, vbench.bundle.store; assert 'pandas' not in sys.modules and 'pyarrow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_bundle_of_schema_1_loads_and_goes_on_as_today_s(tmp_path: Path) -> None:
    run = load(SCHEMA_1)
    assert len(run.samples) == 8
    assert [note.workloads for note in run.info.notes] == [[], [], ["null-call"]]
    assert run.info.notes[0].text == ONCE
    assert run.info.schema_version == SCHEMA
    shutil.copytree(SCHEMA_1, tmp_path / "copy")
    before = (tmp_path / "copy/run.json").read_bytes()
    load(tmp_path / "copy")
    assert (tmp_path / "copy/run.json").read_bytes() == before
    with Bundle.open(tmp_path / "copy") as bundle:
        bundle.save()
    raw = json.loads((tmp_path / "copy/run.json").read_text())
    assert raw["schema"] == SCHEMA
    assert raw["notes"][1]["workloads"] == ["null-call"]
    assert "workload" not in raw["notes"][1]
    pd.testing.assert_frame_equal(load(tmp_path / "copy").samples, run.samples)


def test_what_older_lines_say_of_costs_becomes_samples_once(tmp_path: Path) -> None:
    path = schema_3_journal(tmp_path)
    before = path.read_bytes()
    run = load(tmp_path)
    assert list(run.samples["metric"]) == ["m0", "m1", "m2"] * 2
    assert list(run.samples.columns) == list(run.host_costs.columns)
    said = run.host_costs[["side", "block", "metric", "unit", "better", "value"]].to_numpy().tolist()
    assert sorted(said) == [
        ["host", 0, "host-cpu", "s", "lower", 1.5],
        ["host", 0, "host-memory", "MiB", "lower", 300.0],  # block 1 does not know it
        ["host", 0, "steal", "s", "lower", 0.0],  # known to be nothing
        ["host", 1, "host-cpu", "s", "lower", 2.5],
        ["host", 1, "steal", "s", "lower", 0.0],
    ]
    assert path.read_bytes() == before


def test_an_older_run_is_resumed_and_its_journal_holds_both_forms(tmp_path: Path) -> None:
    path = schema_3_journal(tmp_path, blocks=2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])  # killed while it wrote the second block
    alone = load(tmp_path)
    costs = dict.fromkeys(COSTS) | {"host_cpu_s": 9.0}
    with Bundle.open(tmp_path) as bundle:
        assert bundle.journal.rows == 3
        bundle.save()
        for block in (1, 2):
            values = [(each.metric, each.unit, each.better, each.value) for each in group(block)]
            names = {each.name for each in fields(Sample)} - {"side", "metric", "unit", "better", "value"}
            common = {name: getattr(SAMPLE, name) for name in names} | {"block": block}
            bundle.append(samples_of(values, costs, **common))
        bundle.finish()
    run = load(tmp_path)
    pd.testing.assert_frame_equal(run.samples[:3], alone.samples)
    assert list(run.samples["block"]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    cpu = run.host_costs[run.host_costs["metric"] == "host-cpu"].set_index("block")["value"]
    assert dict(cpu) == {0: 1.5, 1: 9.0, 2: 9.0}
    assert run.info.journal is not None
    assert run.info.journal.rows == len(path.read_bytes().splitlines()) == 3 + 2 * 4
    assert examine(tmp_path) == []
    table = pd.read_parquet(tmp_path / "samples.parquet")
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == len(run.samples) + len(run.host_costs)


def test_a_cost_is_a_sample_and_what_is_not_known_is_none(tmp_path: Path) -> None:
    costs: dict[str, float | None] = dict.fromkeys(COSTS) | {"host_read_mib": 0.0, "rss_mib": 5.5}
    first = asdict(SAMPLE)
    common = {name: first[name] for name in Common.__annotations__}
    made = samples_of([("m0", "ns", "lower", 1.0)], costs, **common)
    assert [(each.side, each.metric, each.unit, each.value) for each in made] == [
        ("workload", "m0", "ns", 1.0), ("host", "host-memory", "MiB", 5.5), ("host", "host-read", "MiB", 0.0),
    ]  # fmt: skip
    with Bundle.create(tmp_path / "b", about_group()) as bundle:
        bundle.append(made)
        bundle.append(
            [replace(SAMPLE, metric="host-memory", block=1), replace(made[1], block=1)]
        )  # two, not one twice
    run = load(tmp_path / "b")
    assert list(run.samples["metric"]) == ["m0", "host-memory"]
    assert list(run.host_costs["metric"]) == ["host-memory", "host-read", "host-memory"]


def test_a_line_of_either_form_is_judged_by_its_own_columns() -> None:
    (row,) = schema_3_rows([SAMPLE])
    assert problem(row) is None
    assert problem({name: value for name, value in row.items() if name not in LATER}) is None
    assert problem(asdict(SAMPLE)) is None
    assert "host_switches" in (problem({**row, "host_switches": "many"}) or "")
    assert "lacks the column 'rss_mib'" in (problem({n: v for n, v in row.items() if n != "rss_mib"}) or "")
    assert "side = 'guest', not one of workload, host" in (problem(asdict(SAMPLE) | {"side": "guest"}) or "")


def test_schema_2_is_told_where_peers_ran_and_how_finely_tools_read(tmp_path: Path) -> None:
    """Until then a stack within a guest met its peer there, and nobody wrote down that fio tells milliseconds."""
    write_journal(tmp_path)
    raw = json.loads((tmp_path / "run.json").read_text()) | {"schema": 2}
    stacks = ["local/uml", "local/uml/chroot", "local/testbed/kvm", "local/testbed/kvm/bubblewrap",
              "local/testbed/xen", "local/testbed/xen/pv", "local/testbed/xen/pv/uml"]  # fmt: skip
    raw["hosts"] = {stack: {"kernel": "k"} for stack in stacks}
    old = {"digest": "0" * 64, "title": "t", "primary": "iops"}
    raw["workloads"] = {
        "disk-rand-read": {**old, "kind": "disk"},
        "net-latency": {**old, "kind": "network", "primary": "mean"},
        "mine": {**old, "kind": "cpu"},
    }
    (tmp_path / "run.json").write_text(json.dumps(raw))
    info = load(tmp_path).info
    assert {stack: facts["peer"] for stack, facts in info.hosts.items()} == {
        **dict.fromkeys(stacks, "the machine"),
        "local/uml/chroot": "local/uml",
        "local/testbed/kvm/bubblewrap": "local/testbed/kvm",
        "local/testbed/xen/pv/uml": "local/testbed/xen/pv",
    }
    assert [each.talks_to_peer for each in info.workloads.values()] == [False, True, False]
    read = info.workloads["disk-rand-read"].resolutions
    assert (read["iops"].seconds, read["latency-p99"].share) == (0.001, 1 / 64)
    assert "latency" not in read
    assert info.workloads["mine"].resolutions == {}


def test_samples_say_where_their_peer_ran_and_how_finely_they_were_read(tmp_path: Path) -> None:
    steps = {"m0": Resolution(seconds=0.001), "m1": Resolution(value=2.0)}
    info = RunInfo(
        id="r1", created="now", seed=1, hosts={"local/uml": {"peer": "the machine"}},
        workloads={
            "w": WorkloadInfo(digest="d", kind="k", title="t", primary="m0", talks_to_peer=True, resolutions=steps)
        },
    )  # fmt: skip
    rows = [
        replace(SAMPLE, stack=stack, workload="w", metric=metric, value=value, better="higher", guest_s=g, work=50)
        for stack, metric, value, g in (
            ("local/uml", "m0", 100.0, 0.5), ("local/uml", "m1", 40.0, 0.5), ("local", "m0", 100.0, None)
        )
    ]  # fmt: skip
    with Bundle.create(tmp_path / "b", info) as bundle:
        bundle.append(rows)
    found = load(tmp_path / "b").samples
    assert list(found["peer"]) == ["the machine", "the machine", ""]
    assert list(found["resolution"]) == pytest.approx([0.002, 0.05, 0.002])  # of a rate: its work over itself


@pytest.mark.parametrize("name", ["samples.jsonl", "run.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    """A link leads out of the folder, and reading or writing a pipe would wait for ever."""
    write_journal(tmp_path / "b")
    path, other = tmp_path / "b" / name, tmp_path / "other"
    path.rename(other)
    before = other.read_bytes()
    if kind == "link":
        path.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    if name == "run.json" and kind == "link":
        with Bundle.open(tmp_path / "b") as bundle:
            bundle.save()
        assert not path.is_symlink()
    else:
        with pytest.raises(BundleError, match=name.replace(".", r"\.")):
            Bundle.open(tmp_path / "b")
        with pytest.raises(BundleError, match=name.replace(".", r"\.")):
            load(tmp_path / "b")
    assert other.read_bytes() == before


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    write_journal(tmp_path)
    ours = [tmp_path / f".{name}.draft-0123abcd" for name in ("run.json", "samples.parquet")]
    others = [tmp_path / name for name in (".run.json.draft-x", ".mine.draft-0123abcd", ".run.json")]
    for path in (*ours, *others):
        path.touch()
    Bundle.open(tmp_path).close()
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in others)


def test_a_folder_in_which_a_run_was_killed_at_its_very_beginning_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").touch()
    write_journal(tmp_path)
    assert len(load(tmp_path).samples) == 12


def test_who_writes_is_named(tmp_path: Path) -> None:
    write_journal(tmp_path)
    with Bundle.open(tmp_path), pytest.raises(BundleError, match=f"by process {os.getpid()} "):
        Bundle.open(tmp_path)


def test_a_run_that_another_process_finished_meanwhile_is_seen_as_it_is_now(tmp_path: Path) -> None:
    write_journal(tmp_path, finish=True)
    with Bundle.open(tmp_path) as bundle:
        assert bundle.info.status == "complete"


def test_reopened_it_is_as_interrupted_and_its_failures_are_tried_anew(tmp_path: Path) -> None:
    path = write_journal(tmp_path, finish=True)
    with Bundle.open(tmp_path) as bundle:
        bundle.info.failures = [
            Failure(stack="local/uml", stage="measure", reason="it died"),
            Failure(stack="local/uml", workload="null-call", stage="measure", reason="it hung"),
        ]
        bundle.reopen()
    run = load(tmp_path)
    assert run.info.status == "interrupted"
    assert [failure.reason for failure in run.info.failures] == [
        "it died"
    ]  # opening it anew removes that one
    assert "it hung" in run.info.notes[-1].text
    assert run.info.notes[-1].workloads == ["null-call"]
    assert path.exists()


def test_an_endless_line_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = write_journal(tmp_path)
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + (400 << 20))  # zeros, of which the disk holds none
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), hard))
    try:
        assert extent_of(path).rows == 12
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
