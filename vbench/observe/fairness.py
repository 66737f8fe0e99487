"""Whether stacks were treated alike: what differs from the baseline, how grave it is, and whom it touches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vbench.errors import VbenchError

UNKNOWN = "unavailable: "
CLOCK_S = 1.0
"""Seconds that a guest's time of day may differ from the harness's."""
_WIDE = re.compile(r"avx\w*|sse4\w*|ssse3|aes|fma|sha_ni|vaes|gfni")


@dataclass(frozen=True)
class Finding:
    """One difference of ``stack`` from its baseline; ``kinds`` of workloads that it touches, empty for all."""

    severity: Literal["info", "warning", "error"]
    stack: str
    text: str
    kinds: tuple[str, ...] = ()


# Traits that layers state, and facts, which should be equal; whom a difference touches, and how gravely. A layer that
# gives its parent's own disk or network hands on what the parent states of it.
_EQUAL: tuple[tuple[str, str, Literal["info", "warning"], tuple[str, ...]], ...] = (
    ("trait_vcpus", "virtual CPUs", "warning", ()),
    ("trait_memory", "memory", "info", ("memory",)),
    ("trait_disk", "disk path and cache mode", "warning", ("disk",)),
    ("trait_network", "network path", "info", ("network",)),
    ("peer", "where the other end of the network runs", "warning", ("network",)),
    ("clocksource", "clock source", "info", ("os",)),
    ("kernel", "kernel", "info", ("os", "disk", "network")),
)


def unequal(facts: Mapping[str, Mapping[str, Any]], baseline: str) -> list[Finding]:
    """Where stacks differ from their baseline in what should be equal, by the facts of each.

    Raises ``VbenchError`` when the baseline's facts are missing.
    """
    if baseline not in facts:
        raise VbenchError(f"no facts of the baseline {baseline}")
    base = facts[baseline]
    found = []
    for stack, mine in facts.items():
        if stack == baseline:
            continue
        for key, meaning, severity, kinds in _EQUAL:
            here, there = str(mine.get(key, "unknown")), str(base.get(key, "unknown"))
            if here.startswith(UNKNOWN):
                here = "not told"
            if here != there:
                found.append(Finding(severity, stack, f"{meaning}: {here}; in {baseline}: {there}", kinds))
        found += [*_flags(stack, mine, base), *_mitigations(stack, mine, base), *_clock(stack, mine)]
        found += _huge_pages(stack, mine, base, baseline)
        found += _files(stack, mine, base, baseline)
    return found


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
    """Processor faults that the two kernels guard against in different degree: the first word tells."""

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
    """Which choice the two kernels made of transparent huge pages; one without them never takes any."""

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
    """What cannot be: digests are checked before anything is measured."""
    if mine.get("files_digest") != base.get("files_digest"):
        yield Finding("error", stack, f"the measured programs are not those of {baseline}")
