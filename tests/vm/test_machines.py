"""Machines of the user's: roots over SSH, one of them behind another, none with Python or anything of ours on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab import USER, Lab, left, vbench

pytestmark = pytest.mark.usefixtures("lab")


def test_a_command_on_a_machine_and_in_a_layer_there(lab: Lab) -> None:
    for name in ("bare", "inner", f"{USER}@inner"):
        assert f"sending the capsule to {name}: " in vbench(lab, "exec", name, "--", "true")
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
