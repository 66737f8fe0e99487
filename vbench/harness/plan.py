"""Plans: what to measure, and in what order."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from vbench.errors import UsageError, brief, first_problem
from vbench.files import read_toml
from vbench.hosts.declared import BESIDE, Machine
from vbench.layers.base import Shape
from vbench.layers.stack import Stack
from vbench.terms import Arm
from vbench.workload.library import Library
from vbench.workload.model import Workload
from vbench.workload.selection import select

MOST_STEPS = 1_000_000
"""The most invocations of a run, more than any machine would live to finish."""


class LeftOut(BaseModel, extra="forbid"):
    """Workloads that a plan does not measure in one of its stacks; their cells show the reason."""

    stack: str
    workloads: list[str] = Field(min_length=1, max_length=1000)
    reason: str = Field(min_length=1, max_length=500)


class Plan(BaseModel, extra="forbid"):
    """What to measure: stack paths, workload names, number of blocks, and resources."""

    stacks: list[str] = Field(min_length=1, max_length=100_000)
    workloads: list[str] = Field(min_length=1, max_length=1000)
    blocks: int = Field(default=6, ge=1, le=10_000)
    # Add blocks until every interval's half-width is below this (0.02: 2%), up to max_blocks; wall-clock stacks only.
    target_width: float | None = Field(default=None, gt=0, le=10)
    max_blocks: int = Field(default=30, ge=1, le=10_000)
    # Where instructions are counted, a block begins in a boot with a seed of its own; or so many blocks begin in the
    # same boot, each with the machine disturbed otherwise. What is told of a figure then rests on the boots.
    starts: int = Field(default=1, ge=1, le=100)
    # By the wall clock, environments are opened anew so often in the course of a run, as one opening differs from the
    # next: what is told of a figure rests on the openings, and on blocks only if there is one.
    openings: int = Field(default=3, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, lt=2**63)
    vcpus: int = Field(default=1, ge=1, le=4096)
    memory_mib: int = Field(default=512, ge=192, le=2**24)
    disk_mib: int = Field(default=512, ge=128, le=2**24)
    leave_out: list[LeftOut] = Field(default=[], max_length=1000)
    # Machines are measured without their baselines, which cannot be up at the same time and are measured by themselves.
    apart: bool = False
    # The machines of the hosts file that its stacks stand on.
    machines: list[Machine] = Field(default=[], max_length=10_000)

    @property
    def left_out(self) -> dict[tuple[str, str], str]:
        """The reasons why cells are not measured, by stack and workload."""
        return {(each.stack, name): each.reason for each in self.leave_out for name in each.workloads}

    @property
    def most_blocks(self) -> int:
        """The most blocks a run can have: more than ``blocks`` only if it has a ``target_width``."""
        return self.blocks if self.target_width is None else max(self.blocks, self.max_blocks)

    def all_stacks(self) -> list[Stack]:
        """The planned stacks and every baseline they need, each once, lowest first."""
        return with_baselines(self.stacks, () if self.apart else self.machines)

    def shape(self) -> Shape:
        """The resources of every environment."""
        return Shape(self.vcpus, self.memory_mib, self.disk_mib)


@dataclass(frozen=True)
class Step:
    """One planned invocation."""

    block: int
    order: int
    workload: str
    stack: str
    arm: Arm


def order_of(plan: Plan, workloads: list[str], stacks: Sequence[Stack], baselines: set[str]) -> list[Step]:
    """The full order of a run: a schedule for each hardware, as no position on one means anything on another.

    Raises ``UsageError`` for more than ``MOST_STEPS`` invocations.
    """
    arms = len(stacks) + sum(stack.path in baselines for stack in stacks)
    if (steps := plan.most_blocks * len(workloads) * arms) > MOST_STEPS:
        raise UsageError(f"the plan has {steps} invocations, the most is {MOST_STEPS}", "take fewer blocks")
    found: list[Step] = []
    for number, group in enumerate(by_ground(stacks, plan.machines)):
        found += schedule(plan, workloads, [stack.path for stack in group], baselines, number)
    return found


def schedule(
    plan: Plan, workloads: list[str], stacks: list[str], baselines: set[str], number: int = 0
) -> list[Step]:
    """The order on one hardware, determined before anything is measured by the seed and the hardware's ``number``.

    Randomized complete blocks: within a block, workloads come in random order, and for each workload every
    stack comes once and every baseline twice. Positions are balanced: over as many blocks as there are
    arms, each arm takes each position once (a cyclic Latin square with shuffled rows).
    """
    # The first is seeded as a run on a single machine is.
    rng = random.Random(f"{plan.seed} {number}" if number else plan.seed)  # noqa: S311 - a repeatable order is the point
    arms: list[tuple[str, Arm]] = [(stack, "A") for stack in stacks]
    arms += [(stack, "A'") for stack in stacks if stack in baselines]
    orders: dict[str, list[list[tuple[str, Arm]]]] = {name: [] for name in workloads}
    for name in workloads:
        while len(orders[name]) < plan.most_blocks:
            first = rng.sample(arms, len(arms))
            square = [first[i:] + first[:i] for i in range(len(arms))]
            orders[name] += rng.sample(square, len(square))
    steps = []
    for block in range(plan.most_blocks):
        for name in rng.sample(workloads, len(workloads)):
            for order, (stack, arm) in enumerate(orders[name][block]):
                steps.append(Step(block, order, name, stack, arm))
    return steps


def baselines_of(machines: Iterable[Machine]) -> dict[str, str]:
    """The baselines that a hosts file says, by machine."""
    return {each.name: each.baseline for each in machines if each.baseline}


def baseline_of(stack: Stack, declared: Mapping[str, str]) -> Stack | None:
    """The stack that another's overhead is measured against; for a machine alone, the one of ``baselines_of``."""
    if stack.layers:
        return stack.baseline()
    base = declared.get(stack.root)
    return Stack(base) if base else None


def by_ground(stacks: Iterable[Stack], machines: Iterable[Machine]) -> list[list[Stack]]:
    """The stacks that have to be compared moment by moment, together: those on the same hardware, or else machine."""
    ground = {each.name: f"hardware {each.hardware}" for each in machines if each.hardware}
    found: dict[str, list[Stack]] = {}
    for stack in stacks:
        found.setdefault(ground.get(stack.root, stack.root), []).append(stack)
    return [*found.values()]


def with_baselines(paths: list[str], machines: Sequence[Machine] = ()) -> list[Stack]:
    """The planned stacks and every baseline they need, each once, lowest first.

    Raises ``UsageError`` for something that is not a stack path.
    """
    wanted: dict[str, Stack] = {}
    declared = baselines_of(machines)
    todo = deque(Stack.parse(path) for path in paths)
    while todo:
        stack = todo.popleft()
        if stack.path not in wanted:
            wanted[stack.path] = stack
            if (base := baseline_of(stack, declared)) is not None:
                todo.append(base)
    return sorted(wanted.values(), key=lambda stack: stack.depth)


def load_plan(
    path: Path | None,
    known: Library,
    *,
    begin: Mapping[str, Any] | None = None,
    stacks: list[str] | None = None,
    workloads: list[str] | None = None,
    blocks: int | None = None,
    seed: int | None = None,
    target_width: float | None = None,
    starts: int | None = None,
    openings: int | None = None,
    machines: Mapping[str, Machine] | None = None,
    apart: bool | None = None,
) -> Plan:
    """A plan from a file, or from ``begin`` (a bundle's plan); the other arguments override it.

    ``machines`` are those of a hosts file; the plan takes over those that its stacks stand on, and their baselines.

    Workloads may be named one by one or by group; one string may hold several stacks or workloads, separated by
    commas. Raises ``UsageError`` saying what is wrong and where.
    """
    raw: dict[str, Any] = dict(begin or {})
    if path is not None:
        try:
            raw = read_toml(path)
        except ValueError as error:
            raise UsageError(
                f"{path}: {error}", "a plan is a TOML file with stacks, workloads, blocks"
            ) from None
        if "machines" in raw:
            raise UsageError(
                f"{path}: machines are declared in a hosts file", f"{BESIDE} beside it, or --hosts FILE"
            )
    given = {
        "stacks": stacks,
        "workloads": workloads,
        "blocks": blocks,
        "seed": seed,
        "target_width": target_width,
        "starts": starts,
        "openings": openings,
        "apart": apart,
    }
    raw |= {key: value for key, value in given.items() if value is not None}
    swept = _swept(path, known, raw.pop("sweep", []))
    raw.setdefault("workloads", [one.name for one in swept] or ["quick"])
    if "stacks" not in raw:
        raise UsageError("no stack to measure", "name one or more: --stack local/chroot --stack local/qemu")
    try:
        plan = Plan.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        source = f"{path}: " if path else ""
        hint = (
            f"known keys: {', '.join([*(name for name in Plan.model_fields if name != 'machines'), 'sweep'])}"
            if first["type"] == "extra_forbidden"
            else None
        )
        raise UsageError(f"{source}{first_problem(error)}, not {brief(first['input'])}", hint) from None
    known_machines = {**{each.name: each for each in plan.machines}, **(machines or {})}
    paths = [Stack.asked(part, known_machines).path for text in plan.stacks for part in text.split(",")]
    names = [one.name for one in [*(one for text in plan.workloads for one in select(known, text)), *swept]]
    left_out = [
        _resolved(each, known, names, path)
        for each in plan.leave_out
        if not begin or {*each.workloads} & {*names}  # part of a bundle's plan may be asked for
    ]
    roots = {stack.root for stack in with_baselines(paths, [*known_machines.values()])}
    return plan.model_copy(
        update={
            "machines": [each for name, each in known_machines.items() if name in roots],
            "stacks": list(dict.fromkeys(paths)),
            "workloads": list(dict.fromkeys(names)),
            "leave_out": left_out,
        }
    )


def _resolved(each: LeftOut, known: Library, planned: list[str], path: Path | None) -> LeftOut:
    """Write out the stack's full path and each workload's name. Raises ``UsageError`` if none of them is planned."""
    names = [one.name for text in each.workloads for one in select(known, text) if one.name in planned]
    if not names:
        raise UsageError(f"{path}: leave_out: {brief(each.workloads)} is not among the planned workloads")
    return LeftOut(stack=Stack.parse(each.stack).path, workloads=names, reason=each.reason)


def _swept(path: Path | None, known: Library, tables: Any) -> list[Workload]:
    """The workloads of the plan's ``[[sweep]]`` tables, each with every combination of its values."""
    found: list[Workload] = []
    for table in tables if isinstance(tables, list) else [tables]:
        values = dict(table) if isinstance(table, dict) else {}
        name = values.pop("workload", None)
        if not isinstance(name, str) or not all(isinstance(each, list) and each for each in values.values()):
            raise UsageError(
                f"{path}: sweep: {brief(table)} is none",
                'write [[sweep]], then workload = "mem-latency", then kib = [16, 256]',
            )
        found += known[name].sweep(values)
    return found
