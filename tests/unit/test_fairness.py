"""What counts as unlike between stacks, and what disturbs the machine."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from vbench.errors import VbenchError
from vbench.hosts.local import LocalHost
from vbench.hosts.placement import Cache, Disk, Medium, Network, Placement, Way
from vbench.observe import noise
from vbench.observe.fairness import Finding, unequal
from vbench.observe.machine import Here

UBD = Disk(Medium.RAW_FILE, "ubd", Cache.WRITEBACK)
BASE: dict[str, Any] = {
    "placement": asdict(Placement(1, 512)),
    "cpu_flags": "fpu sse2 avx2",
    "mitigation_mds": "Not affected",
    "preemption": "PREEMPT_DYNAMIC",
    "timer_hz": "250",
    "seccomp": "none",
    "scratch_storage": "dm-0, not rotational, no model told, scheduler none",
}


def test_likes_are_alike() -> None:
    like = {**BASE, "cpu": "another name", "memory_kib": "1"}
    assert unequal({"local": BASE, "local/a": like}, "local") == []
    # What a kernel does not tell of this, and what older runs have not asked, is not compared.
    for name in ("preemption", "timer_hz", "seccomp", "scratch_storage"):
        assert unequal({"local": BASE, "local/a": BASE | {name: "unavailable: no file"}}, "local") == []
        older = {key: value for key, value in BASE.items() if key != name}
        assert unequal({"local": BASE, "local/a": older}, "local") == []
    with pytest.raises(VbenchError, match="no facts of the baseline local/c"):
        unequal({"local": BASE}, "local/c")


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (
            {"placement": asdict(Placement(2, 512))},
            Finding("warning", "local/b", "virtual CPUs: 2; in local: 1"),
        ),
        (
            {"placement": asdict(Placement(1, None))},
            Finding("info", "local/b", "memory: not limited; in local: 512 MiB", ("memory",)),
        ),
        (
            {"placement": asdict(Placement(1, 512, UBD))},
            Finding(
                "warning",
                "local/b",
                "disk path and cache mode: ubd on a raw file, through the parent's page cache; "
                "in local: a folder on the root's file system",
                ("disk",),
            ),
        ),
        (
            {"placement": asdict(Placement(1, 512, network=Network(Way.VIF, "xen-netfront")))},
            Finding(
                "info",
                "local/b",
                "network path: xen-netfront on a Xen vif; in local: loopback",
                ("network",),
            ),
        ),
        (
            {"clocksource": "unavailable: no such file"},
            Finding("info", "local/b", "clock source: not told; in local: unknown", ("os",)),
        ),
        (
            {"timer_hz": "100"},
            Finding(
                "info",
                "local/b",
                "timer frequency, Hz: 100; in local: 250",
                ("cpu", "os", "network", "application"),
            ),
        ),
        (
            {"seccomp": "a filter"},
            Finding(
                "info",
                "local/b",
                "system calls through seccomp: a filter; in local: none",
                ("os", "disk", "network", "application"),
            ),
        ),
        (
            {"scratch_storage": "vdc, rotational, no model told, scheduler [mq-deadline] none"},
            Finding(
                "info",
                "local/b",
                "scheduler of the disk: mq-deadline; in local: none",
                ("disk", "application"),
            ),
        ),
        (
            {"cpu_flags": "fpu sse2 avx2 extra"},
            Finding(
                "info",
                "local/b",
                "CPU flags: 0 of the baseline's are not seen here, 1 others are",
                ("cpu", "memory"),
            ),
        ),
        (
            {"cpu_flags": "fpu"},
            Finding(
                "warning",
                "local/b",
                "CPU flags: 2 of the baseline's are not seen here, 0 others are; programs cannot use avx2",
                ("cpu", "memory"),
            ),
        ),
        (
            {"mitigation_mds": "Vulnerable: no microcode"},
            Finding(
                "warning", "local/b", "mitigations differ: mds (vulnerable; there not affected)", ("os",)
            ),
        ),
        (
            {"clock_offset_s": "+3600.1 within 0.020"},
            Finding("info", "local/b", "its time of day is +3600.1 s from the harness's"),
        ),
        (
            {"files_digest": "ff"},
            Finding("error", "local/b", "the measured programs are not those of local"),
        ),
    ],
)
def test_a_difference_is_found(change: dict[str, Any], finding: Finding) -> None:
    assert unequal({"local": BASE, "local/b": {**BASE, **change}}, "local") == [finding]


def test_what_is_the_parents_own_is_no_difference() -> None:
    """A chroot's disk and network are those of its baseline, whatever these are; read back from a bundle, too."""
    guest = Placement(1, 512, UBD, Network(Way.TAP, "vector"), clock="instructions", slowdown=12)
    written = json.loads(json.dumps({**BASE, "placement": asdict(guest)}))
    host = {**BASE, "placement": asdict(guest)}
    assert unequal({"local/uml": written, "local/uml/chroot": host}, "local/uml") == []
    with_veth = {**BASE, "placement": asdict(replace(guest, network=Network(Way.VETH)))}
    (found,) = unequal({"local/uml": written, "local/uml/x": with_veth}, "local/uml")
    assert found.text == "network path: virtual Ethernet pair; in local/uml: vector on a tap"


def test_a_clock_that_may_be_right_is_not_blamed() -> None:
    slow = {**BASE, "clock_offset_s": "+1.500 within 0.900"}
    assert unequal({"local": BASE, "local/b": slow}, "local") == []


# --- noise

CALM = noise.Reading(at=0, clock=5, steal=0, ticks=0, waited=0, swapped=7, throttled=0, mhz=2000)


def later(seconds: float, **changes: object) -> noise.Reading:
    return replace(CALM, at=seconds, ticks=int(200 * seconds), **changes)  # type: ignore[arg-type]


def test_a_calm_machine_gives_no_finding() -> None:
    watch = noise.Watch(Here(), CALM)
    assert watch.look(later(10, steal=10, waited=1, mhz=2100)) == []
    assert watch.look(later(20, steal=20, waited=2, clock=5.2)) == []


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (later(10, steal=400), "(steal): in 1 of 1 stretches of the run, up to 20%"),
        (later(10, waited=9), "tasks waited for a CPU: in 1 of 1 stretches of the run, up to 90%"),
        (later(10, swapped=9), "the machine swapped 2 pages"),
        (later(10, throttled=3), "throttled 3 times"),
        (later(10, mhz=1500), "from 1500 to 2000 MHz"),
        (later(10, clock=3605), "stepped: by +3600.0 s"),
    ],
)
def test_a_disturbance_is_found(reading: noise.Reading, words: str) -> None:
    ((_, text),) = noise.Watch(Here(), CALM).look(reading)
    assert words in text


def test_what_is_not_kept_is_not_invented() -> None:
    silent = replace(CALM, waited=None, throttled=None, mhz=None)
    assert noise.Watch(Here(), silent).look(replace(silent, at=9)) == []


def test_the_worst_stretch_is_told() -> None:
    watch = noise.Watch(Here(), CALM)
    watch.look(later(10, steal=400, guests=Counter({"linux.uml": 2})))
    found = watch.look(later(20, steal=420, guests=Counter({"linux.uml": 1})))
    assert [text for _, text in found] == [
        "CPU time was withheld by the machine below (steal): in 1 of 2 stretches of the run, up to 20%",
        "other guests ran beside the measurements: linux.uml (2 processes)",
    ]


def test_load_is_told(tmp_path: Path) -> None:
    cpus = len(os.sched_getaffinity(0))
    (tmp_path / "proc").mkdir()

    def found(load: float) -> list[str]:
        (tmp_path / "proc/loadavg").write_text(f"{load:.2f} 9.00 9.00 1/200 4242\n")
        return [text for _, text in noise.before(Here(tmp_path)) if "load" in text]

    assert found(0.4 * cpus) == []
    assert found(3.0 * cpus) == [f"the load average is {3 * cpus:.2f} on {cpus} CPUs before the run"]


def test_this_machine_s_accounting_is_read() -> None:
    reading = noise.read(Here().tell(noise.FILES))
    assert reading.ticks > 0
    assert reading.steal <= reading.ticks
    nothing = noise.read(Here(Path("/nonexistent")).tell(noise.FILES))
    assert nothing == noise.Reading(nothing.at, nothing.clock, 0, 0, None, 0, None, None, nothing.guests)
    assert abs(nothing.clock - reading.clock) < 1


@contextmanager
def program_called(tmp_path: Path, name: str) -> Iterator[Callable[[], list[str]]]:
    path = tmp_path / name
    path.write_bytes(Path("/bin/sleep").read_bytes())
    path.chmod(0o755)
    yield lambda: [str(path), "1000"]


def guests() -> Counter[str]:
    return noise.read(Here().tell(noise.FILES)).guests


def test_guests_of_others_are_seen_and_ours_are_not(tmp_path: Path) -> None:
    import subprocess

    with program_called(tmp_path, "firecracker") as argv:
        before = guests()["firecracker"]
        with LocalHost().spawn(argv()):
            assert guests()["firecracker"] == before
        shell = subprocess.Popen(["setsid", "--fork", *argv()])
        shell.wait()
        try:
            time.sleep(
                0.5
            )  # seen before it has begun to run the program, it would be remembered by another name
            end = time.monotonic() + 20
            while guests()["firecracker"] == before and time.monotonic() < end:
                time.sleep(0.05)
            assert guests()["firecracker"] == before + 1
        finally:
            for process in psutil.process_iter(["exe"]):
                if process.info["exe"] == str(tmp_path / "firecracker"):
                    process.kill()


@pytest.mark.parametrize(
    ("here", "there", "alike"),
    [
        ("always madvise [never]", "[always] madvise never", False),
        ("[always] madvise never", "[always] madvise never", True),
        ("unavailable: no such file", "always madvise [never]", True),  # a kernel without them takes none
        ("unavailable: no such file", "[always] madvise never", False),
    ],
)
def test_huge_pages_are_compared_by_the_choice_made(here: str, there: str, alike: bool) -> None:
    facts = {"local": {**BASE, "huge_pages": there}, "local/b": {**BASE, "huge_pages": here}}
    found = unequal(facts, "local")
    assert (found == []) == alike
    if not alike:
        chosen = "always" if here.startswith("[always]") else "never"
        assert found[0].text == f"transparent huge pages: {chosen}; in local: always"
        assert found[0].severity == "warning"


def test_a_peer_in_another_place_is_a_warning_for_network_only() -> None:
    facts = {"local/uml": {**BASE, "peer": "the machine"}, "local/uml/chroot": {**BASE, "peer": "local/uml"}}
    (found,) = unequal(facts, "local/uml")
    assert (found.severity, found.kinds) == ("warning", ("network",))
    assert found.text == "where the other end of the network runs: local/uml; in local/uml: the machine"
