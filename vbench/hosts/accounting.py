"""What a process and all its descendants use, read by a shell script on the host where they run."""

from __future__ import annotations

from pathlib import Path

from vbench.hosts.base import Payload, Usage
from vbench.hosts.command import script

TICKS = 100
"""Ticks per second in /proc/PID/stat, on every Linux of this architecture (proc(5), sysconf(3))."""
SCRIPT = script(Path(__file__).parent / "scripts/accounting.sh")


def argv(pid: int | str, *, pss: bool = False) -> list[str]:
    """The command that runs the script for a process; ``pss`` asks for PSS as well."""
    return ["sh", "-c", SCRIPT, "procs", str(pid), *(["pss"] if pss else [])]


def totals(text: str) -> dict[str, int]:
    """What the script printed: ticks, CPU time including children that have ended; rss in pages; pss in KiB;
    ran, nanoseconds of CPU time of live threads; switches; read and written, bytes of storage I/O."""
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def usage(text: str, payload: Payload | None = None) -> Usage | None:
    """The same as a :class:`vbench.hosts.base.Usage`, or ``None`` if the kernel does not report it.

    ``payload``: that of the host, by which the size of its pages is known."""
    found = totals(text)
    if "ticks" not in found:
        return None
    cpu, rss = found["ticks"] / TICKS, found["rss"] * (payload.page if payload else Payload.page)
    return Usage(cpu, rss, found.get("switches"), found.get("read"), found.get("written"))
