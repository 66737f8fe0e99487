"""What each notebook of the course requires of a bundle; an unsuitable one is refused before any notebook opens.

The notebooks name stacks and workloads in their cells and answers. A test compares the table here with what they use.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vbench.advisor.requirements import NEEDS, judge_stack
from vbench.errors import UsageError
from vbench.plot import per_operation
from vbench.stats.overhead import baselines

if TYPE_CHECKING:
    from vbench.stats.run import Run

SIX = ("cpu-int", "mem-pagefault", "disk-rand-read", "net-latency", "os-nullcall", "os-forkexec")
_TESTBED = "local/testbed"
_CALLS = ("cpu-int", "os-nullcall")


@dataclass(frozen=True)
class Asks:
    """What one notebook requires.

    ``cells``: by stack, the workloads whose primary metric must have been measured in it and in its baseline; none if
    only a question mentions the stack. ``optional``: stacks it can do without if they were not measured at all.
    ``candidate``: a need, and a workload that must have been measured in some stack that meets it. ``blocks``: the
    minimum number. ``per_operation``: every cell must be the time of one operation, or a rate.
    """

    cells: Mapping[str, Sequence[str]] = field(default_factory=dict)
    optional: Collection[str] = ()
    candidate: tuple[str, str] | None = None
    blocks: int = 1
    per_operation: bool = False


ASKS = {
    "01-layers": Asks(
        {
            _TESTBED: SIX,
            f"{_TESTBED}/chroot": SIX,
            f"{_TESTBED}/bubblewrap": SIX,
            f"{_TESTBED}/uml": (*_CALLS, "os-forkexec"),
            f"{_TESTBED}/kvm": SIX,
            f"{_TESTBED}/kvm/bubblewrap": ("cpu-int",),
            f"{_TESTBED}/xen": (),
            f"{_TESTBED}/xen/pv": SIX,
        }
    ),
    "02-reading-figures": Asks(
        {
            _TESTBED: SIX,
            f"{_TESTBED}/chroot": (*_CALLS, "os-forkexec"),
            f"{_TESTBED}/uml": (*_CALLS, "mem-pagefault", "os-forkexec"),
            f"{_TESTBED}/kvm": _CALLS,
            f"{_TESTBED}/xen/pv": _CALLS,
        },
        optional={f"{_TESTBED}/kvm", f"{_TESTBED}/xen/pv"},
        blocks=6,  # it shows intervals
        per_operation=True,
    ),
    "03-stacking": Asks(
        {
            _TESTBED: SIX,
            f"{_TESTBED}/bubblewrap": SIX,
            f"{_TESTBED}/kvm": SIX,
            f"{_TESTBED}/kvm/bubblewrap": SIX,
            f"{_TESTBED}/xen": SIX,
            f"{_TESTBED}/xen/pv": SIX,
            f"{_TESTBED}/uml": ("os-nullcall",),
        }
    ),
    "04-choosing": Asks(candidate=("other-os", "cpu-int")),
    "05-reproducible-report": Asks(
        {_TESTBED: SIX, f"{_TESTBED}/kvm": ("os-forkexec",)},
        blocks=6,  # it shows an interval, and compares one half of the blocks with the other
    ),
    "06-to-the-last-digit": Asks(
        {_TESTBED: SIX, f"{_TESTBED}/kvm": SIX, f"{_TESTBED}/xen/pv": SIX, f"{_TESTBED}/uml": SIX},
        blocks=6,  # it shows an interval
    ),
}
"""Requirements by notebook."""


class _Held:
    """What a bundle holds for the primary metrics of its workloads."""

    def __init__(self, run: Run) -> None:
        rows = run.samples
        rows = rows[
            ~rows["warmup"] & (rows["value"] > 0) & (rows["metric"] == rows["workload"].map(run.info.primary))
        ]
        self.blocks = {key: {*each["block"]} for key, each in rows.groupby(["stack", "workload"])}
        self.settings = rows.groupby("workload")["params"].nunique().to_dict()
        self.stacks, self.workloads = {*rows["stack"]}, {*rows["workload"]}
        timed = per_operation(rows)
        self.timed = {*zip(timed["stack"], timed["workload"], strict=True)}
        self.baselines = baselines(rows)

    def pairs(self, stack: str, workload: str) -> int:
        """The number of blocks in which both a stack and its baseline were measured."""
        there, base = ((name, workload) for name in (stack, self.baselines[stack]))
        return len(self.blocks.get(there, set()) & self.blocks.get(base, set()))


def lacks(run: Run, names: Sequence[str]) -> list[str]:
    """What a bundle lacks that the named notebooks require, each in a few words; empty if it lacks nothing."""
    return _said(_Held(run), names)


def _said(held: _Held, names: Sequence[str]) -> list[str]:
    found = [each for name in names for each in _lacks(held, ASKS[name])]
    out = []
    for what in ("stack", "workload"):
        if some := [*dict.fromkeys(name for kind, name in found if kind == what)]:
            out.append(f"the {what}{'s' * (len(some) > 1)} {', '.join(some)}")
    return [*out, *dict.fromkeys(text for kind, text in found if kind == "cell")]


def _lacks(held: _Held, asks: Asks) -> Iterator[tuple[str, str]]:
    blocks = {}
    for stack, workloads in asks.cells.items():
        if stack not in held.stacks and stack not in asks.optional:
            yield "stack", stack
        for workload in workloads:
            if workload not in held.workloads:
                yield "workload", workload
            elif held.settings[workload] > 1:
                yield "cell", f"one setting of {workload} (it has {held.settings[workload]})"
            elif stack not in held.stacks:
                continue
            elif (base := held.baselines[stack]) not in held.stacks:
                yield "stack", base
            elif (n := held.pairs(stack, workload)) == 0:
                yield "cell", f"{workload} in {stack}"
            elif asks.per_operation and (stack, workload) not in held.timed:
                yield "cell", f"{workload} in {stack} as a time or a rate"
            else:
                blocks[stack, workload] = n
    if blocks and (least := min(blocks.values())) < asks.blocks:
        yield "cell", f"{asks.blocks} blocks (it has {least})"
    if asks.candidate and not _fit(held, *asks.candidate):
        yield "cell", f"{asks.candidate[1]} in a stack that meets the need {asks.candidate[0]}"


def _fit(held: _Held, need: str, workload: str) -> list[str]:
    """The stacks that meet a need and were measured with a workload alongside their baseline."""
    return [
        stack
        for stack, base in held.baselines.items()
        if stack != base
        and held.pairs(stack, workload)
        and judge_stack(NEEDS[need], stack.split("/")[1:]).answer == "met"
    ]


def check(run: Run, names: Sequence[str]) -> None:
    """Raise ``UsageError``, saying what is missing, if a bundle lacks data that the named notebooks require."""
    held = _Held(run)
    others = [name for name in ASKS if not _said(held, [name])]
    unfit = [name for name in names if name not in others]
    if not unfit:
        return
    stacks = dict.fromkeys(stack for name in unfit for stack in ASKS[name].cells if stack != _TESTBED)
    fits = f"; it carries {', '.join(others)}" if others else ""
    raise UsageError(
        f"{run.path} cannot carry {', '.join(unfit)}: it lacks {'; '.join(_said(held, unfit))}",
        f"measure {', '.join(stacks) or 'more'} with {', '.join(SIX)}, in 6 blocks{fits}",
    )
