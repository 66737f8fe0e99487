"""Machines of the user's: roots over SSH, one of them behind another, none with Python or anything of ours on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vbench.capsule import capsule

from .lab import USER, Lab, make_root, three

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces"),
    pytest.mark.skipif(not shutil.which("mmdebstrap") or not shutil.which("sshd"), reason="no sshd"),
    pytest.mark.skipif(capsule.find() is None, reason="no capsule"),
]
VBENCH = (sys.executable, "-m", "vbench.cli.main")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Machines ``bare``, ``jump``, and ``inner`` behind it."""
    folder = tmp_path_factory.mktemp("lab", numbered=False)
    make_root(folder / "root")
    with contextmanager(three)(folder, folder / "root") as made:
        cache = made.home / ".cache/vbench"
        cache.mkdir(parents=True)
        (cache / "capsules").symlink_to(capsule.home())
        yield made


def vbench(lab: Lab, *argv: str | Path, code: int = 0) -> str:
    """What a command prints that is run where the harness is."""
    done = lab.run([*VBENCH, *map(str, argv)], timeout=600)
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert done.returncode == code, said
    return said


def left(lab: Lab, name: str) -> list[str]:
    """What is there of ours on a machine, but for what is meant to stay."""
    script = (
        "ls -d $HOME/.cache/vbench/sessions/s* /home/*/.cache/vbench/sessions/s* 2>/dev/null; "
        "grep -ls VBENCH_OWNER /proc/[0-9]*/environ"
    )
    argv = [
        "nsenter",
        f"--target={lab.machines[name].pid}",
        "--mount",
        "--pid",
        "--root",
        "--",
        "sh",
        "-c",
        script,
    ]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


def test_a_command_on_a_machine_and_in_a_layer_there(lab: Lab) -> None:
    assert vbench(lab, "exec", "bare", "--", "hostname") == "bare\n"
    assert vbench(lab, "exec", "bare/chroot", "--", "ls", "/capsule") == "delivered\nimage\ntree\n"
    assert vbench(lab, "exec", "inner/bubblewrap", "--", "hostname") == "bubblewrap\n"
    assert vbench(lab, "exec", f"{USER}@inner", "--", "id", "-un") == f"{USER}\n"
    for name in lab.machines:
        assert left(lab, name) == []


def test_a_run(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "run"
    vbench(
        lab,
        "run",
        "-s",
        "bare/chroot",
        "-w",
        "os-nullcall,os-forkexec,net-latency",
        "--blocks",
        "3",
        "--out",
        out,
    )
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert {row["stack"] for row in rows} == {"bare", "bare/chroot"}
    assert {row["baseline"] for row in rows} == {"bare"}
    used = [row for row in rows if row["stack"] == "bare" and row["side"] == "host"]
    assert used, "what a command used on the machine is told"
    assert "complete" in vbench(lab, "verify", out)
    assert left(lab, "bare") == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nosuch", "nosuch is neither a layer nor a machine: ~/.ssh/config has no Host nosuch"),
        ("root@10.213.1.77", "cannot connect to root@10.213.1.77"),
        ("ghost@bare", "ghost@bare accepts none of your SSH keys for ghost"),
    ],
)
def test_machines_that_cannot_be_reached(lab: Lab, name: str, words: str) -> None:
    assert words in vbench(lab, "exec", name, "--", "true", code=1 if "@" in name else 2)


def test_a_host_key_that_is_not_known_and_one_that_changed(lab: Lab) -> None:
    known = lab.home / ".ssh/known_hosts"
    kept = known.read_text()
    try:
        known.write_text("")
        said = vbench(lab, "exec", "bare", "--", "true", code=1)
        assert f"10.213.1.2 {lab.machines['bare'].host_key}" in said, "the line to add"
        known.write_text(f"10.213.1.2 {lab.machines['jump'].host_key}\n")
        assert "known_hosts has SHA256" in vbench(lab, "exec", "bare", "--", "true", code=1)
    finally:
        known.write_text(kept)


def test_a_harness_that_is_killed_leaves_nothing_there(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "run"
    argv = [*VBENCH, "run", "-s", "bare/bubblewrap", "-w", "os-forkexec", "--blocks", "6", "--out", str(out)]
    env: dict[str, Any] = {**os.environ, "HOME": str(lab.home)}
    with subprocess.Popen(
        lab.argv(argv), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        end = time.monotonic() + 120
        while not (out / "samples.jsonl").exists() or not (out / "samples.jsonl").stat().st_size:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        assert "another run is measuring" in vbench(
            lab, "run", "-s", "bare", "-w", "os-stat", "--out", tmp_path / "x", code=2
        )
        process.send_signal(signal.SIGKILL)
    end = time.monotonic() + 10
    while left(lab, "bare"):
        assert time.monotonic() < end, left(lab, "bare")
        time.sleep(0.1)
    vbench(lab, "resume", out)
    assert "complete" in vbench(lab, "verify", out)
