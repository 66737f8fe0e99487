"""Whole runs on real layers: what is measured, what fails, what is cut short and taken up again."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

import vbench.layers.base
import vbench.layers.stack
from vbench import load
from vbench.bundle.store import Bundle
from vbench.capsule.capsule import Capsule
from vbench.errors import DigestMismatch
from vbench.harness.plan import load_plan
from vbench.harness.run import execute, new_run
from vbench.hosts.base import Host
from vbench.layers.base import Layer, Shape, layer_classes
from vbench.layers.chroot import Chroot
from vbench.workload.library import load_workloads

from .conftest import Running, Silent, a_guest, guest_process, rows

Start = Callable[..., Running]
Vbench = Callable[..., "subprocess.CompletedProcess[str]"]
Keys = Counter[tuple[object, ...]]

KERNEL = a_guest()
GUEST = f"local/{KERNEL}"
STACKS = ("local", "local/chroot", GUEST)
SHORT: tuple[str | Path, ...] = ("--workloads", Path(__file__).parent / "workloads")
"""Two of our workloads, with a quarter of the time for each invocation, and one of a single look."""
SMALL: tuple[str | Path, ...] = (
    *["-s", "chroot", "-s", KERNEL, "-s", "pv", "-w", "short-call", "-w", "short-int", "--seed", "5"],
    *SHORT,
)
"""A plan of which one layer cannot open, wherever the machine is no dom0."""


def keys(folder: Path) -> Keys:
    """What has been measured, how often."""
    names = ("stack", "workload", "metric", "block", "order", "arm", "warmup")
    return Counter(tuple(row[name] for name in names) for row in rows(folder))


def info(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text())


@pytest.fixture(scope="module")
def whole(cache: Path, can: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    for layer in ("chroot", KERNEL):
        can(layer)
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = Running("run", *SMALL, "--blocks", "2", "--out", folder).end()
    assert done.returncode == 0, done.stderr
    return folder


def test_run(whole: Path) -> None:
    run = load(whole)
    assert run.info.status == "complete"
    measured = run.samples[~run.samples["warmup"] & (run.samples["stack"] != "local/pv")]
    for name in ("short-call", "short-int"):
        for block in range(2):
            cell = measured[(measured["workload"] == name) & (measured["block"] == block)]
            arms = sorted(zip(cell["stack"], cell["arm"], strict=True))
            assert arms == sorted([("local", "A"), ("local", "A'"), ("local/chroot", "A"), (GUEST, "A")])
    assert (measured["value"] > 0).all()
    assert (measured["parent_s"] > 0).all()
    paid = run.host_costs[(run.host_costs["metric"] == "host-cpu") & ~run.host_costs["warmup"]]
    assert len(paid) == len(measured)  # of these workloads, which have one metric each
    assert (paid["value"] > 0).all()
    digests = {run.facts[stack]["files_digest"] for stack in STACKS}
    assert len(digests) == 1
    # What the techniques are known for, by a wide margin.
    calls = measured[measured["workload"] == "short-call"].groupby("stack")["value"].median()
    assert calls[GUEST] > 3 * calls["local"]


def test_environments_are_opened_anew(start: Start, can: Callable[[str], None], tmp_path: Path) -> None:
    """Twice in four blocks: a guest's clock begins at 0 again, the machine's does not."""
    can(KERNEL)
    plan = ("-s", KERNEL, "-w", "uptime", *SHORT, "--blocks", "4", "--openings", "2")
    done = start("run", *plan, "--out", tmp_path / "run").end()
    assert done.returncode == 0, done.stderr
    samples = load(tmp_path / "run").samples
    assert samples["warmup"].sum() == 2  # one for each stack, however often it is opened
    measured = samples[~samples["warmup"]]
    assert measured.groupby("block")["boot"].first().to_list() == [0, 0, 1, 1]
    guest = measured[measured["stack"] == GUEST].sort_values("block")["value"].to_list()
    assert guest[0] < guest[1] > guest[2] < guest[3]
    assert (
        measured[measured["stack"] == "local"]
        .sort_values(["block", "order"])["value"]
        .is_monotonic_increasing
    )


def test_planned_gaps_say_why(start: Start, vbench: Vbench, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        'stacks = ["local"]\nworkloads = ["os-nullcall", "cpu-int"]\nblocks = 1\n'
        '[[leave_out]]\nstack = "local"\nworkloads = ["cpu-int"]\nreason = "it would take too long"\n'
    )
    done = start("run", tmp_path / "plan.toml", "--out", tmp_path / "run").end()
    assert done.returncode == 0, done.stderr
    assert {row["workload"] for row in rows(tmp_path / "run")} == {"os-nullcall"}
    (failure,) = info(tmp_path / "run")["failures"]
    assert (failure["workload"], failure["stage"]) == ("cpu-int", "plan")
    assert failure["reason"] == "it would take too long"
    assert vbench("verify", tmp_path / "run").returncode == 0
    assert "is already complete" in vbench("resume", "--retry", tmp_path / "run").stdout


def test_a_layer_that_cannot_open_is_recorded(whole: Path) -> None:
    run = load(whole)
    failed = [failure for failure in run.info.failures if failure.stack == "local/pv"]
    if "local/pv" in run.facts:
        pytest.skip("this machine is a dom0")
    (failure,) = failed
    assert failure.stage == "open"
    assert failure.workload is None
    assert "local is not a dom0" in failure.reason
    assert set(run.samples["stack"]) == set(STACKS)


def test_what_is_made_of_a_run(whole: Path, vbench: Vbench, tmp_path: Path) -> None:
    done = vbench("verify", whole)
    assert done.returncode == 0
    assert "complete" in done.stdout
    table = json.loads(vbench("report", whole, "--json", "-o", tmp_path / "json.html").stdout)
    assert {row["stack"] for row in table} >= {"local/chroot", GUEST}
    done = vbench("report", whole, "-o", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert all(stack in page for stack in (*STACKS, "local/pv"))
    assert not re.search(r'(src|href)="https?://', page)
    assert vbench("plot", whole, "-o", tmp_path / "figure.png").returncode == 0
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_raw_output_is_kept(whole: Path) -> None:
    for name in ("short-call", "short-int"):
        with gzip.open(whole / f"raw/local+{KERNEL}.{name}.jsonl.gz", "rt") as file:
            lines = [json.loads(line) for line in file]
        assert [line["warmup"] for line in lines] == [True, False, False]
        assert all("seconds" in json.loads(line["stdout"]) for line in lines)


@pytest.mark.parametrize(
    ("sig", "after"), [(signal.SIGKILL, 2), (signal.SIGINT, 9)], ids=["calibrating", "measuring"]
)
def test_cut_short_and_resumed(
    whole: Path, start: Start, vbench: Vbench, tmp_path: Path, sig: signal.Signals, after: int
) -> None:
    folder = tmp_path / "run"
    running = start("run", *SMALL, "--blocks", "2", "--out", folder)
    running.wait_for(lambda: len(rows(folder)) >= after)
    running.popen.send_signal(sig)
    done = running.end(20)
    if sig == signal.SIGINT:
        assert done.returncode == 130
        assert "Traceback" not in done.stderr
        assert f"vbench resume {folder}" in done.stderr
        assert info(folder)["status"] == "interrupted"
    before = keys(folder)
    assert after <= sum(before.values()) < sum(keys(whole).values())
    assert vbench("verify", folder).returncode == 1
    done = vbench("resume", folder, *SHORT)
    assert done.returncode == 0, done.stderr
    assert keys(folder) == keys(whole)
    assert set(keys(folder).values()) == {1}
    assert vbench("verify", folder).returncode == 0
    assert info(folder)["failures"] == info(whole)["failures"]
    assert "already complete" in vbench("resume", folder, *SHORT).stdout
    sizes = {(row["stack"], row["workload"]): set[object]() for row in rows(folder)}
    for row in rows(folder):
        sizes[row["stack"], row["workload"]].add(row["work"])
    assert all(len(work) == 1 for work in sizes.values())


def test_a_guest_that_dies_is_left_out(
    start: Start, can: Callable[[str], None], vbench: Vbench, tmp_path: Path
) -> None:
    for layer in ("chroot", KERNEL):
        can(layer)
    folder = tmp_path / "run"
    running = start("run", *SMALL, "--blocks", "3", "--out", folder)
    running.wait_for(lambda: len(rows(folder)) >= 8)
    guest_process(KERNEL, running.popen.pid).kill()
    done = running.end()
    assert done.returncode == 0, done.stderr
    assert f"{GUEST} is left out, because " in done.stderr
    (failure,) = (each for each in info(folder)["failures"] if each["stack"] != "local/pv")
    assert (failure["stack"], failure["workload"], failure["stage"]) == (GUEST, None, "measure")
    counts = Counter(row["stack"] for row in rows(folder) if not row["warmup"])
    assert counts["local"] == 2 * 2 * 3
    assert counts["local/chroot"] == 2 * 3
    assert counts[GUEST] < 2 * 3
    assert vbench("report", folder, "-o", tmp_path / "report.html").returncode == 0
    assert failure["reason"].split(":")[0] in (tmp_path / "report.html").read_text()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(path: Path) -> None:
    subprocess.run(["dd", "if=/dev/zero", f"of={path}", "bs=4k"], stderr=subprocess.DEVNULL, check=False)


def test_full_disk(
    whole: Path, start: Start, vbench: Vbench, tmp_path: Path, can: Callable[[str], None]
) -> None:
    can("chroot")
    with small_disk(tmp_path / "disk", "1m") as disk:
        folder = disk / "run"
        running = start("run", *SMALL, "--blocks", "5", "--out", folder)
        running.wait_for(lambda: len(rows(folder)) >= 9)
        fill(disk / "filler")
        done = running.end()
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert re.search(
            r"^vbench: cannot write .*: (No space left on device|the disk is full)", done.stderr, re.M
        )
        before = keys(folder)
        assert sum(before.values()) >= 9
        load(folder)  # raises where the journal is damaged
        (disk / "filler").unlink()
        done = vbench("resume", folder, *SHORT)
        assert done.returncode == 0, done.stderr
        assert before.keys() <= keys(folder).keys()
        assert set(keys(folder).values()) == {1}
        measured = [key for key in keys(folder) if not key[-1] and key[0] in STACKS]
        assert len(measured) == 5 * 2 * 4
        assert vbench("verify", folder).returncode == 0


def test_no_room_to_begin(start: Start, vbench: Vbench, tmp_path: Path, can: Callable[[str], None]) -> None:
    can("chroot")
    with small_disk(tmp_path / "disk", "64k") as disk:
        fill(disk / "filler")
        done = vbench("run", *SMALL, "--blocks", "1", "--out", disk / "run")
        assert done.returncode == 1
        assert done.stderr.startswith(f"vbench: cannot write {disk}/run/")
        assert "Traceback" not in done.stderr
        assert list((disk / "run").iterdir()) == []


class Tampered(Chroot):
    """A chroot in which one byte of one program is another."""

    name: ClassVar[str] = "tampered"

    @contextmanager
    def open(self, parent: Host, shape: Shape) -> Iterator[Any]:
        with super().open(parent, shape) as host:
            path = "/capsule/tree/usr/bin/vbench-probe"
            data = bytearray(host.get(path))
            data[len(data) // 2] ^= 1
            host.put(bytes(data), "/changed", 0o755)
            host.run(["mount", "--bind", "/changed", path])
            yield host


def test_one_changed_byte_stops_the_run(
    built: Capsule, can: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    can("chroot")
    known: dict[str, type[Layer]] = {**layer_classes(), "tampered": Tampered}
    for module in (vbench.layers.base, vbench.layers.stack):
        monkeypatch.setattr(module, "layer_classes", lambda: known)
    workloads = load_workloads()
    plan = load_plan(None, workloads, stacks=["chroot", "tampered"], workloads=["os-nullcall"], blocks=1)
    with Bundle.create(tmp_path / "run", new_run(plan, workloads, built)) as bundle:
        with pytest.raises(DigestMismatch) as caught:
            execute(bundle, workloads, built, Silent())
        files = built.manifest.files
        lines = "".join(f"{files[path]}  {path}\n" for path in sorted(files))
        shown = re.findall("[0-9a-f]{64}", caught.value.message)
        assert len(set(shown)) == 2
        assert shown[1] == hashlib.sha256(lines.encode()).hexdigest()
        assert caught.value.message.startswith("local/tampered does not hold the capsule's bytes")
        assert caught.value.message.endswith("usr/bin/vbench-probe")
    assert rows(tmp_path / "run") == []
    assert info(tmp_path / "run")["status"] == "interrupted"


def test_doctor(vbench: Vbench) -> None:
    """Every layer is available or says why not, KVM too, and soon."""
    begin = time.monotonic()
    done = vbench("doctor", "--json")
    assert time.monotonic() - begin < 30
    answers = {row["layer"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 0
    for row in answers.values():
        assert row["available"] == (row["status"] == "available")
        assert row["available"] or row["detail"].startswith("because ")
        assert row["available"] or row["hint"]
    if Path("/dev/kvm").exists() and not answers["kvm"]["available"]:
        assert "/dev/kvm exists" in answers["kvm"]["detail"] or "does not open" in answers["kvm"]["detail"]
