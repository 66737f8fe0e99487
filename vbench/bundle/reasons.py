"""What an operation is made of: instructions by where they are, and events; and how to say so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from vbench.errors import BundleError, Damaged, brief
from vbench.files import read_bounded, replace
from vbench.terms import INSTRUCTION, PLACES

FILE = "why.json"
"""In a bundle's folder, what ``vbench why --into`` has counted of its cells."""
_LIMIT = 16 << 20


@dataclass(frozen=True)
class Reasons:
    """What one operation of a workload in a stack is made of.

    ``counts``: instructions by where they are, and events, each per operation; of the whole invocation, if the
    workload's size cannot be doubled (``operations`` is 0 then). ``value`` is the workload's primary figure in this
    pass, which is the one of any other, in ``unit``. ``unseen``: events that could not be counted, as a kernel in the
    stack does not tell where it is entered; they are not in ``counts``.
    """

    stack: str
    workload: str
    operations: int
    counts: dict[str, float]
    metric: str
    unit: str
    value: float
    unseen: tuple[str, ...] = ()

    @property
    def instructions(self) -> float:
        """All instructions, wherever they are."""
        return _all(self.counts)

    @property
    def beside(self) -> float | None:
        """By how much all that was counted takes longer than the figure, as a share of it; ``None`` if it is no time.

        It is what the workload does beside what it times, such as giving memory back, if it is much.
        """
        unit = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}.get(self.unit)
        return self.instructions * INSTRUCTION / (self.value * unit) - 1 if unit and self.operations else None


def read_reasons(folder: Path) -> list[Reasons]:
    """What has been counted of a bundle's cells; nothing, if nobody has. Raises ``Damaged``."""
    path = folder / FILE
    try:
        return TypeAdapter(list[Reasons]).validate_json(read_bounded(path, _LIMIT))
    except FileNotFoundError:
        return []
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        what = f"{at} is {brief(first['input'])}: {first['msg']}" if at else f"it is no JSON: {first['msg']}"
        raise Damaged(path, None, what) from None
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error


def keep_reasons(folder: Path, found: Iterable[Reasons]) -> None:
    """Add what has been counted to a bundle, in place of what was there of the same cells. Raises ``BundleError``."""
    all_of = {(each.stack, each.workload): each for each in (*read_reasons(folder), *found)}
    text = json.dumps([asdict(each) for each in all_of.values()], indent=1) + "\n"
    try:
        replace(folder / FILE, lambda draft: draft.write_text(text))
    except OSError as error:
        raise BundleError(f"cannot write {folder / FILE}: {error.strerror}", "is the disk full?") from error


@dataclass(frozen=True)
class Told:
    """What is worth saying of a cell: instructions, where the added ones are, and what causes them, per operation.

    ``where``: for a guest, what its host executes, and otherwise what is executed beyond the baseline, most first, but
    for what is less than half a percent of all; the places are named as in a sentence. ``exits`` and their most
    frequent ``cause``, with its number.
    """

    instructions: float
    base: float | None
    where: tuple[tuple[str, float], ...]
    exits: float
    cause: tuple[str, float] | None
    hypercalls: float
    faults: float


def told(counts: Mapping[str, float], base: Mapping[str, float] | None) -> Told:
    """What is worth saying, from a stack's counts and its baseline's, if it has one."""
    guest = counts.get("guest kernel", 0.0) > (base or {}).get("guest kernel", 0.0)
    if guest:  # what its host executes is what the guest costs
        parts = {place: counts.get(place, 0.0) for place in ("user", "kernel", "Xen")}
    else:
        parts = {place: counts.get(place, 0.0) - (base or {}).get(place, 0.0) for place in PLACES}
    most = [
        each
        for each in sorted(parts.items(), key=lambda each: -abs(each[1]))[:2]
        if abs(each[1]) > _all(counts) / 200
    ]
    causes = {
        name.removeprefix("exit: "): count for name, count in counts.items() if name.startswith("exit: ")
    }
    return Told(
        instructions=_all(counts),
        base=None if base is None else _all(base),
        where=tuple((_called(place, guest), number) for place, number in most),
        exits=counts.get("exit", 0.0),
        cause=max(causes.items(), key=lambda each: each[1]) if causes else None,
        hypercalls=counts.get("hypercall", 0.0),
        faults=counts.get("page fault", 0.0),
    )


def _all(counts: Mapping[str, float]) -> float:
    return sum(counts.get(place, 0.0) for place in PLACES)


def _called(place: str, guest: bool) -> str:
    """A place's name in a sentence: beside a guest, user and kernel are its host's."""
    names = {
        **{
            "user": "the host's programs" if guest else "programs",
            "kernel": "the host's kernel" if guest else "the kernel",
        },
        "guest user": "the guest's programs",
        "guest kernel": "the guest's kernel",
        "UML kernel": "the kernel of User Mode Linux",
    }
    return names.get(place, place)


LEAST = 0.05
"""Events rarer than this, per operation, are not worth saying."""


def sentence(found: Sequence[Reasons]) -> str:
    """What was found, in one sentence; ``found``: a stack's baseline, if it has one, and the stack."""
    last, base = found[-1], found[0] if len(found) > 1 else None
    said = told(last.counts, base.counts if base else None)
    text = f"{last.workload} in {last.stack}: {said.instructions:,.0f} instructions"
    if said.base is not None:
        where = " and ".join(f"{number:,.0f} in {place}" for place, number in said.where)
        text += f" against {said.base:,.0f}, {said.instructions - said.base:+,.0f}" + f" ({where})" * bool(
            where
        )
    events = [(said.exits, "exits"), (said.hypercalls, "hypercalls"), (said.faults, "page faults")]
    parts = [f"{number:.1f} {name}" for number, name in events if number >= LEAST]
    if said.exits >= LEAST and said.cause:
        parts[0] += f" ({said.cause[1]:.1f} by {said.cause[0]})"
    return f"{'; '.join([text, ', '.join(parts)]) if parts else text}."
