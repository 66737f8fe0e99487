"""A figure's query: the stacks, workload and clock asked for, and the part of a bundle they select."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from vbench.errors import UsageError
from vbench.stats.verdict import CALLED

if TYPE_CHECKING:
    from vbench.stats.run import Run

CLOCKS = ("wall", "instructions")


class Lacking(UsageError):
    """A bundle holds nothing that a figure shows; ``reason`` says so without mentioning the clock asked for."""

    def __init__(self, bundle: Path, reason: str, narrowed: str = "", hint: str | None = None) -> None:
        super().__init__(f"{bundle} {reason}{narrowed}", hint)
        self.reason = reason


@dataclass(frozen=True)
class Asked:
    """What a figure is drawn from, narrowed by ``chosen`` stacks, ``workload`` and ``clock``.

    Where one is not given, the figure decides. ``table``: the run's overheads at this level, if already computed;
    otherwise they are computed once.
    """

    run: Run
    chosen: tuple[str, ...] = ()
    workload: str | None = None
    clock: str | None = None
    level: float = 0.95
    table: pd.DataFrame | None = field(default=None, repr=False, compare=False)

    def of_chosen(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of the stacks asked for; all rows if none was."""
        return frame[frame["stack"].isin(self.chosen)] if self.chosen else frame

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of each workload."""
        return {name: workload.title for name, workload in self.run.info.workloads.items()}

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of each workload."""
        return {name: workload.kind for name, workload in self.run.info.workloads.items()}

    @cached_property
    def primary(self) -> dict[str, str]:
        """The primary metric of each workload."""
        return self.run.info.primary

    @cached_property
    def stacks(self) -> list[str]:
        """All stacks: first those compared with a baseline, in the order that fixes their colours in every figure."""
        samples = self.run.samples
        roots = {*samples.loc[samples["stack"] == samples["baseline"], "stack"].unique()}
        order = dict.fromkeys([*self.run.info.techniques, *samples["stack"].unique()])
        return sorted(order, key=lambda name: name in roots)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The samples with the clock in question, of the workload asked for if any."""
        return self._narrow(self.run.samples)

    @cached_property
    def overheads(self) -> pd.DataFrame:
        """The overheads with the clock in question, of the workload and stacks asked for if any."""
        table = self.run.overheads(level=self.level) if self.table is None else self.table
        return self.of_chosen(self._narrow(table))

    @cached_property
    def by(self) -> str | None:
        """The clock to use: the one asked for, that of the stacks, or the first one present."""
        samples = self.run.samples
        found = {*self.of_chosen(samples)["clock"].unique()}
        if self.clock:
            return self.clock if self.clock in found else None
        return next((clock for clock in CLOCKS if clock in found), None)

    def _narrow(self, frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame[frame["clock"] == self.by]
        return frame[frame["workload"] == self.workload] if self.workload else frame

    def one_workload(self) -> str:
        """The workload asked for, or the one with the highest overhead in any stack."""
        if self.workload:
            return self.workload
        cells = self.of_primary(self.overheads).dropna(subset=["ratio"])
        called = cells[cells["verdict"].isin(CALLED)]
        cells = cells if called.empty else called
        if cells.empty:
            raise self.lacks("a comparison")
        return str(cells["workload"].iloc[int(cells["ratio"].argmax())])

    def of_primary(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of each workload's primary metric."""
        return frame[frame["metric"] == frame["workload"].map(self.primary).fillna(frame["metric"])]

    def cell(self, frame: pd.DataFrame, workload: str) -> pd.DataFrame:
        """The rows of a workload's primary metric, for one set of parameters."""
        some = self.of_primary(frame[frame["workload"] == workload])
        return some[some["params"] == some["params"].iloc[0]] if len(some) else some

    def lacks(self, what: str) -> Lacking:
        """The error saying what the bundle lacks for this query."""
        words = [f"of {self.workload}"] if self.workload else []
        words += [f"in {', '.join(self.chosen)}"] if self.chosen else []
        by = f" measured in {self.clock}" if self.clock else ""
        return Lacking(self.run.path, " ".join(["holds no", what.removeprefix("a "), *words]), by)

    def title(self, workload: str) -> str:
        """A workload's title and primary metric."""
        return f"{self.titles.get(workload, workload)} ({self.primary.get(workload, 'value')})"


def choose(
    run: Run,
    *,
    stack: str | Sequence[str] | None = None,
    workload: str | None = None,
    clock: str | None = None,
    level: float = 0.95,
) -> Asked:
    """Validate a query. ``stack``: one or several; the leading ``local/`` may be omitted.

    Raises ``UsageError`` for a stack, workload or clock that is not in the bundle.
    """
    if clock is not None and clock not in CLOCKS:
        raise UsageError(f"there is no clock {clock!r}", "clocks: wall, instructions")
    measured = list(run.samples["stack"].unique())
    chosen = [_measured(name, measured) for name in ([stack] if isinstance(stack, str) else stack or ())]
    known = list(run.samples["workload"].unique())
    if workload is not None and workload not in known:
        raise UsageError(
            f"{workload} was not measured", f"workloads in this bundle: {', '.join(known) or 'none'}"
        )
    clocks = {*run.samples.loc[run.samples["stack"].isin(chosen), "clock"].unique()}
    if len(clocks) > 1 and clock is None:
        raise UsageError(
            "these stacks are timed by different kinds of clock, which never share a figure",
            "name one: --clock wall",
        )
    asked = Asked(run, tuple(dict.fromkeys(chosen)), workload, clock, level)
    if asked.by is None:
        raise asked.lacks("a measurement")
    return asked


def _measured(stack: str, measured: Sequence[str]) -> str:
    """The full path of a stack in the bundle."""
    full = stack if stack in measured else f"local/{stack}"
    if full not in measured:
        raise UsageError(
            f"{stack} was not measured", f"stacks in this bundle: {', '.join(measured) or 'none'}"
        )
    return full
