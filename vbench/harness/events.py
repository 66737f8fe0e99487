"""The events that a worker yields while it carries out a unit: plain values, one JSON line each.

They come in the order in which things happened. A worker announces each thing before it begins, so that a listener
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
    """Something is about to begin; ``remaining_s`` is the time left for the unit, judging by its invocations so far."""

    kind: Literal["began"] = "began"
    stage: Stage
    stack: str
    workload: str | None = None
    block: int | None = None
    remaining_s: float | None = None


class Opened(Frozen):
    """A stack is open; ``facts`` describe it."""

    kind: Literal["opened"] = "opened"
    stack: str
    facts: dict[str, Any]


class Settled(Frozen):
    """A workload is set up and warm in a stack; ``work`` is its frozen work size, ``None`` if it has none.

    ``took_s``: seconds of ours that an invocation takes, where samples tell only those of a deterministic machine.
    """

    kind: Literal["settled"] = "settled"
    stack: str
    workload: str
    work: int | None
    took_s: float | None = None


class Value(Frozen):
    """One metric of an invocation."""

    metric: str
    unit: str
    better: Better
    value: float


class Measured(Frozen):
    """One invocation, possibly a warm-up: its values, seconds by both clocks, cost on the host, the tool's output."""

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
    """A stack (``workload`` is ``None``) or one of its workloads could not be measured; the rest goes on."""

    kind: Literal["failed"] = "failed"
    stack: str
    workload: str | None = None
    stage: Literal["plan", "open", "prepare", "measure"]
    reason: str


class Noted(Frozen):
    """Findings on fairness or noise. Those with a ``topic`` replace earlier ones on the same topic."""

    kind: Literal["noted"] = "noted"
    notes: tuple[Note, ...]
    topic: str | None = None


Event = Began | Opened | Settled | Measured | Failed | Noted

_ANY: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def read_event(line: str | bytes) -> Event:
    """An event from its JSON. Raises ``ValueError`` if the line is not an event."""
    return _ANY.validate_json(line)
