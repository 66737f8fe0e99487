"""Work units: a piece of a run as a value that holds all a worker needs, wherever it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from pydantic import BaseModel, ConfigDict, Field

from vbench.bundle.samples import opening_of
from vbench.harness.plan import Step, baseline_of, baselines_of, by_ground
from vbench.hosts.declared import LOCAL, Machine
from vbench.layers.base import Shape
from vbench.layers.stack import Stack
from vbench.terms import Clock
from vbench.workload.model import Workload

Cell = tuple[str, str]
"""Stack and workload."""


class Frozen(BaseModel):
    """A value that travels as JSON; bytes in it as base64."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_bytes="base64", val_json_bytes="base64")


class Size(Frozen):
    """A cell's work size that was settled earlier. ``recorded``: its warm-up is already in the journal."""

    stack: str
    workload: str
    work: int
    recorded: bool = True


class WorkUnit(Frozen):
    """Stacks that are open together, and the invocations to measure in them, in order.

    The wall-clock stacks on one hardware share a unit, as they must be compared moment by moment. Where a clock counts
    instructions, nothing outside a stack can affect its figures: each stack is a unit of its own, with its own
    testbed, and units run in parallel. ``results`` is the folder that results go to, if the root can see it.
    """

    root: str
    stacks: tuple[str, ...] = Field(min_length=1)  # lowest first
    clock: Clock
    workloads: tuple[Workload, ...]
    steps: tuple[Step, ...]
    sizes: tuple[Size, ...] = ()
    starts: int = Field(default=1, ge=1)  # blocks that begin in the same boot; see ``boot``
    blocks: int = Field(default=1, ge=1)  # planned; with ``openings``, see ``opening``
    openings: int = Field(default=1, ge=1)
    shape: Shape
    capsule: str  # digest
    apart: bool = False  # machines have no baseline here
    machines: tuple[Machine, ...] = ()  # those declared of the ones that its stacks stand on
    results: str | None = None

    @property
    def name(self) -> str:
        """What distinguishes it from the other units of its run."""
        return f"wall clock of {self.root}" if self.clock == "wall" else self.stacks[0]

    def baseline(self, stack: Stack) -> Stack | None:
        """The stack that another's overhead is measured against."""
        return baseline_of(stack, {} if self.apart else baselines_of(self.machines))

    def address(self, root: str) -> str:
        """How a machine is logged in to."""
        machine = self.machine(root)
        return machine.address if machine else root

    def machine(self, root: str) -> Machine | None:
        """What the hosts file declares a machine to be."""
        return next((each for each in self.machines if each.name == root), None)

    @property
    def here(self) -> bool:
        """Whether this machine is among those that its stacks stand on."""
        return any(Stack.parse(path).root == LOCAL for path in self.stacks)

    def boot(self, step: Step) -> int:
        """The boot of a deterministic machine in which a step's block begins, from 0."""
        return step.block // self.starts

    def start(self, step: Step) -> int:
        """Which start in that boot the block is, from 0."""
        return step.block % self.starts

    def opening(self, step: Step) -> int:
        """The opening of the wall-clock stacks in which a step is measured, from 0; a machine is not opened anew."""
        return opening_of(step.block, self.blocks, self.openings) if self.depth else 0

    @property
    def depth(self) -> int:
        """The number of layers in its deepest stack."""
        return max(path.count("/") for path in self.stacks)


def units_of(
    stacks: Sequence[Stack],
    steps: Iterable[Step],
    workloads: Mapping[str, Workload],
    sizes: Sequence[Size],
    *,
    shape: Shape,
    capsule: str,
    starts: int = 1,
    blocks: int = 1,
    openings: int = 1,
    machines: Sequence[Machine] = (),
    apart: bool = False,
    results: str | None = None,
    needed: Set[str] = frozenset(),
) -> list[WorkUnit]:
    """The units of a run, those by the wall clock first.

    Only stacks with something left to measure are opened, plus those in ``needed``, whose facts are not known yet.
    """
    order = list(steps)
    busy = {step.stack for step in order} | needed
    wanted = [stack for stack in stacks if stack.path in busy]
    groups = by_ground((stack for stack in wanted if stack.clock() == "wall"), machines)
    groups += [[stack] for stack in wanted if stack.clock() != "wall"]
    of = {stack.path: group[0].path for group in groups for stack in group}
    todo: dict[str, list[Step]] = {}
    for step in order:  # once, however many units there are
        todo.setdefault(of[step.stack], []).append(step)
    settled: dict[str, list[Size]] = {}
    for size in sizes:
        settled.setdefault(size.stack, []).append(size)
    declared = {each.name: each for each in machines}
    found = []
    for group in groups:
        mine = todo.get(group[0].path, [])
        used = dict.fromkeys(step.workload for step in mine)
        roots = dict.fromkeys(stack.root for stack in group)
        found.append(
            WorkUnit(
                root=group[0].root,
                stacks=tuple(stack.path for stack in group),
                clock=group[0].clock(),
                workloads=tuple(each for name, each in workloads.items() if name in used),
                steps=tuple(mine),
                sizes=tuple(
                    size for stack in group for size in settled.get(stack.path, ()) if size.workload in used
                ),
                starts=starts,
                blocks=blocks,
                openings=openings,
                shape=shape,
                capsule=capsule,
                apart=apart,
                machines=tuple(declared[root] for root in roots if root in declared),
                results=results,
            )
        )
    return found
