"""What an operation is made of: instructions by where they are, and events; and how to say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vbench.terms import INSTRUCTION, PLACES


@dataclass(frozen=True)
class Reasons:
    """What one operation of a workload in a stack is made of.

    ``counts``: instructions by where they are, and events, each per operation; of the whole invocation, if the
    workload's size cannot be doubled (``operations`` is 0 then). ``value`` is the workload's primary figure in this
    pass, which is the one of any other, in ``unit``.
    """

    stack: str
    workload: str
    operations: int
    counts: dict[str, float]
    metric: str
    unit: str
    value: float

    @property
    def instructions(self) -> float:
        """All instructions, wherever they are."""
        return sum(self.counts.get(place, 0.0) for place in PLACES)

    @property
    def beside(self) -> float | None:
        """By how much all that was counted takes longer than the figure, as a share of it; ``None`` if it is no time.

        It is what the workload does beside what it times, such as giving memory back, if it is much.
        """
        unit = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}.get(self.unit)
        return self.instructions * INSTRUCTION / (self.value * unit) - 1 if unit and self.operations else None


def sentence(found: Sequence[Reasons]) -> str:
    """What was found, in one sentence; ``found``: a stack's baseline, if it has one, and the stack."""
    base, last = found[0], found[-1]
    events = _events(last)
    if base is last:
        return f"{last.workload} in {last.stack}: {last.instructions:,.0f} instructions{events}."
    if last.counts.get("guest kernel", 0.0) > base.counts.get(
        "guest kernel", 0.0
    ):  # what it does is not the guest's
        parts = {place: last.counts.get(place, 0.0) for place in ("user", "kernel", "Xen")}
    else:
        parts = {place: last.counts.get(place, 0.0) - base.counts.get(place, 0.0) for place in PLACES}
    most = sorted(parts.items(), key=lambda each: -abs(each[1]))[:2]
    told = " and ".join(f"{number:,.0f} in {_called(place, last)}" for place, number in most if round(number))
    return (
        f"{last.workload} in {last.stack}: {last.instructions:,.0f} instructions against {base.instructions:,.0f},"
        f" {last.instructions - base.instructions:+,.0f} ({told}){events}."
    )


def _called(place: str, where: Reasons) -> str:
    """A place's name in a sentence: beside a guest, user and kernel are its host's."""
    if place in ("user", "kernel") and where.counts.get("guest kernel"):
        return f"the host's {'programs' if place == 'user' else 'kernel'}"
    names = {"user": "programs", "kernel": "the kernel", "guest user": "the guest's programs"}
    return names.get(place) or {"guest kernel": "the guest's kernel"}.get(place) or place


def _events(of: Reasons) -> str:
    told = [
        f"{of.counts[name]:.1f} {name}s"
        for name in ("exit", "hypercall", "page fault", "CR3 write")
        if of.counts.get(name, 0.0) >= 0.05
    ]
    causes = {
        name.removeprefix("exit: "): number for name, number in of.counts.items() if name.startswith("exit: ")
    }
    if told and of.counts.get("exit", 0.0) >= 0.05:
        cause, number = max(causes.items(), key=lambda each: each[1])
        told[0] += f" ({number:.1f} by {cause})"
    return "; " + ", ".join(told) if told else ""
