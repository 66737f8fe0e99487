"""Facts: those of this machine against what it says elsewhere, and what counts as unlike."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil
import pytest

from vbench import facts
from vbench.errors import VbenchError
from vbench.local import LocalHost


def test_of_this_machine(tmp_path: Path) -> None:
    host = LocalHost(scratch=str(tmp_path), traits={"disk": "a folder", "vcpus": "1"})
    found = facts.collect(host)
    assert found["kernel"] == f"{platform.system()} {platform.release()}"
    assert found["machine"] == platform.machine()
    assert found["command_line"] == Path("/proc/cmdline").read_text().rstrip("\n")
    assert int(found["cpus"]) == sum(
        line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines()
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    assert int(found["memory_kib"]) == memory
    above = [part for part in psutil.disk_partitions(all=True) if tmp_path.is_relative_to(part.mountpoint)]
    nearest = max(above, key=lambda part: len(part.mountpoint))
    assert found["scratch_file_system"].split(" on ")[0] == nearest.fstype
    assert (found["trait_disk"], found["trait_vcpus"]) == ("a folder", "1")


def test_unknown_is_absent() -> None:
    found = facts.collect(LocalHost(scratch="/nonexistent"))
    assert "scratch_file_system" not in found
    assert all(value and "\t" not in value and "\n" not in value for value in found.values())


def test_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "getloadavg", lambda: (0.4 * cpus, 9.0, 9.0))
    assert facts.noise() == []
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0 * cpus, 0.0, 0.0))
    assert facts.noise() == [f"the load average is {3 * cpus:.2f} on {cpus} CPUs before the run"]


def test_unequal() -> None:
    base = {"trait_vcpus": "1", "trait_memory": "512 MiB", "kernel": "Linux 6.1"}
    like = {**base, "kernel": "Linux 6.2"}
    other = {**base, "trait_memory": "not limited", "trait_disk": "ubd"}
    assert facts.unequal({"local": base, "local/a": like}, "local") == []
    assert facts.unequal({"local": base, "local/a": like, "local/b": other}, "local") == [
        ("local/b", "memory: not limited; in local: 512 MiB"),
        ("local/b", "disk path: ubd; in local: unknown"),
    ]
    with pytest.raises(VbenchError, match="no facts of the baseline local/c"):
        facts.unequal({"local": base}, "local/c")
