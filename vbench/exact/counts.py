"""What a deterministic machine has executed, as a plugin of its emulator counts it: see ``sources/why.c``."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vbench.hosts.workspace import memory

_SIZE = 8192
_PLACES = ("user", "UML kernel", "kernel", "Xen", "guest user", "guest kernel", "upper")
_EVENTS = (
    *("string iteration", "system call", "hypercall", "page fault", "other exception", "interrupt"),
    *("CR3 write", "TLB flush", "CPUID", "time stamp read", "MSR access", "port access", "HLT"),
    *("VMRUN in a guest", "exit"),
    *("memory access", "MMIO access", "TLB miss, level 1", "TLB miss, level 2"),
    *("cache miss, level 1", "cache miss, level 2"),
)
ENTERED = ("page fault", "other exception", "interrupt")
"""Those that are counted where a kernel is entered."""
MODELLED = _EVENTS[-6:]
"""Those that are counted only if caches are modelled, two of them in fact and not by the model."""
_REASONS = {
    **{0x60: "interrupt", 0x61: "NMI", 0x64: "interrupt window", 0x72: "CPUID", 0x77: "PAUSE", 0x78: "HLT"},
    **{
        0x79: "INVLPG",
        0x7B: "port",
        0x7C: "MSR",
        0x80: "VMRUN",
        0x81: "VMMCALL",
        0x82: "VMLOAD",
        0x83: "VMSAVE",
    },
    **{
        0x84: "STGI",
        0x85: "CLGI",
        0x87: "RDTSCP",
        0x6E: "RDTSC",
        0x8A: "MONITOR",
        0x8B: "MWAIT",
        0x8D: "XSETBV",
    },
    **{0x100: "nested page fault", 0x101: "other"},
}
"""AMD64 Architecture Programmer's Manual, volume 2, appendix C; the last two as in ``why.c``."""
_ENTRIES = {
    "fault": r"asm_exc_page_fault",
    "exception": r"asm_exc_(?!page_fault|nmi|machine_check|xen_hypervisor_callback)\w+",
    "interrupt": r"asm_common_interrupt|asm_sysvec_\w+|asm_exc_xen_hypervisor_callback",
}
"""Linux's entries (arch/x86/include/asm/idtentry.h). Those for Xen's paravirtualized guests go on to them."""

ENTRIES = " asm_(exc|common|sysvec)_"
"""Finds them all in ``/proc/kallsyms``, by grep -E; a kernel of another make has none."""

Counts = Counter[str]
"""By name: instructions by where they are (:data:`vbench.terms.PLACES`), and events."""


class Tally:
    """The counts of one machine, kept in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> Counts:
        """All that has been counted up to now; the machine must stand still."""
        data = self._file.read_bytes()
        numbers = struct.unpack(f"<{len(data) // 8}Q", data)
        first = len(_PLACES) + len(_EVENTS)
        found = Counter(dict(zip(_PLACES + _EVENTS, numbers, strict=False)))
        for place in ("user", "kernel"):  # what ran in a guest was counted by its address, too
            found[place] -= found[f"guest {place}"]
        found["Xen"] -= found["upper"]
        found["guest kernel"] += found.pop("upper", 0)
        for code, number in enumerate(numbers[first:]):
            if number:
                found[f"exit: {_REASONS.get(code, hex(code))}"] += number
        return found


@contextmanager
def tally() -> Iterator[tuple[Tally, Path]]:
    """An empty tally, and its file for the plugin, in memory."""
    with memory() as folder:
        file = folder / "counts"
        file.write_bytes(bytes(_SIZE))
        yield Tally(file), file


def entries(kallsyms: str) -> list[str]:
    """The plugin's arguments for where a kernel is entered, from its ``/proc/kallsyms``."""
    found = []
    for line in kallsyms.splitlines():
        address, _, name = line.split()[:3]
        found += [f"{what}={address}" for what, names in _ENTRIES.items() if re.fullmatch(names, name)]
    return found
