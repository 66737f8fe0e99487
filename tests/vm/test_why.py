"""What an operation is made of, held against what kernels count themselves; and that counting moves no figure."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from vbench import load, paths
from vbench.capsule import capsule
from vbench.exact.counts import Tally, tally
from vbench.exact.opening import trail_of
from vbench.harness.why import entries_of, reasons
from vbench.hosts.base import Host
from vbench.layers.base import Shape, make_layer
from vbench.layers.roots import open_root
from vbench.layers.stack import Stack, open_layer
from vbench.workload.library import load_workloads

Vbench = Callable[..., "subprocess.CompletedProcess[str]"]
Counting = tuple[Host, Host, Tally]


@pytest.fixture(scope="module")
def counting(can: Callable[[str], None]) -> Iterator[Counting]:
    """The testbed and a guest under KVM on it, and what its emulator counts."""
    can("testbed")
    built = capsule.require()
    with ExitStack() as opened:
        counted, file = opened.enter_context(tally())
        root = opened.enter_context(open_root("local", built, Shape(), pinned=False))
        hosts = [root.but(counts=(f"counts={file}", *entries_of(Stack.parse("testbed/kvm"), built)[0]))]
        for word in ("testbed", "kvm"):
            open_layer(opened, hosts, make_layer(word), Shape())
        trail = trail_of(hosts[-1])
        assert trail is not None
        trail.back_to(trail.state)
        hosts[-1].run(["true"])  # it starts when something is asked that nobody has asked before
        yield hosts[1], hosts[2], counted


def probe(host: Host, *what: str) -> None:
    host.run([*host.program("vbench-probe"), *what], timeout=120)


def test_exits_are_as_many_as_kvm_counts(counting: Counting) -> None:
    testbed, guest, counted = counting
    debug = "/sys/kernel/debug"
    testbed.run(["sh", "-c", f"mountpoint -q {debug} || mount -t debugfs debugfs {debug}"])

    def told() -> int:
        return int(testbed.run(["cat", f"{debug}/kvm/exits"]).text)

    before = told(), counted.read()
    probe(guest, "forkexec", "--work", "40")
    after = told(), counted.read()
    found = after[1]["exit"] - before[1]["exit"]
    assert found > 35 * 200  # a start of a program asks 35 times what the processor is
    assert found == pytest.approx(after[0] - before[0], rel=0.005)
    assert after[1]["exit: CPUID"] - before[1]["exit: CPUID"] == pytest.approx(35 * 206, rel=0.02)


def test_faults_are_as_many_as_the_kernels_count(counting: Counting) -> None:
    """Those of both kernels: they are the same code."""
    testbed, guest, counted = counting

    def told() -> int:
        both = [host.run(["cat", "/proc/vmstat"]).text for host in (testbed, guest)]
        return sum(
            int(number) for text in both for number in re.findall(r"^pgfault (\d+)", text, re.MULTILINE)
        )

    before = told(), counted.read()["page fault"]
    probe(guest, "pagefault", "--work", "4096")
    after = told(), counted.read()["page fault"]
    assert after[1] - before[1] > 5 * 4096
    assert after[1] - before[1] == pytest.approx(after[0] - before[0], rel=0.02)


def test_all_that_takes_time_is_counted(counting: Counting) -> None:
    """Nobody rests in a computation: as many instructions as its time is worth, most of them the guest's program's."""
    _, guest, counted = counting
    before = counted.read()
    took = guest.run([*guest.program("vbench-probe"), "int", "--work", "524288"], timeout=120).elapsed
    counts = counted.read()
    counts.subtract(before)
    places = ("user", "kernel", "guest user", "guest kernel")
    assert sum(counts[place] for place in places) * 2e-9 == pytest.approx(took, rel=0.02)
    assert counts["guest user"] * 2e-9 > 0.85 * took


def test_counting_moves_no_figure(can: Callable[[str], None], vbench: Vbench, tmp_path: Path) -> None:
    can("testbed")
    out = tmp_path / "run"
    done = vbench("run", "-s", "testbed/kvm", "-w", "os-forkexec", "--blocks", "1", "--out", out)
    assert done.returncode == 0, done.stderr
    samples = load(out).samples
    mine = samples[(samples["stack"] == "local/testbed/kvm") & (samples["metric"] == "time")]
    workload = load_workloads([paths.workload_files()])["os-forkexec"]
    for model in (False, True):
        found = reasons(Stack.parse("testbed/kvm"), workload, capsule.require(), model=model)
        assert found.value == mine["value"].iloc[0]
        assert found.counts["exit: CPUID"] == 35
        assert (found.counts.get("memory access", 0) > 100_000) == model
