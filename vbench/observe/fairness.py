"""Whether stacks were treated alike: what differs from the baseline, how serious it is, what it affects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from vbench.errors import VbenchError
from vbench.hosts.placement import Cache, Disk, Medium, Network, Placement, Way

UNKNOWN = "unavailable: "
_PLACEMENT = TypeAdapter(Placement)
CLOCK_S = 1.0
"""Seconds by which a guest's time of day may differ from the harness's."""
_WIDE = re.compile(r"avx\w*|sse4\w*|ssse3|aes|fma|sha_ni|vaes|gfni")


@dataclass(frozen=True)
class Finding:
    """One difference of ``stack`` from its baseline; ``kinds`` of workloads affected, empty for all."""

    severity: Literal["info", "warning", "error"]
    stack: str
    text: str
    kinds: tuple[str, ...] = ()


Severity = Literal["info", "warning"]

# Parts of a placement that should be equal; how serious a difference is, and which workloads it affects.
_PLACED: tuple[tuple[str, str, Severity, tuple[str, ...]], ...] = (
    ("vcpus", "virtual CPUs", "warning", ()),
    ("memory_mib", "memory", "info", ("memory",)),
    ("disk", "disk path and cache mode", "warning", ("disk",)),
    ("network", "network path", "info", ("network",)),
)
# Facts that should be equal, too.
_EQUAL: tuple[tuple[str, str, Severity, tuple[str, ...]], ...] = (
    ("peer", "where the other end of the network runs", "warning", ("network",)),
    ("clocksource", "clock source", "info", ("os",)),
    ("kernel", "kernel", "info", ("os", "disk", "network")),
)
# Those that are compared where both kernels tell them.
_TOLD: tuple[tuple[str, str, Severity, tuple[str, ...]], ...] = (
    ("preemption", "preemption", "info", ("os", "network", "application")),
    ("timer_hz", "timer frequency, Hz", "info", ("cpu", "os", "network", "application")),
    ("seccomp", "system calls through seccomp", "info", ("os", "disk", "network", "application")),
    ("scheduler", "scheduler of the disk", "info", ("disk", "application")),
)


def unequal(facts: Mapping[str, Mapping[str, Any]], baseline: str) -> list[Finding]:
    """Where stacks differ from their baseline in what should be equal, given the facts of each.

    Raises ``VbenchError`` if the baseline's facts are missing.
    """
    if baseline not in facts:
        raise VbenchError(f"no facts of the baseline {baseline}")
    base = facts[baseline]
    found: list[Finding] = []
    for stack, mine in facts.items():
        if stack == baseline:
            continue
        found += _placed(stack, mine, base, baseline)
        for key, meaning, severity, kinds in _EQUAL:
            here, there = str(mine.get(key, "unknown")), str(base.get(key, "unknown"))
            if here.startswith(UNKNOWN):
                here = "not told"
            if here != there:
                found.append(Finding(severity, stack, f"{meaning}: {here}; in {baseline}: {there}", kinds))
        for key, meaning, severity, kinds in _TOLD:
            ours, theirs = _setting(mine, key), _setting(base, key)
            if None not in (ours, theirs) and ours != theirs:
                found.append(Finding(severity, stack, f"{meaning}: {ours}; in {baseline}: {theirs}", kinds))
        found += [*_flags(stack, mine, base), *_mitigations(stack, mine, base), *_clock(stack, mine)]
        found += _huge_pages(stack, mine, base, baseline)
        found += _files(stack, mine, base, baseline)
    return found


def _setting(facts: Mapping[str, Any], key: str) -> str | None:
    """A setting of a kernel's; ``None`` if it is not told."""
    if key == "scheduler":
        chosen = re.search(r"scheduler (?:.*\[([\w-]+)\]|none$)", str(facts.get("scratch_storage", "")))
        return chosen[1] or "none" if chosen else None
    told = str(facts.get(key, UNKNOWN))  # older runs have not asked
    return None if told.startswith(UNKNOWN) else told


def _placed(stack: str, mine: Mapping[str, Any], base: Mapping[str, Any], baseline: str) -> Iterator[Finding]:
    """Resources allocated differently. What a layer leaves alone is the parent's, and equal."""
    here, there = _placement(mine), _placement(base)
    if here is None or there is None:
        return
    for name, meaning, severity, kinds in _PLACED:
        ours, theirs = getattr(here, name), getattr(there, name)
        if ours != theirs:
            text = f"{meaning}: {_said(name, ours)}; in {baseline}: {_said(name, theirs)}"
            yield Finding(severity, stack, text, kinds)


def _placement(facts: Mapping[str, Any]) -> Placement | None:
    """The placement in a host's facts, possibly read back from a file; older runs have none."""
    return _PLACEMENT.validate_python(facts["placement"]) if "placement" in facts else None


_MEDIA = {
    Medium.FOLDER: "a folder on the root's file system",
    Medium.RAW_FILE: "a raw file",
    Medium.LOOP_DEVICE: "a loop device",
    Medium.TIMED_MEMORY: "ext4 in the testbed's own memory, with a fixed service time",
}
_CACHES = {
    Cache.NONE: ", cache=none",
    Cache.WRITEBACK: ", through the parent's page cache",
    Cache.WRITETHROUGH: ", through the parent's page cache, each write to storage",
    Cache.UNSAFE: ", through the parent's page cache, flushes ignored",
    None: "",
}
_PATHS = {
    Way.LOOPBACK: "loopback",
    Way.VETH: "virtual Ethernet pair",
    Way.TAP: "a tap",
    Way.USER_MODE: "QEMU's user-mode network",
    Way.NAT: "a network of the hypervisor's own",
    Way.VIF: "a Xen vif",
}


def _said(name: str, value: Disk | Network | int | None) -> str:
    """Part of a placement in words."""
    match value:
        case None:
            return "not limited"
        case Disk(medium, driver, cache):
            return f"{driver}{' on ' if driver else ''}{_MEDIA[medium]}{_CACHES[cache]}"
        case Network(path, driver):
            return f"{driver}{' on ' if driver else ''}{_PATHS[path]}"
    return f"{value} MiB" if name == "memory_mib" else str(value)


def _flags(stack: str, mine: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[Finding]:
    here, there = (str(facts.get("cpu_flags", UNKNOWN)) for facts in (mine, base))
    if here.startswith(UNKNOWN) or there.startswith(UNKNOWN):
        return
    lacks, has = {*there.split()} - {*here.split()}, {*here.split()} - {*there.split()}
    if lacks | has:
        wide = sorted(flag for flag in lacks if _WIDE.fullmatch(flag))
        text = f"CPU flags: {len(lacks)} of the baseline's are not seen here, {len(has)} others are"
        if wide:
            text += f"; programs cannot use {', '.join(wide[:6])}{' and more' if len(wide) > 6 else ''}"
        yield Finding("warning" if wide else "info", stack, text, ("cpu", "memory"))


def _mitigations(stack: str, mine: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[Finding]:
    """CPU vulnerabilities whose status, up to the first colon or semicolon, differs between the kernels."""

    def states(facts: Mapping[str, Any]) -> dict[str, str]:
        keys = (key for key in facts if key.startswith("mitigation_"))
        return {key.removeprefix("mitigation_"): re.split(r"[:;]", str(facts[key]))[0] for key in keys}

    here, there = states(mine), states(base)
    if bool(here) != bool(there):
        who = "this kernel" if there else "the baseline's kernel"
        yield Finding("info", stack, f"mitigations: {who} does not tell its own", ("os",))
        return
    other = sorted(name for name in here.keys() & there.keys() if here[name] != there[name])
    if other:
        shown = [f"{name} ({here[name].lower()}; there {there[name].lower()})" for name in other[:4]]
        text = (
            f"mitigations differ: {', '.join(shown)}{f' and {len(other) - 4} more' if len(other) > 4 else ''}"
        )
        yield Finding("warning", stack, text, ("os",))


def _huge_pages(
    stack: str, mine: Mapping[str, Any], base: Mapping[str, Any], baseline: str
) -> Iterator[Finding]:
    """The two kernels' settings for transparent huge pages; one without the feature counts as ``never``."""

    def choice(facts: Mapping[str, Any]) -> str | None:
        if "huge_pages" not in facts:
            return None
        chosen = re.search(r"\[(\w+)\]", str(facts["huge_pages"]))
        return chosen[1] if chosen else "never"

    here, there = choice(mine), choice(base)
    if None not in (here, there) and here != there:
        text = f"transparent huge pages: {here}; in {baseline}: {there}"
        yield Finding("warning", stack, text, ("memory", "os", "application"))


def _clock(stack: str, mine: Mapping[str, Any]) -> Iterator[Finding]:
    match = re.fullmatch(r"([+-][\d.]+) within ([\d.]+)", str(mine.get("clock_offset_s", "")))
    if match and abs(float(match[1])) - float(match[2]) > CLOCK_S:
        yield Finding("info", stack, f"its time of day is {float(match[1]):+.1f} s from the harness's")


def _files(stack: str, mine: Mapping[str, Any], base: Mapping[str, Any], baseline: str) -> Iterator[Finding]:
    """Cannot happen: digests are checked before anything is measured."""
    if mine.get("files_digest") != base.get("files_digest"):
        yield Finding("error", stack, f"the measured programs are not those of {baseline}")
