"""Facts: those of this machine against what it says elsewhere, and how what cannot be read is told."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import TypeAdapter

from vbench.hosts.base import Argv, Result
from vbench.hosts.local import LocalHost
from vbench.hosts.placement import Cache, Disk, Medium, Placement
from vbench.observe import facts

PLACEMENT = Placement(vcpus=1, disk=Disk(Medium.RAW_FILE, "ubd", Cache.WRITEBACK))


def test_of_this_machine(tmp_path: Path) -> None:
    host = LocalHost(scratch=str(tmp_path), placement=PLACEMENT)
    found = facts.collect(host, results=tmp_path)
    assert found["kernel"] == f"{platform.system()} {platform.release()}"
    assert found["kernel_build"] == platform.version()
    assert found["machine"] == platform.machine()
    assert found["command_line"] == " ".join(Path("/proc/cmdline").read_text().split())
    assert int(found["cpus"]) == sum(
        line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines()
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    assert int(found["memory_kib"]) == memory
    above = [part for part in psutil.disk_partitions(all=True) if tmp_path.is_relative_to(part.mountpoint)]
    nearest = max(above, key=lambda part: len(part.mountpoint))
    assert found["scratch_file_system"].split(" on ")[0] == nearest.fstype
    assert found["results_file_system"] == found["scratch_file_system"]
    assert found["results_storage"] == found["scratch_storage"]
    written = json.loads(json.dumps(found["placement"]))
    assert written["disk"] == {"medium": "raw-file", "driver": "ubd", "cache": "writeback"}
    assert (written["vcpus"], written["memory_mib"], written["slowdown"]) == (1, None, 1.0)
    assert TypeAdapter(Placement).validate_python(written) == PLACEMENT
    offset, _, within = found["clock_offset_s"].partition(" within ")
    assert abs(float(offset)) <= float(within) + 0.001


@pytest.mark.parametrize(
    ("seconds", "hz", "expected"),
    [
        (12.5, 250, "250"),
        (12.5, 1000, "1000"),
        (290, 100, "100"),
        (86_400, 300, "300"),
        (40_000_000, 250, "250"),
    ],
)
def test_the_timer_s_frequency_follows_from_jiffies(
    seconds: float, hz: int, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Which a kernel counts from five minutes before 32 bits of them are full; the list shows 64 bits."""
    jiffies = 2**32 - 300 * hz + round(seconds * hz)
    listed = f"Timer List Version: v0.9\nnow at {round(seconds * 1e9)} nsecs\n\ncpu: 0\n jiffies: {jiffies}\n"
    (tmp_path / "timer_list").write_text(listed)
    monkeypatch.setattr(facts, "_TIMERS", str(tmp_path / "timer_list"))
    monkeypatch.setattr(facts, "_PROC", (*facts._PROC[:-1], str(tmp_path / "timer_list")))
    assert facts.collect(LocalHost(scratch=str(tmp_path)))["timer_hz"] == expected


def test_settings_of_this_kernel(tmp_path: Path) -> None:
    found = facts.collect(LocalHost(scratch=str(tmp_path)))
    assert found["seccomp"] in ("none", "a filter")
    assert found["preemption"] in platform.version() or found["preemption"] == "none or voluntary"
    config = Path(f"/boot/config-{platform.release()}")
    if config.is_file() and not found["timer_hz"].startswith("unavailable"):
        assert f"CONFIG_HZ={found['timer_hz']}\n" in config.read_text()


def test_one_command_reads_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, asked = LocalHost(scratch=str(tmp_path)), []
    run = host.run

    def counted(argv: Argv, **rest: Any) -> Result:
        asked.append(argv)
        return run(argv, **rest)

    monkeypatch.setattr(host, "run", counted)
    facts.collect(host)
    assert len(asked) == 1


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    found = facts.collect(LocalHost(scratch="/nonexistent"))
    assert found["scratch_file_system"] == "unavailable: /nonexistent cannot be entered"
    assert all(value and "\t" not in value and "\n" not in value for value in found.values())
    for key, path in (("hypervisor", "/sys/hypervisor/type"), ("product", "/sys/class/dmi/id/product_name")):
        if not Path(path).exists():
            assert found[key] == f"unavailable: {path}: No such file or directory"
    same = facts.collect(LocalHost(scratch=str(tmp_path)))
    assert same.keys() == found.keys()


def test_a_folder_with_an_odd_name_is_only_a_folder(tmp_path: Path) -> None:
    odd = tmp_path / "-n $(touch x) ';\"\\040"
    odd.mkdir()
    found = facts.collect(LocalHost(scratch=str(odd)))
    assert not found["scratch_file_system"].startswith("unavailable")


FLAGS = "vendor_id\t: GenuineIntel\nflags\t\t: fpu vme hypervisor sse2\n"


@pytest.mark.parametrize(
    ("content", "begins"),
    [
        ({}, "no sign of it"),
        ({"/proc/cpuinfo": FLAGS.replace(" hypervisor", "")}, "no sign of it"),
        ({"/proc/cpuinfo": FLAGS}, "yes, by a hypervisor that does not say its name"),
        ({"/proc/cpuinfo": "vendor_id\t: User Mode Linux\n"}, "uml"),
        ({"/proc/cpuinfo": "model\t\t: IBM PowerNV (emulated by qemu)\n"}, "qemu (/proc"),
        (
            {"/proc/cpuinfo": "model\t\t: IBM pSeries (emulated by qemu)\n"},
            "qemu, of which this is a partition",
        ),
        ({"/proc/sysinfo": "Manufacturer:         HRC\n"}, "hercules (/proc/sysinfo)"),
        ({"/proc/sysinfo": "Manufacturer:  HRC\n\nVM00 Control Program: KVM/Linux\n"}, "kvm (/proc"),
        ({"/proc/sysinfo": "Manufacturer:  IBM\n\nVM00 Control Program: z/VM    7.3.0\n"}, "z/VM (/proc"),
        ({"/proc/cpuinfo": FLAGS, "/sys/class/dmi/id/product_name": "KVM\n"}, "kvm"),
        ({"/proc/cpuinfo": FLAGS, "/sys/class/dmi/id/sys_vendor": "QEMU"}, "qemu"),
        ({"/sys/class/dmi/id/product_name": "VirtualBox"}, "virtualbox"),
        ({"/sys/class/dmi/id/product_name": "Virtual Machine"}, "hyper-v"),
        ({"/sys/class/dmi/id/product_name": "ThinkPad X1"}, "no sign of it"),
        ({"/proc/cpuinfo": FLAGS, "CPUID leaf 0x40000000": "VMwareVMware"}, "vmware (CPUID"),
        ({"/proc/cpuinfo": FLAGS, "CPUID leaf 0x40000000": "Microsoft Hv"}, "hyper-v (CPUID"),
        ({"/proc/cpuinfo": FLAGS, "CPUID leaf 0x40000000": " lrpepyh vr"}, "parallels (CPUID"),
        ({"/proc/cpuinfo": FLAGS, "CPUID leaf 0x40000000": "GenuineIntel"}, "yes, by a hypervisor"),
        ({"/sys/hypervisor/type": "xen", "/sys/class/dmi/id/product_name": "HVM domU"}, "xen"),
        (
            {"/proc/xen/capabilities": "control_d\n", "/sys/hypervisor/type": "xen"},
            "xen, of which this is dom0",
        ),
        (
            {
                "/proc/cpuinfo": FLAGS,
                "/sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc kvm-clock",
            },
            "kvm",
        ),
    ],
)
def test_virtualization_below(content: dict[str, str], begins: str) -> None:
    assert facts.virtualization(content).startswith(begins)


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_the_commit_of_the_harness(tmp_path: Path) -> None:
    host = LocalHost()
    assert facts.harness(host, tmp_path) == "unavailable: vbench does not run from a checkout"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert facts.harness(host, tmp_path).startswith("unavailable: git: ")
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert facts.harness(host, tmp_path) == commit
    (tmp_path / "file").write_text("2")
    assert facts.harness(host, tmp_path) == f"{commit}-dirty"
