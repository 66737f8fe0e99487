"""What to measure, and in what order."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from vbench.errors import UsageError
from vbench.layer import Shape
from vbench.selection import select
from vbench.stack import Stack
from vbench.workload import Workload

Arm = Literal["A", "A'"]


class Plan(BaseModel, extra="forbid"):
    """What to measure: stack paths, workload names, how often, and with what resources."""

    stacks: list[str] = Field(min_length=1)
    workloads: list[str] = Field(min_length=1)
    blocks: int = Field(default=6, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, lt=2**63)
    vcpus: int = Field(default=1, ge=1)
    memory_mib: int = Field(default=512, ge=192)
    disk_mib: int = Field(default=512, ge=128)

    def shape(self) -> Shape:
        """The resources of every environment."""
        return Shape(self.vcpus, self.memory_mib, self.disk_mib)


@dataclass(frozen=True)
class Step:
    """One invocation to come."""

    block: int
    order: int
    workload: str
    stack: str
    arm: Arm


def schedule(plan: Plan, workloads: list[str], stacks: list[str], baselines: set[str]) -> list[Step]:
    """The whole order of a run, decided by its seed before anything is measured.

    Randomized complete blocks: within a block, workloads come in random order, and for each workload every
    stack comes once and every baseline twice. Positions are balanced: over as many blocks as there are
    arms, each arm takes each position once (a cyclic Latin square with shuffled rows).
    """
    rng = random.Random(plan.seed)  # noqa: S311 - an order that can be repeated is the point
    arms: list[tuple[str, Arm]] = [(stack, "A") for stack in stacks]
    arms += [(stack, "A'") for stack in stacks if stack in baselines]
    orders: dict[str, list[list[tuple[str, Arm]]]] = {name: [] for name in workloads}
    for name in workloads:
        while len(orders[name]) < plan.blocks:
            first = rng.sample(arms, len(arms))
            square = [first[i:] + first[:i] for i in range(len(arms))]
            orders[name] += rng.sample(square, len(square))
    steps = []
    for block in range(plan.blocks):
        for name in rng.sample(workloads, len(workloads)):
            for order, (stack, arm) in enumerate(orders[name][block]):
                steps.append(Step(block, order, name, stack, arm))
    return steps


def with_baselines(paths: list[str]) -> list[Stack]:
    """The planned stacks and every baseline they need, each once, lowest first.

    Raises ``UsageError`` for a path that is none.
    """
    wanted: dict[str, Stack] = {}
    todo = [Stack.parse(path) for path in paths]
    while todo:
        stack = todo.pop(0)
        if stack.path not in wanted:
            wanted[stack.path] = stack
            if (base := stack.baseline()) is not None:
                todo.append(base)
    return sorted(wanted.values(), key=lambda stack: stack.depth)


def load_plan(
    path: Path | None,
    known: Mapping[str, Workload],
    *,
    stacks: list[str] | None = None,
    workloads: list[str] | None = None,
    blocks: int | None = None,
    seed: int | None = None,
) -> Plan:
    """A plan from a file, from what was given beside it (which wins), or from both.

    Workloads may be named singly or by group. Raises ``UsageError`` that says what is wrong where.
    """
    raw: dict[str, Any] = {}
    if path is not None:
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{path}: {error}", "a plan is a TOML file with stacks, workloads, blocks"
            ) from None
    given = {"stacks": stacks, "workloads": workloads, "blocks": blocks, "seed": seed}
    raw |= {key: value for key, value in given.items() if value is not None}
    raw.setdefault("workloads", ["quick"])
    if "stacks" not in raw:
        raise UsageError("no stack to measure", "name one or more: --stack local/chroot --stack local/qemu")
    try:
        plan = Plan.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        source = f"{path}: " if path else ""
        hint = f"known keys: {', '.join(Plan.model_fields)}" if first["type"] == "extra_forbidden" else None
        raise UsageError(f"{source}{where}: {first['msg']}, not {first['input']!r}", hint) from None
    paths = [Stack.parse(text).path for text in plan.stacks]
    names = [one.name for text in plan.workloads for one in select(known, text)]
    return plan.model_copy(
        update={"stacks": list(dict.fromkeys(paths)), "workloads": list(dict.fromkeys(names))}
    )
