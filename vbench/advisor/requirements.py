"""Needs: what a user requires of a technique, judged by what the catalogue documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from vbench.advisor import catalog
from vbench.advisor.catalog import UNKNOWN, Entry
from vbench.errors import UsageError

Answer = Literal["met", "not met", "unknown"]
Scope = Literal["innermost", "any", "all", "kernel"]


@dataclass(frozen=True)
class Need:
    """One need: the ``fact`` that decides it, the ``good`` values that meet it, the ``scope`` of layers that count.

    Scopes: "innermost", the layer that programs run in; "kernel", the innermost layer with a kernel of its own;
    "any", one layer is enough, because it carries along everything inside it; "all", every layer must meet the need.
    """

    name: str
    about: str
    fact: str
    good: frozenset[str]
    scope: Scope
    clauses: Mapping[str, str]  # each value as a clause that follows the entry's name


NEEDS: dict[str, Need] = {
    need.name: need
    for need in (
        Need(
            name="other-os",
            about="run another operating system than the host's",
            fact="other_os",
            good=frozenset({"yes", "ported"}),
            scope="innermost",
            clauses={
                "yes": "runs other systems",
                "ported": "runs other systems that were ported to it",
                "no": "runs no other operating system",
                "not applicable": "is the host's own system",
            },
        ),
        Need(
            name="live-migration",
            about="move to another host while running",
            fact="migration",
            good=frozenset({"yes"}),
            scope="any",
            clauses={
                "yes": "migrates while running",
                "no": "does not migrate",
                "experimental": "migrates experimentally only",
                "checkpoint": "is stopped, copied and restored, not migrated live",
                "not applicable": "is no guest that could migrate",
            },
        ),
        Need(
            name="no-hardware-support",
            about="work on a processor without virtualization extensions",
            fact="hardware",
            good=frozenset({"none", "optional"}),
            scope="all",
            clauses={
                "none": "needs no hardware support",
                "optional": "does without hardware support",
                "required": "needs hardware support",
            },
        ),
        Need(
            name="unmodified-guest",
            about="run an operating system as its maker ships it",
            fact="guest_kernel",
            good=frozenset({"unmodified", "either", "shared"}),
            scope="kernel",
            clauses={
                "unmodified": "runs an unmodified kernel",
                "either": "runs unmodified kernels, too",
                "shared": "has no guest kernel to modify",
                "modified": "needs a modified kernel",
            },
        ),
        Need(
            name="open-source",
            about="have its source under a free licence",
            fact="open_source",
            good=frozenset({"yes"}),
            scope="all",
            clauses={
                "yes": "is open source",
                "in part": "is open source in part",
                "no": "is proprietary",
            },
        ),
        Need(
            name="kernel-isolation",
            about="let programs inside reach no kernel that others rely on",
            fact="boundary",
            good=frozenset({"user-space kernel", "emulator process", "hypervisor", "hardware partition"}),
            scope="any",
            clauses={
                "file names": "hides files, nothing else",
                "shared kernel": "shares the host's kernel",
                "one privilege level": "protects neither kernel from the other",
                "user-space kernel": "has a kernel of its own in user space",
                "emulator process": "emulates a machine in a process",
                "hypervisor": "lies behind a hypervisor",
                "hardware partition": "is a partition of the hardware",
                "not applicable": "controls the machine itself",
            },
        ),
        Need(
            name="maintained",
            about="still be maintained",
            fact="status",
            good=frozenset({"active"}),
            scope="all",
            clauses={
                "active": "is maintained",
                "superseded": "is superseded",
                "ended": "has ended",
            },
        ),
    )
}


@dataclass(frozen=True)
class Judgement:
    """Whether a need is met, and the reason, citing the page that says so."""

    need: str
    answer: Answer
    reason: str


def named(names: Iterable[str]) -> list[Need]:
    """The needs with these names, without duplicates. Raises ``UsageError`` for an unknown one."""
    out = []
    for name in dict.fromkeys(names):
        if name not in NEEDS:
            near = get_close_matches(name, NEEDS, n=1)
            known = f"known needs: {', '.join(NEEDS)}"
            raise UsageError(
                f"there is no need {name!r}", f"did you mean {near[0]}? {known}" if near else known
            )
        out.append(NEEDS[name])
    return out


def judge(need: Need, entry: Entry) -> Judgement:
    """Judge one entry of the catalogue against one need."""
    value = entry.value(need.fact)
    if value == UNKNOWN:
        return Judgement(need.name, "unknown", f"the catalogue documents nothing on this for {entry.name}")
    sources = catalog.load().sources
    cited_as = "licence" if need.fact == "open_source" else need.fact
    pages = [sources[key].title for key, facts in entry.cites.items() if cited_as in facts]
    told = f"{entry.name} {need.clauses.get(value, value)}" + (f" [{pages[0]}]" if pages else "")
    return Judgement(need.name, "met" if value in need.good else "not met", told)


def judge_stack(need: Need, layers: Sequence[str]) -> Judgement:
    """Judge a stack of layers, lowest first, against one need; benches that only serve to measure on do not count."""
    found = {layer: catalog.of_layer(layer) for layer in layers}
    if strangers := [layer for layer, entry in found.items() if entry is None]:
        return Judgement(need.name, "unknown", f"the catalogue has no entry for the layer {strangers[0]}")
    entries = [entry for layer in layers if (entry := found[layer]) is not None and not entry.bench]
    if not entries:
        return Judgement(need.name, "not met", "nothing is stacked here")
    if need.scope == "kernel":
        entries = [entry for entry in entries if entry.guest_kernel != "shared"][-1:] or entries[-1:]
    elif need.scope == "innermost":
        entries = entries[-1:]
    judged = [judge(need, entry) for entry in entries]
    best_first: list[Answer] = ["met", "unknown", "not met"]
    order = best_first if need.scope == "any" else best_first[::-1]
    return min(judged, key=lambda one: order.index(one.answer))


def meeting(needs: Sequence[Need]) -> list[Entry]:
    """Active systems in the catalogue that are documented to meet every need."""
    return [
        entry
        for entry in catalog.entries()
        if entry.status == "active"
        and not entry.bench
        and entry.boundary not in {"not applicable", UNKNOWN}
        and all(judge(need, entry).answer == "met" for need in needs)
    ]
