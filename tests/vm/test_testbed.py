"""The deterministic testbed, and what really runs on it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from vbench import load
from vbench.bundle.store import Bundle
from vbench.bundle.verify import examine
from vbench.capsule.capsule import Capsule, verify_inside
from vbench.harness import lifecycle
from vbench.harness.dispatch import Place
from vbench.harness.places import here, in_a_process
from vbench.harness.plan import load_plan
from vbench.harness.run import execute, new_run
from vbench.hosts.base import Host
from vbench.layers.base import Shape, make_layer
from vbench.stats.run import Run
from vbench.workload.library import load_workloads

from .conftest import SHAPE, Climber, Opener, Silent


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
    with ExitStack() as opened:
        running = [
            opened.enter_context(host.spawn(["sh", "-c", script, "sh", f"{n}", f"{n + 5}"]))
            for n, host in enumerate(hosts)
        ]
        assert [each.wait(180) for each in running] == [0] * len(hosts)
        assert [each.tail().split() for each in running] == [["0", "wrong"] * 2] * len(hosts)


@pytest.fixture(scope="module")
def kvm(opener: Opener) -> Iterator[Host]:
    """A guest under KVM on it, for the tests of this file, which leave it as it was."""
    with opener("testbed/kvm") as opened:
        opened.run(["true"])  # it starts when something is asked that nobody has asked before
        yield opened


def test_kvm_really_runs_on_it(kvm: Host, registers: bytes) -> None:
    assert kvm.placement.clock == "instructions"
    assert "hypervisor" in kvm.run(["grep", "-m1", "flags", "/proc/cpuinfo"]).text
    sources = "/sys/devices/system/clocksource/clocksource0/available_clocksource"
    assert "kvm-clock" in kvm.run(["cat", sources]).text
    assert kvm.run(["virt-what"]).text == "kvm"
    keeps_registers(registers, kvm)
    verify_inside(kvm)


def test_kvm_bears_interrupts(kvm: Host) -> None:
    """As packaged, the emulator delivers one twice before long, and the guest hangs within 3000 reads."""
    argv = [*kvm.program("fio"), "--name=a", "--filename=/scratch/file", "--size=8M", "--rw=randread"]
    argv += ["--bs=4k", "--direct=1", "--ioengine=libaio", "--number_ios=6000", "--io_size=1g"]
    assert kvm.run([*argv, "--output-format=terse"], timeout=180).code == 0


def test_layers_stack_on_it(kvm: Host) -> None:
    with make_layer("bubblewrap").open(kvm, SHAPE) as host:
        assert host.name == "local/testbed/kvm/bubblewrap"
        with host.spawn(["sh", "-c", "echo in there; exec sleep 1000"]) as process:
            assert process.pid == int(host.run(["pgrep", "-o", "sleep"]).text)
            while "in there" not in process.tail():
                host.pause(0.01)
        verify_inside(host)


def test_a_paravirtualized_xen_guest_really_runs_on_it(climber: Climber, registers: bytes) -> None:
    with climber("testbed/xen/pv") as (*_, dom0, host):
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


KEY = ["stack", "workload", "params", "metric", "block", "arm", "warmup"]
PLAN: dict[str, Any] = {"stacks": ["testbed/chroot"], "workloads": ["cpu-int", "os-nullcall"], "blocks": 2}


@pytest.fixture(scope="module")
def ran(built: Capsule, can: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The plan, by workers on two threads, each with a testbed of its own."""
    return carried_out(tmp_path_factory.mktemp("threads") / "run", built, can, here(built))


def carried_out(folder: Path, built: Capsule, can: Callable[[str], None], place: Place) -> Run:
    can("testbed")
    known = load_workloads()
    plan = load_plan(None, known, **PLAN)
    with Bundle.create(folder, new_run(plan, known, built)) as bundle:
        execute(bundle, known, built, Silent(), place=place)
    assert examine(folder) == []
    return load(folder)


def test_its_figures_hardly_depend_on_the_seed(ran: Run) -> None:
    """The baseline twice in each block, once with process numbers and pages moved; two seeds; chroot beside it."""
    values = ran.samples.groupby(["stack", "workload"])["value"]
    assert len(values) == 4
    assert ((values.max() - values.min()) / values.min()).max() < 1e-2
    assert set(ran.samples["clock"]) == {"instructions"}
    assert not ran.samples["warmup"].any()


def test_two_processes_make_the_bundle_that_one_makes(
    ran: Run, built: Capsule, can: Callable[[str], None], tmp_path: Path
) -> None:
    """Their events are merged: the same cells, work sizes and, to the last digit, figures."""
    other = carried_out(tmp_path / "run", built, can, in_a_process)
    joined = ran.samples.merge(other.samples, on=KEY, how="outer", indicator=True)
    assert (joined["_merge"] == "both").all()
    assert len(joined) == len(ran.samples)
    for name in ("work", "value", "guest_s", "parent_s", "start"):
        assert (joined[f"{name}_x"] == joined[f"{name}_y"]).all(), name
