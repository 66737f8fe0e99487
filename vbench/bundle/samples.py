"""Samples: single measured values, either a workload's metric or what an invocation cost the host.

Up to schema 3 a journal line held one workload value plus the host costs of its invocation, which were repeated on
every line of that invocation. Such lines are still read; they are recognized by having no ``side``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Unpack, get_args, get_origin, get_type_hints

from vbench.terms import Arm, Better, Clock

Side = Literal["workload", "host"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured value, as a tidy row. Times are in seconds."""

    run: str
    stack: str  # "local/uml"
    baseline: str  # the stack this one is compared with, "local"; a baseline names itself
    workload: str
    params: str  # canonical JSON object: see canonical()
    side: Side = field(default="workload", kw_only=True)  # the workload's own value, or a cost on the host
    metric: str
    unit: str
    better: Better
    value: float
    block: int  # from 0
    order: int  # position in the block's sequence
    arm: Arm  # A' only for the baseline's second measurement in the block
    warmup: bool
    work: int  # work size used
    clock: Clock  # what a second means on this environment's own clock
    guest_s: float | None  # elapsed inside, by the environment's own clock
    parent_s: float  # elapsed as seen by the harness
    start: str  # ISO 8601, UTC


HINTS: dict[str, Any] = get_type_hints(Sample)
COLUMNS = tuple(HINTS)
KEY = ["run", "stack", "workload", "params", "side", "metric", "block", "arm"]

COSTS = {
    "host_cpu_s": ("host-cpu", "s"),  # CPU time the whole environment used on its host during the invocation
    "rss_mib": ("host-memory", "MiB"),  # resident, at the end
    "host_switches": ("host-switches", "switches"),  # context switches of its threads
    "host_read_mib": ("host-read", "MiB"),  # read from the host's storage on its behalf
    "host_written_mib": ("host-written", "MiB"),
    "steal_s": ("steal", "s"),  # time a guest's kernel waited for one of its host's processors
}
"""Host costs of an invocation: metric and unit, keyed by the name that the harness and older journals use."""


def opening_of(block: Any, blocks: int, openings: int) -> Any:
    """Which opening of its run's wall-clock stacks a block was measured in, from 0; of an array of blocks, an array.

    All are of as many of the planned ``blocks``, give or take one; blocks beyond them go on in that way.
    """
    return block * min(openings, blocks) // blocks


LATER = ("host_switches", "host_read_mib", "host_written_mib", "steal_s")
_WITHOUT_SIDE = {name: hint for name, hint in HINTS.items() if name not in {"side", "start"}}
OLDER: dict[str, Any] = {
    **_WITHOUT_SIDE,
    "host_cpu_s": float | None,
    "rss_mib": float | None,
    "start": str,
    **dict.fromkeys(LATER, float | None),
}
"""The columns of a line up to schema 3, in order; the oldest bundles lack ``LATER``."""


class Common(TypedDict):
    """The fields that all samples of an invocation share; see :class:`Sample`."""

    run: str
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
    guest_s: float | None
    parent_s: float
    start: str


def samples_of(
    values: Iterable[tuple[str, str, Better, float]],
    costs: Mapping[str, float | None],
    **common: Unpack[Common],
) -> list[Sample]:
    """The samples of one invocation: the workload's values, then its known host costs.

    ``values``: (metric, unit, which direction is better, value). ``costs``: keyed as ``COSTS``; ``None`` means
    unknown and yields no sample.
    """
    told = [
        Sample(metric=metric, unit=unit, better=better, value=value, **common)
        for metric, unit, better, value in values
    ]
    costly = [
        Sample(side="host", metric=metric, unit=unit, better="lower", value=cost, **common)
        for name, (metric, unit) in COSTS.items()
        if (cost := costs[name]) is not None
    ]
    return told + costly


def canonical(params: dict[str, Any]) -> str:
    """Serialize parameters so that equal parameters give equal strings."""
    return json.dumps(params, sort_keys=True, separators=(",", ":"), allow_nan=False)


def is_canonical(params: str) -> bool:
    """Whether ``params`` is in the form that :func:`canonical` produces."""
    try:
        value = json.loads(params)
        return isinstance(value, dict) and canonical(value) == params
    except (ValueError, RecursionError):
        return False


def problem(row: Any) -> str | None:
    """What is wrong with one decoded journal line, current or older; None if nothing is."""
    if not isinstance(row, dict):
        return "is not a JSON object"
    for name, hint in (HINTS if "side" in row else OLDER).items():
        if name not in row:
            if name in LATER:
                continue
            return f"lacks the column {name!r}"
        if wrong := _mismatch(row[name], hint):
            return f"has {name} = {row[name]!r:.80}, {wrong}"
    if row["block"] < 0:
        return f"has block = {row['block']}, below 0"
    return None if is_canonical(row["params"]) else "has params that are not a canonical JSON object"


def _mismatch(value: Any, hint: Any) -> str | None:
    if get_origin(hint) is Literal:
        return None if value in get_args(hint) else f"not one of {', '.join(get_args(hint))}"
    if not isinstance(value, hint | int if is_float(hint) else hint) or (type(value) is bool) > (
        hint is bool
    ):
        return f"not {getattr(hint, '__name__', hint)}"
    return "not a finite number" if isinstance(value, float) and not math.isfinite(value) else None


def is_float(hint: Any) -> bool:
    """Whether a column holds floats, nullable or not."""
    return hint is float or float in get_args(hint)
