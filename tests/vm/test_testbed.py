"""The deterministic testbed, and what really runs on it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vbench import load
from vbench.capsule.capsule import verify_inside
from vbench.harness import lifecycle
from vbench.hosts.base import Host
from vbench.layers.base import Shape, make_layer

from .conftest import SHAPE, Opener


@pytest.fixture(scope="module")
def registers(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """``registers.c``, compiled."""
    program = tmp_path_factory.mktemp("registers") / "registers"
    source = Path(__file__).with_name("registers.c")
    subprocess.run(["gcc", "-O1", "-static", "-o", program, source], check=True)
    return program.read_bytes()


def keeps_registers(registers: bytes, *hosts: Host) -> None:
    """Processes that share the emulated processor, two in each host, compute with their own values."""
    script = "cd /scratch; ./registers 100000 4000 $1 & ./registers 100000 4000 $2 && wait $!"
    for host in hosts:
        host.put(registers, "/scratch/registers", 0o755)
    with ThreadPoolExecutor(len(hosts)) as pool:
        runs = [
            pool.submit(host.run, ["sh", "-c", script, "sh", f"{n}", f"{n + 5}"], check=False, timeout=180)
            for n, host in enumerate(hosts)
        ]
    assert [run.result().text.split() for run in runs] == [["0", "wrong"] * 2] * len(hosts)


def test_kvm_really_runs_on_it(opener: Opener, registers: bytes) -> None:
    with opener("testbed/kvm") as host:
        assert host.placement.clock == "instructions"
        assert "hypervisor" in host.run(["grep", "-m1", "flags", "/proc/cpuinfo"]).text
        sources = "/sys/devices/system/clocksource/clocksource0/available_clocksource"
        assert "kvm-clock" in host.run(["cat", sources]).text
        assert host.run(["virt-what"]).text == "kvm"
        keeps_registers(registers, host)
        verify_inside(host)


def test_kvm_bears_interrupts(opener: Opener) -> None:
    """As packaged, the emulator delivers one twice before long, and the guest hangs within 3000 reads."""
    with opener("testbed/kvm") as host:
        argv = [*host.program("fio"), "--name=a", "--filename=/scratch/file", "--size=8M", "--rw=randread"]
        argv += ["--bs=4k", "--direct=1", "--ioengine=libaio", "--number_ios=6000", "--io_size=1g"]
        assert host.run([*argv, "--output-format=terse"], timeout=180).code == 0


def test_layers_stack_on_it(opener: Opener) -> None:
    with opener("testbed/kvm/bubblewrap") as host:
        assert host.name == "local/testbed/kvm/bubblewrap"
        verify_inside(host)


def test_a_paravirtualized_xen_guest_really_runs_on_it(opener: Opener, registers: bytes) -> None:
    with opener("testbed/xen") as dom0, make_layer("pv").open(dom0, SHAPE) as host:
        assert host.run(["cat", "/sys/hypervisor/type"]).text == "xen"
        assert host.run(["cat", "/sys/hypervisor/guest_type"]).text == "PV"
        assert host.run(["virt-what"]).text.splitlines() == ["xen", "xen-domU"]
        keeps_registers(registers, dom0, host)
        verify_inside(host)

        # A domain is no process of dom0: what it takes Xen tells, and it is killed by destroying it.
        second = lifecycle.Opener(dom0, lambda: make_layer("pv").open(dom0, Shape()), counted=True)
        found = lifecycle.idle(second, ["true"], 1.0)
        assert Shape().memory_mib < found["pss"] < Shape().memory_mib + 64
        assert "cpu" not in found
        assert 1 < lifecycle.restart(second, ["true"])["restart"] < 120
        assert host.run(["echo", "still here"]).text == "still here"


@pytest.mark.parametrize("workload", ["cpu-int", "os-nullcall"])
def test_its_figures_repeat(tmp_path: Path, vbench: Callable[..., object], workload: str) -> None:
    """The baseline twice in each block, chroot in a testbed of its own beside it: within 0.1%."""
    folder = tmp_path / "out"
    vbench("run", "--stack", "testbed/chroot", "--workload", workload, "--blocks", "2", "--out", folder)
    samples = load(folder).samples
    values = samples[~samples["warmup"]].groupby("stack")["value"]
    assert len(values) == 2
    assert ((values.max() - values.min()) / values.min()).max() < 1e-3
    assert set(samples["clock"]) == {"instructions"}
