"""Machines of the user's: roots over SSH, one of them behind another, none with Python or anything of ours on it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from lab import USER, VBENCH, Lab, left, measuring, rows_of, said, vbench
from scipy import stats

from vbench.capsule import capsule

from .conftest import a_guest

pytestmark = pytest.mark.usefixtures("lab")


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """Each machine's server has processes that come and go: what is left is looked for on each."""


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


def _interval(ratios: list[float]) -> tuple[float, float]:
    """The 95% interval of a ratio by three sessions."""
    assert len(ratios) == 3
    low, high = stats.ttest_1samp(np.log(ratios), 0).confidence_interval()
    return float(low), float(high)


@pytest.mark.skipif(
    not os.environ.get("VBENCH_EVERYWHERE"), reason="takes minutes; VBENCH_EVERYWHERE=1 runs it"
)
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("address", "layers"),
    [("inner", ("chroot", a_guest())), (f"{USER}@inner", ("qemu",))],
    ids=["root", USER],
)
def test_a_machine_behind_another_agrees_with_this_one(
    lab: Lab, tmp_path: Path, address: str, layers: tuple[str, ...]
) -> None:
    """They are the same box, so they take turns, and what a layer costs on either is the same.

    A guest that is opened anew is another draw, of which the blocks of one opening know nothing: three sessions.
    """
    hosts = tmp_path / "hosts.toml"
    hosts.write_text(
        f'[[machine]]\nname = "far"\nssh = "{address}"\nhardware = "box"\n'
        '[[machine]]\nname = "local"\nhardware = "box"\n'
    )
    roots = ("far", "local")
    workloads = ("os-nullcall", "os-forkexec", "mem-pagefault")
    stacks = [word for root in roots for layer in layers for word in ("-s", f"{root}/{layer}")]
    ratios: dict[tuple[str, str], list[float]] = {}
    for session in range(3):
        out = tmp_path / f"run-{session}"
        argv = [*stacks, "-w", ",".join(workloads), "--blocks", "2"]
        print(vbench(lab, "run", "--hosts", hosts, *argv, "--out", out, timeout=1500))
        for row in json.loads(vbench(lab, "report", out, "--json").partition("\n\n")[0]):
            if row["primary"]:
                ratios.setdefault((row["stack"], row["workload"]), []).append(row["ratio"])
    for layer in layers:
        for workload in workloads:
            far, near = (_interval(ratios[f"{root}/{layer}", workload]) for root in roots)
            assert far[0] <= near[1], (layer, workload, ratios)
            assert near[0] <= far[1], (layer, workload, ratios)
    assert left(lab, "inner") == []


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


DECLARED = """
[[machine]]
name = "bare"
hardware = "box"
[[machine]]
name = "same"
ssh = "inner"
system = "LXC"
hardware = "box"
baseline = "bare"
[[machine]]
name = "wrong"
ssh = "inner"
system = "ESXi"
hardware = "box"
baseline = "bare"
[[machine]]
name = "elsewhere"
ssh = "jump"
hardware = "another box"
"""


def test_declared_machines(lab: Lab, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.toml"
    hosts.write_text(DECLARED)
    assert "nothing contradicts that same is LXC" in vbench(lab, "identify", "same", "--hosts", hosts)
    told = vbench(lab, "identify", "wrong", "--hosts", hosts, code=1)
    assert "wrong: it is declared to be ESXi, and shows " in told
    out = tmp_path / "run"
    vbench(
        lab,
        "run",
        "--hosts",
        hosts,
        "-s",
        "same",
        "-w",
        "os-nullcall,os-forkexec",
        "--blocks",
        "6",
        "--out",
        out,
    )
    rows = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert {(row["stack"], row["baseline"]) for row in rows} == {("bare", "bare"), ("same", "bare")}
    page = tmp_path / "report.html"
    vbench(lab, "report", out, "-o", page)
    assert page.read_text().count("LXC") > 1


def test_a_baseline_on_other_hardware_is_refused(lab: Lab, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.toml"
    hosts.write_text(DECLARED + 'baseline = "bare"\n')
    told = vbench(
        lab, "run", "--hosts", hosts, "-s", "elsewhere", "-w", "os-stat", "--out", tmp_path / "x", code=2
    )
    assert "elsewhere is on hardware 'another box', its baseline bare on hardware 'box'" in told


@pytest.mark.skipif(
    not os.environ.get("VBENCH_EVERYWHERE"), reason="the capsule takes minutes to a guest that is emulated"
)
def test_a_guest_that_somebody_else_has_made(lab: Lab, tmp_path: Path) -> None:
    """Its clock is set back in the middle of the run."""
    lab.add_guest("guest", capsule.require().payload(), 2201)
    hosts = tmp_path / "hosts.toml"
    hosts.write_text(
        '[[machine]]\nname = "bare"\nhardware = "box"\n'
        '[[machine]]\nname = "guest"\nsystem = "QEMU"\nhardware = "box"\nbaseline = "bare"\n'
    )
    end = time.monotonic() + 300
    while lab.run([*VBENCH, "identify", "guest", "--hosts", str(hosts)], timeout=120).returncode:
        assert time.monotonic() < end, (lab.folder / "guest/console").read_text()
        time.sleep(2)
    assert "nothing contradicts that guest is QEMU" in vbench(lab, "identify", "guest", "--hosts", hosts)
    out = tmp_path / "run"
    argv = ["--hosts", str(hosts), "-s", "guest", "-w", "os-nullcall,cpu-int", "--blocks", "6"]
    with measuring(lab, out, *argv, within=1500) as process:
        to = ["-F", lab.home / ".ssh/config", "-i", lab.home / ".ssh/id_ed25519"]
        known = ["-o", f"UserKnownHostsFile={lab.home}/.ssh/known_hosts"]
        assert lab.run(["ssh", *map(str, to), *known, "guest", "date -s 2001-01-01"]).returncode == 0
        said(process, 0, 1500)
    samples = [row for row in rows_of(out) if row["stack"] == "guest" and row["workload"] == "cpu-int"]
    times = [row["value"] for row in samples if row["metric"] == "time" and not row["warmup"]]
    assert len(times) == 6
    assert min(times) > 0
    assert max(times) < 10 * min(times), "its clock has gone back by decades meanwhile"
    assert "complete" in vbench(lab, "verify", out)
    rows = json.loads(vbench(lab, "report", out, "--json").partition("\n\n")[0])
    assert rows
    assert "QEMU" in vbench(lab, "report", out)
