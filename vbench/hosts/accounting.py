"""What a process and all its descendants use, read by a shell where they run: for parents over SSH."""

from __future__ import annotations

from pathlib import Path

from vbench.hosts.base import Usage
from vbench.hosts.command import script

TICKS = 100
"""Ticks of a second in /proc/PID/stat, on every Linux of this architecture (proc(5), sysconf(3))."""
SCRIPT = script(Path(__file__).parent / "scripts/accounting.sh")


def argv(pid: int | str, *, pss: bool = False) -> list[str]:
    """The command that runs the script for a process; ``pss`` asks for that, too."""
    return ["sh", "-c", SCRIPT, "procs", str(pid), *(["pss"] if pss else [])]


def totals(text: str) -> dict[str, int]:
    """What the script printed: ticks of CPU, those of children that have ended included; rss in pages; pss in
    KiB; ran, nanoseconds of CPU of the threads that live; switches; read and written, bytes of storage."""
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def usage(text: str) -> Usage | None:
    """The same as a :class:`vbench.hosts.base.Usage`, or ``None`` where there is no telling."""
    found = totals(text)
    if "ticks" not in found:
        return None
    cpu, rss = found["ticks"] / TICKS, found["rss"] * 4096
    return Usage(cpu, rss, found.get("switches"), found.get("read"), found.get("written"))
