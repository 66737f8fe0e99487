"""What on a machine disturbs measurements: checked before a run, and watched during it.

The thresholds are judgements, not measurements: below them a disturbance is lost in how much the baseline
differs from itself, which the report states for every cell.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from vbench.layers.base import layer_classes
from vbench.observe.machine import Machine, Told

Finding = tuple[Literal["info", "warning"], str]
_CPU = "sys/devices/system/cpu"

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
    guests: Counter[str] = field(default_factory=Counter)  # processes that run a guest and are not ours


FILES = (
    "proc/stat",
    "proc/pressure/cpu",
    "proc/vmstat",
    "proc/cpuinfo",
    "proc/loadavg",
    f"{_CPU}/cpu*/thermal_throttle/*_throttle_count",
    f"{_CPU}/cpu*/cpufreq/scaling_governor",
)
"""What a machine is asked for."""


def read(told: Told) -> Reading:
    """The reading in what a machine tells."""
    words = next((line for line in told.lines("proc/stat") if line.startswith("cpu ")), "cpu").split()[1:]
    ticks = [int(word) for word in words[:8]]  # user time already includes guest time
    waited = re.search(r"^some .*total=(\d+)", told.files.get("proc/pressure/cpu", ""), re.MULTILINE)
    swaps = [
        line.split()[1] for line in told.lines("proc/vmstat") if line.startswith(("pswpin ", "pswpout "))
    ]
    counts = [int(line) for line in told.matching(f"{_CPU}/cpu*/thermal_throttle/*_throttle_count")]
    mhz = [
        float(line.rpartition(":")[2]) for line in told.lines("proc/cpuinfo") if line.startswith("cpu MHz")
    ]
    return Reading(
        told.at,
        told.date - told.at,
        ticks[7] if len(ticks) > 7 else 0,
        sum(ticks),
        int(waited[1]) / 1e6 if waited else None,
        sum(map(int, swaps)),
        sum(counts) if counts else None,
        sum(mhz) / len(mhz) if mhz else None,
        Counter({name: count for name, count in (told.programs or {}).items() if _guests().fullmatch(name)}),
    )


def before(machine: Machine) -> list[Finding]:
    """What could disturb a run that is about to start."""
    found: list[Finding] = []
    told = machine.tell(FILES)
    load = float((told.lines("proc/loadavg") or ["0"])[0].split()[0])
    if load > LOAD * machine.cpus:
        found.append(("warning", f"the load average is {load:.2f} on {machine.cpus} CPUs before the run"))
    if others := read(told).guests:
        found.append(("warning", f"other guests run on this machine: {_counted(others)}"))
    governors = {*told.matching(f"{_CPU}/cpu*/cpufreq/scaling_governor")}
    if governors - {"performance"}:
        text = f"the processor's frequency is governed by {', '.join(sorted(governors))}, not performance"
        found.append(("info", text))
    return found


def _counted(guests: Counter[str]) -> str:
    return ", ".join(f"{name} ({count} processes)" for name, count in sorted(guests.items()))


class Watch:
    """Watches a machine from construction on; call ``look()`` after each block."""

    def __init__(self, machine: Machine, first: Reading | None = None) -> None:
        self._machine = machine
        self._readings = [first or self._read()]

    def _read(self) -> Reading:
        return read(self._machine.tell(FILES))

    def look(self, reading: Reading | None = None) -> list[Finding]:
        """End an interval; returns what has disturbed the machine so far, each kind once."""
        self._readings.append(reading or self._read())
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
        guests = Counter[str]()
        for each in self._readings[1:]:
            guests |= each.guests  # the maximum seen at once
        if guests:
            found.append(("warning", f"other guests ran beside the measurements: {_counted(guests)}"))
        return found
