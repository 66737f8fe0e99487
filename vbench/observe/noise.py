"""What on this machine disturbs measurements: checked before a run, and watched during it.

The thresholds are judgements, not measurements: below them a disturbance is lost in how much the baseline
differs from itself, which the report states for every cell.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import psutil

from vbench.layers.base import layer_classes

Finding = tuple[Literal["info", "warning"], str]

LOAD = 0.5
"""Load average per CPU before a run."""
STEAL = 0.01
"""Share of CPU time stolen by the machine below."""
WAITING = 0.2
"""Share of time during which some task waited for a CPU (the kernel's pressure stall information)."""
DRIFT = 0.1
"""Relative range of the CPU frequency."""
STEP_S = 0.5
"""Seconds by which the time of day and the monotonic clock may drift apart."""

# Programs that run guests by techniques that vbench has no layer for; layers name their own.
_OTHERS = ("firecracker", r"cloud-hypervis\w*", "VBoxHeadless", "VirtualBoxVM", "vmware-vmx", "runsc-sandbox")


@cache
def _guests() -> re.Pattern[str]:
    """Names of programs that run guests."""
    ours = (name for layer in layer_classes().values() for name in layer.processes)
    return re.compile("|".join((*ours, *_OTHERS)))


@dataclass(frozen=True)
class Reading:
    """The machine's own accounting at one moment; ``None`` where it has none."""

    at: float
    clock: float  # time of day minus monotonic clock
    steal: int
    ticks: int
    waited: float | None  # seconds during which some task waited for a CPU
    swapped: int  # pages, in and out
    throttled: int | None
    mhz: float | None


def read(root: Path = Path("/")) -> Reading:
    """Take a reading now; ``root`` is the directory that contains proc and sys."""
    at = time.monotonic()
    clock = time.time() - at
    words = next((line for line in _lines(root / "proc/stat") if line.startswith("cpu ")), "cpu").split()[1:]
    ticks = [int(word) for word in words[:8]]  # user time already includes guest time
    waited = re.search(r"^some .*total=(\d+)", "\n".join(_lines(root / "proc/pressure/cpu")), re.MULTILINE)
    swaps = [
        line.split()[1] for line in _lines(root / "proc/vmstat") if line.startswith(("pswpin ", "pswpout "))
    ]
    cpus = root / "sys/devices/system/cpu"
    counts = [
        int(line) for path in cpus.glob("cpu*/thermal_throttle/*_throttle_count") for line in _lines(path)
    ]
    mhz = [
        float(line.rpartition(":")[2]) for line in _lines(root / "proc/cpuinfo") if line.startswith("cpu MHz")
    ]
    return Reading(
        at,
        clock,
        ticks[7] if len(ticks) > 7 else 0,
        sum(ticks),
        int(waited[1]) / 1e6 if waited else None,
        sum(map(int, swaps)),
        sum(counts) if counts else None,
        sum(mhz) / len(mhz) if mhz else None,
    )


def before() -> list[Finding]:
    """What could disturb a run that is about to start."""
    found: list[Finding] = []
    load, cpus = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > LOAD * cpus:
        found.append(("warning", f"the load average is {load:.2f} on {cpus} CPUs before the run"))
    if others := other_guests():
        found.append(("warning", f"other guests run on this machine: {_counted(others)}"))
    governors = {
        line
        for path in Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor")
        for line in _lines(path)
    }
    if governors - {"performance"}:
        text = f"the processor's frequency is governed by {', '.join(sorted(governors))}, not performance"
        found.append(("info", text))
    return found


def other_guests() -> Counter[str]:
    """Number of processes that run a guest and were not started by this process, by program."""
    mine, found = {os.getpid()}, Counter[str]()
    for process in psutil.process_iter(["name", "exe", "ppid"]):
        known = process.info
        if known["ppid"] in mine:
            mine.add(process.pid)  # parents come before their children, unless PIDs were reused
            continue
        name = Path(known["exe"] or known["name"] or "").name
        found[name] += process.pid not in mine and _guests().fullmatch(name) is not None
    return +found


def _counted(guests: Counter[str]) -> str:
    return ", ".join(f"{name} ({count} processes)" for name, count in sorted(guests.items()))


class Watch:
    """Watches the machine from construction on; call ``look()`` after each block."""

    def __init__(self, first: Reading | None = None) -> None:
        self._readings = [first or read()]
        self._guests = Counter[str]()

    def look(self, reading: Reading | None = None, guests: Counter[str] | None = None) -> list[Finding]:
        """End an interval; returns what has disturbed the machine so far, each kind once."""
        self._readings.append(reading or read())
        self._guests |= other_guests() if guests is None else guests  # the maximum seen at once
        found: list[Finding] = []
        pairs = list(zip(self._readings, self._readings[1:], strict=False))

        def worst(what: str, bound: float, shares: list[float]) -> None:
            over = [share for share in shares if share > bound]
            if over:
                text = f"{what}: in {len(over)} of {len(shares)} stretches of the run, up to {max(over):.0%}"
                found.append(("warning", text))

        worst(
            "CPU time was withheld by the machine below (steal)",
            STEAL,
            [(b.steal - a.steal) / max(1, b.ticks - a.ticks) for a, b in pairs],
        )
        waits = [
            (b.waited - a.waited, b.at - a.at)
            for a, b in pairs
            if a.waited is not None and b.waited is not None
        ]
        worst("tasks waited for a CPU", WAITING, [waited / max(1e-3, span) for waited, span in waits])
        first, last = self._readings[0], self._readings[-1]
        if last.swapped > first.swapped:
            found.append(("warning", f"the machine swapped {last.swapped - first.swapped} pages"))
        if first.throttled is not None and last.throttled is not None and last.throttled > first.throttled:
            text = f"the processor was throttled {last.throttled - first.throttled} times, for heat or power"
            found.append(("warning", text))
        mhz = [each.mhz for each in self._readings if each.mhz]
        if mhz and max(mhz) > (1 + DRIFT) * min(mhz):
            found.append(
                ("info", f"the processor's frequency was seen from {min(mhz):.0f} to {max(mhz):.0f} MHz")
            )
        steps = [b.clock - a.clock for a, b in pairs if abs(b.clock - a.clock) > STEP_S]
        if steps:
            text = (
                f"the machine's time of day was stepped: by {', '.join(f'{step:+.1f} s' for step in steps)}"
            )
            found.append(("warning", f"{text}; vbench measures by the monotonic clock, which was not"))
        if self._guests:
            found.append(("warning", f"other guests ran beside the measurements: {_counted(self._guests)}"))
        return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
