"""What happens to machines and to links while they are measured: what is read then, nothing lost, nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from lab import VBENCH, Lab, left, measuring, rows_of, said, vbench

from vbench.capsule.capsule import Capsule
from vbench.hosts.ssh.keeper import KEEP

EVERYWHERE = bool(os.environ.get("VBENCH_EVERYWHERE"))
LONG = pytest.mark.skipif(not EVERYWHERE, reason="takes minutes; VBENCH_EVERYWHERE=1 runs it")
PLAN = ("-s", "bare/chroot", "-w", "os-nullcall,os-forkexec", "--blocks", "3")


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """Machines are started anew here: what is left is looked for on each, and here when the last test is done."""


def cells(out: Path) -> list[tuple[str, ...]]:
    """The measured cells and metrics, each as often as it is there."""
    names = ("stack", "workload", "block", "arm", "metric", "side", "repeat")
    return sorted(tuple(str(row.get(each)) for each in names) for row in rows_of(out) if not row["warmup"])


def gone(lab: Lab, name: str, within: float = 10) -> None:
    """Wait until nothing of ours is left on a machine."""
    end = time.monotonic() + within
    while found := left(lab, name):
        assert time.monotonic() < end, found
        time.sleep(0.2)


@pytest.fixture(scope="module")
def whole(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, ...]]:
    """The cells of the plan, when nothing happens."""
    out = tmp_path_factory.mktemp("whole") / "run"
    vbench(lab, "run", *PLAN, "--out", out)
    assert left(lab, "bare") == []
    return cells(out)


def resumed(lab: Lab, out: Path, whole: list[tuple[str, ...]]) -> None:
    vbench(lab, "resume", out, "--retry")
    assert cells(out) == whole
    assert "complete" in vbench(lab, "verify", out)
    assert left(lab, "bare") == []


def test_a_link_that_is_down_for_five_seconds(lab: Lab, tmp_path: Path, whole: list[tuple[str, ...]]) -> None:
    out = tmp_path / "run"
    with measuring(lab, out, *PLAN) as process:
        lab.cut("bare")
        time.sleep(5)
        lab.cut("bare", down=False)
        said(process, 0)
    assert cells(out) == whole
    assert left(lab, "bare") == []


@LONG
def test_a_link_that_stays_down(lab: Lab, tmp_path: Path, whole: list[tuple[str, ...]]) -> None:
    out = tmp_path / "run"
    try:
        with measuring(lab, out, *PLAN) as process:
            lab.cut("bare")
            told = said(process, 0, 200)
            assert "bare: the connection dropped" in told, told
        gone(lab, "bare", 150)  # the machine itself takes away what is ours
    finally:
        lab.cut("bare", down=False)
    resumed(lab, out, whole)


@LONG
def test_a_fleet_of_three_of_which_one_goes_away(lab: Lab, tmp_path: Path) -> None:
    """The others go on, and the report has a ratio for each, and none across machines."""
    out, fleet = tmp_path / "run", ("bare", "jump", "inner")
    stacks = [word for name in fleet for word in ("-s", f"{name}/chroot")]
    argv = [*stacks, "-w", "os-nullcall,os-forkexec", "--blocks", "6"]
    with measuring(lab, out, *argv, rows=20) as process:
        lab.reboot("bare")
        assert "bare: the connection dropped" in said(process, 0)
    kept = [row for row in rows_of(out) if not row["warmup"]]
    blocks = {name: {row["block"] for row in kept if row["stack"] == f"{name}/chroot"} for name in fleet}
    assert blocks["jump"] == blocks["inner"] == {*range(6)}
    assert blocks["bare"] < {*range(6)}
    vbench(lab, "resume", out, "--retry")
    told = vbench(lab, "report", out)
    assert "Machines" in told
    pairs = {(row["stack"], row["baseline"]) for row in rows_of(out)}
    assert pairs == {(each, name) for name in fleet for each in (name, f"{name}/chroot")}
    assert [name for name in fleet if left(lab, name)] == []


def test_a_server_that_is_killed(lab: Lab, tmp_path: Path, whole: list[tuple[str, ...]]) -> None:
    out = tmp_path / "run"
    with measuring(lab, out, *PLAN) as process:
        lab.inside(
            "bare",
            "for p in $(grep -l '^sshd: root' /proc/[0-9]*/cmdline); do p=${p%/*}; kill -9 ${p#/proc/}; done",
        )
        assert "bare: the connection dropped" in said(process, 0)
    gone(lab, "bare")
    resumed(lab, out, whole)


@LONG
def test_a_machine_that_is_rebooted(lab: Lab, tmp_path: Path, whole: list[tuple[str, ...]]) -> None:
    out = tmp_path / "run"
    with measuring(lab, out, *PLAN) as process:
        lab.reboot("bare")
        assert "bare: the connection dropped" in said(process, 0)
    resumed(lab, out, whole)


def test_a_disk_that_is_full(lab: Lab) -> None:
    lab.inside("bare", "mkdir -p /root/.cache/vbench/capsules && mv /root/.cache/vbench/capsules /root/away")
    free = int(lab.inside("bare", "df -Pk / | awk 'NR == 2 {print $4}'") or 0)
    lab.inside("bare", f"head -c {free - 300_000}K /dev/zero >/full")
    try:
        found = vbench(lab, "exec", "bare", "--", "true", code=1)
        assert "MiB free in /root/.cache/vbench/capsules, the capsule needs" in found
    finally:
        lab.inside(
            "bare", "rm -rf /full /root/.cache/vbench/capsules; mv /root/away /root/.cache/vbench/capsules"
        )
    vbench(lab, "exec", "bare", "--", "true")


@LONG
def test_two_harnesses_at_once(lab: Lab) -> None:
    vbench(lab, "clean", "bare")
    both = [
        subprocess.Popen(
            lab.argv([*VBENCH, "exec", "bare", "--", "sh", "-c", "echo here; sleep 3"]),
            env=lab.environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]  # fmt: skip
    texts = [process.communicate(timeout=500)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], texts
    assert any("here\n" in text for text in texts)
    assert any("another run is measuring on bare" in text for text in texts)
    assert lab.inside("bare", "ls -A /root/.cache/vbench/capsules").count("\n") == 2, (
        "the capsule and the leader"
    )
    assert left(lab, "bare") == []


@pytest.mark.parametrize("times", [3, pytest.param(30, marks=LONG)])
def test_a_harness_that_is_killed(lab: Lab, tmp_path: Path, whole: list[tuple[str, ...]], times: int) -> None:
    out = tmp_path / "run"
    for number in range(times):
        if number == 0:
            with measuring(lab, out, *PLAN, rows=1) as process:
                os.kill(process.pid, signal.SIGKILL)
            continue
        with subprocess.Popen(
            lab.argv([*VBENCH, "resume", str(out)]),
            env=lab.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as again:
            time.sleep(0.5 + 0.2 * (number % 20))
            again.kill()
    gone(lab, "bare")
    resumed(lab, out, whole)


def test_a_machine_that_answers_garbage(lab: Lab) -> None:
    settings = lab.folder / "bare/ssh/sshd_config.lab"
    kept = settings.read_text()
    try:
        settings.write_text(kept + "ForceCommand printf '\\001garbage\\377\\n'\n")
        lab.reboot("bare")
        told = vbench(lab, "exec", "bare", "--", "true", code=1)
        assert told.startswith("vbench: bare: its shell does not run the command that it is given\n")
    finally:
        settings.write_text(kept)
        lab.reboot("bare")


def test_something_else_that_listens_there(lab: Lab) -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 2299)); c = s.accept()[0]; c.sendall(b'\\xff' * 9999)"
    listener = subprocess.Popen(lab.argv([VBENCH[0], "-c", code]))
    try:
        lab.configure("Host liar\n  HostName 127.0.0.1\n  Port 2299\n  User root\n")
        time.sleep(0.5)
        assert "cannot connect to liar" in vbench(lab, "exec", "liar", "--", "true", code=1)
    finally:
        listener.kill()
        listener.wait()


@pytest.mark.parametrize("_number", range(20))
def test_a_keeper_clears_up_though_nobody_hears_it(built: Capsule, tmp_path: Path, _number: int) -> None:
    """Processes end by themselves while it looks for them; what it has to say then goes to a closed connection."""
    mark = "0123456789abcdef"
    keeper = subprocess.Popen(
        [*built.payload().command("busybox"), "sh", "-c", KEEP, "keep", tmp_path, "me", mark, "x", "120"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert keeper.stdout is not None
    assert keeper.stdout.readline().startswith(b"ready ")
    short = "i=0; while [ $i -lt 3000 ]; do /bin/true; i=$((i + 1)); done"
    churn = [
        subprocess.Popen(["sh", "-c", short], env={**os.environ, "VBENCH_OWNER": mark}) for _ in range(12)
    ]
    for pipe in (keeper.stdout, keeper.stderr, keeper.stdin):
        assert pipe is not None
        pipe.close()
    keeper.wait(30)
    assert [*(tmp_path / "sessions").iterdir()] == []
    for process in churn:
        assert process.wait(30) == -signal.SIGKILL
