"""What a worker tells while it carries out a unit: values, one JSON line each.

The order is that of what happened. A worker says that it begins something before it does, so that whoever listens
can stop it there by leaving the iterator.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from vbench.bundle.store import Note
from vbench.harness.invoke import Cost
from vbench.harness.units import Frozen
from vbench.terms import Arm, Better, Clock

Stage = Literal["opening", "calibrating", "measuring"]


class Began(Frozen):
    """Something is about to be done; ``remaining_s`` is what is left of the unit, from what invocations took so far."""

    kind: Literal["began"] = "began"
    stage: Stage
    stack: str
    workload: str | None = None
    block: int | None = None
    remaining_s: float | None = None


class Opened(Frozen):
    """A stack is open; what it is."""

    kind: Literal["opened"] = "opened"
    stack: str
    facts: dict[str, Any]


class Settled(Frozen):
    """A workload is set up and warm in a stack; ``work`` is its frozen work size, ``None`` for one without."""

    kind: Literal["settled"] = "settled"
    stack: str
    workload: str
    work: int | None


class Value(Frozen):
    """One metric of an invocation."""

    metric: str
    unit: str
    better: Better
    value: float


class Measured(Frozen):
    """One invocation, warm-ups included: its values, times by both clocks (s), cost on the host, the tool's output."""

    kind: Literal["measured"] = "measured"
    stack: str
    baseline: str
    workload: str
    params: str
    block: int
    order: int
    arm: Arm
    warmup: bool
    work: int
    clock: Clock
    values: tuple[Value, ...]
    guest_s: float | None
    parent_s: float
    cost: Cost
    start: str
    stdout: bytes


class Failed(Frozen):
    """A stack (``workload`` None) or one of its workloads could not be measured; the rest goes on."""

    kind: Literal["failed"] = "failed"
    stack: str
    workload: str | None = None
    stage: Literal["plan", "open", "prepare", "measure"]
    reason: str


class Noted(Frozen):
    """Findings on fairness or noise. Those of a ``topic`` take the place of what was noted of it before."""

    kind: Literal["noted"] = "noted"
    notes: tuple[Note, ...]
    topic: str | None = None


Event = Began | Opened | Settled | Measured | Failed | Noted

_ANY: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def read_event(line: str | bytes) -> Event:
    """An event from its JSON. Raises ``ValueError`` for what is none."""
    return _ANY.validate_json(line)
