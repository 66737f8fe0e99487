"""The deterministic testbed, and what really runs on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vbench import load
from vbench.capsule import verify_inside
from vbench.errors import VbenchError

from .conftest import Opener


@pytest.mark.xfail(
    raises=VbenchError,
    strict=False,
    reason="a guest under KVM on the testbed can lock up, at times while it boots: see the README",
)
def test_kvm_really_runs_on_it(opener: Opener) -> None:
    with opener("testbed/kvm") as host:
        assert host.traits["clock"] == "instructions"
        assert "hypervisor" in host.run(["grep", "-m1", "flags", "/proc/cpuinfo"]).text
        sources = "/sys/devices/system/clocksource/clocksource0/available_clocksource"
        assert "kvm-clock" in host.run(["cat", sources]).text
        verify_inside(host)


def test_a_paravirtualized_xen_guest_really_runs_on_it(opener: Opener) -> None:
    with opener("testbed/xen/pv") as host:
        assert host.run(["cat", "/sys/hypervisor/type"]).text == "xen"
        assert host.run(["cat", "/sys/hypervisor/guest_type"]).text == "PV"
        verify_inside(host)


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
