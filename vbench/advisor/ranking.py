"""Ranking: what each stack costs under a mix of work, per block, and how stacks compare within a block.

Per block, a stack's cost is the weighted mean over cells of log(stack / bare baseline), i.e. a weighted geometric mean
of ratios: weights say how much a kind of work matters, not how long it takes. A block counts only if it holds every
cell of the mix. Estimates and intervals: ``vbench.stats.blocks``, ``vbench.stats.intervals``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from vbench.advisor.scoring import CELL_KEY, Cell, Costs, cell_names, cells_of, table_of
from vbench.stats.blocks import costs, estimate, rounded
from vbench.stats.intervals import Floats, holm, min_blocks
from vbench.stats.overhead import ground_of
from vbench.stats.verdict import ELSEWHERE, Verdict, first_that_holds
from vbench.workload.mix import Mix

MOST_BLOCKS = 10_000  # never name a number of blocks beyond this


class Estimate(NamedTuple):
    """What ``vbench.stats.blocks.estimate`` tells of ``n`` blocks, in logs; NaN: too few for an interval."""

    n: int
    log: float
    low: float
    high: float
    boots: int = 0

    @property
    def ratio(self) -> tuple[float, float, float]:
        """Estimate, low and high as ratios."""
        return math.exp(self.log), math.exp(self.low), math.exp(self.high)


class Ranking:
    """Stacks on one bare baseline, weighted by one mix, without the cells in ``left_out``.

    The weight of a cell left out goes to the other cells of its atom (kind or workload), in proportion.
    """

    def __init__(self, table: Costs, mix: Mix, level: float, left_out: Collection[Cell] = ()) -> None:
        self._table, self.mix, self.level, self.left_out = table, mix, level, frozenset(left_out)
        self.baseline = table.baseline
        self.clock = table.clocks.get(table.baseline, "wall")
        self._base = cells_of(table.wide, self.baseline).dropna(axis="columns", how="all")
        measured = [cell for cell in cell_names(self._base) if cell not in self.left_out]
        self._shares = {atom: _shares(mix.shares[atom], measured) for atom in mix.atoms}
        weights: dict[Cell, float] = {}
        for atom, shares in self._shares.items():
            for cell, share in shares.items():
                weights[cell] = weights.get(cell, 0.0) + mix.atoms[atom] * share
        self.weights = weights
        """By cell; they sum to the share of the mix that the bundle covers."""
        self._logs: dict[str, pd.DataFrame] = {}

    @property
    def stacks(self) -> list[str]:
        """The names of all stacks except the baseline."""
        return self._table.members

    @property
    def carried(self) -> float:
        """The share of the mix that the cells in use cover."""
        return sum(self.weights.values())

    @property
    def gone(self) -> list[str]:
        """The parts of the mix that the baseline itself lacks, or that have no cells left, with the reason."""
        known = {workload for workload, _ in cell_names(self._base)}
        out = [f"{atom}: no workload of this kind in the bundle" for atom in self.mix.absent]
        out += [
            f"{name}: not measured in {self.baseline}" for name in self.mix.workloads if name not in known
        ]
        emptied = [atom for atom, shares in self._shares.items() if self.mix.shares[atom] and not shares]
        return out + [
            f"{atom}: none of its cells takes part" for atom in emptied if {*self.mix.shares[atom]} & known
        ]

    def name(self, cell: Cell) -> str:
        """A cell as users see it: its workload, plus the parameters if it was measured with several."""
        several = sum(workload == cell[0] for workload, _ in cell_names(self._base)) > 1
        return f"{cell[0]} {cell[1]}" if several else cell[0]

    def without(self, cells: Iterable[Cell]) -> Ranking:
        """The same ranking with these cells left out too."""
        return Ranking(self._table, self.mix, self.level, {*self.left_out, *cells})

    def missing(self, stack: str) -> dict[Cell, str]:
        """The cells of the mix for which a stack has no ratio, and the reason (empty if unknown)."""
        if self._table.clocks[stack] != self.clock:
            return dict.fromkeys(self.weights, "its baseline is timed by another kind of clock")
        out = {cell: ELSEWHERE for cell in self.weights if (stack, cell) in self._table.far}
        ratios = self._ratios(stack)
        return out | {cell: "" for cell in self.weights if cell not in out and ratios[cell].isna().all()}

    def _ratios(self, stack: str) -> pd.DataFrame:
        """log(stack / baseline): one row per block, one column per cell of the mix."""
        if stack not in self._logs:
            cells = pd.MultiIndex.from_tuples(list(self.weights), names=CELL_KEY)
            mine, base = (
                each.reindex(columns=cells) for each in (cells_of(self._table.wide, stack), self._base)
            )
            self._logs[stack] = mine - base
        return self._logs[stack]

    @cached_property
    def effects(self) -> pd.DataFrame:
        """Log cost under the mix: one column per stack, one row per block; NaN if the block lacks a cell of the mix."""
        nothing = pd.Series(np.nan, index=self._table.wide.index)
        return pd.DataFrame(
            {
                s: self._mixed(self._ratios(s)) if self.weights and not self.missing(s) else nothing
                for s in self.stacks
            },
            index=self._table.wide.index,
        )

    def _mixed(self, cells: pd.DataFrame) -> pd.Series[float]:
        weights = np.array([self.weights[cell] for cell in cell_names(cells)])
        mixed: pd.Series[float] = (cells * weights).sum(axis=1, skipna=False) / weights.sum()
        return mixed

    @cached_property
    def means(self) -> pd.DataFrame:
        """Mean log-ratio: one column per stack, one row per atom of the mix; NaN if a cell is missing."""
        out = {}
        for stack in self.stacks:
            mean, absent = self._ratios(stack).mean(), self.missing(stack)
            out[stack] = {
                atom: math.nan
                if absent.keys() & shares
                else sum(float(mean[c]) * w for c, w in shares.items())
                for atom, shares in self._shares.items()
                if shares
            }
        return pd.DataFrame(out)

    @cached_property
    def floor(self) -> float:
        """The A/A floor of the mix: the bound further from 0 of the interval of log(A'/A); NaN: too few blocks."""
        cells = pd.MultiIndex.from_tuples(list(self.weights), names=CELL_KEY)
        second, first = (cells_of(self._table.arms, arm).reindex(columns=cells) for arm in ("A'", "A"))
        gap = self._mixed(second - first) if self.weights else pd.Series(dtype=float)
        frame = pd.DataFrame({"of": "baseline", "effect": gap, "step": 2 * self._step(self.baseline)})
        row = estimate(frame.reset_index(), ["of"], self.level)
        return float(row[["log_low", "log_high"]].abs().max(axis=1).iloc[0]) if len(row) else math.nan

    def _step(self, stack: str) -> float:
        """The resolution of a stack's readings under the mix, in logs."""
        steps = self._table.steps
        each = sum(weight * float(steps.get((stack, *cell), 0.0)) for cell, weight in self.weights.items())
        return each / self.carried if self.weights else 0.0

    def artefacts(self, stacks: Iterable[str]) -> dict[Cell, dict[str, float]]:
        """The cells in which any of ``stacks`` beats its baseline beyond doubt, with the ratios there.

        That is usually an artefact (another path, a cache below), which is why ``vbench.stats.overhead`` flags it.
        """
        names: list[tuple[str, Cell]] = []
        steps, frames = self._table.steps, []
        for stack in stacks:
            ratios = self._ratios(stack)
            for cell in self.weights.keys() - self.missing(stack).keys():
                step = float(steps.get((stack, *cell), 0.0)) + float(steps.get((self.baseline, *cell), 0.0))
                frames.append(pd.DataFrame({"of": len(names), "effect": ratios[cell], "step": step}))
                names.append((stack, cell))
        found: dict[Cell, dict[str, float]] = {}
        if names:
            told = estimate(pd.concat(frames).reset_index(), ["of"], self.level)
            below = told[told["log_high"] < 0]
            for of, log in zip(below["of"], below["log"], strict=True):
                stack, cell = names[of]
                if -log > self._cell_floors.get(cell, 0.0):
                    found.setdefault(cell, {})[stack] = math.exp(log)
        return {cell: found[cell] for cell in self.weights if cell in found}

    @cached_property
    def _cell_floors(self) -> dict[Cell, float]:
        """The A/A floors of single cells, as far as there are enough blocks for one."""
        cells, steps = list(self.weights), self._table.steps
        second, first = (cells_of(self._table.arms, arm) for arm in ("A'", "A"))
        frames = []
        for number, cell in enumerate(cells):
            if cell in second and cell in first:
                step = 2 * float(steps.get((self.baseline, *cell), 0.0))
                frames.append(
                    pd.DataFrame({"of": number, "effect": second[cell] - first[cell], "step": step})
                )
        if not frames:
            return {}
        told = estimate(pd.concat(frames).reset_index(), ["of"], self.level)
        bounds = told[["log_low", "log_high"]].abs().max(axis=1)
        floors = {cells[of]: float(bound) for of, bound in zip(told["of"], bounds, strict=True)}
        return {cell: floor for cell, floor in floors.items() if not math.isnan(floor)}

    def estimates(self) -> dict[str, Estimate]:
        """By stack, its cost over the baseline; stacks without a complete block are left out."""
        long = self.effects.melt(var_name="stack", value_name="effect", ignore_index=False).reset_index()
        base = self._step(self.baseline)
        long["step"] = (
            long["stack"].map({stack: base + self._step(stack) for stack in self.stacks}).astype(float)
        )
        return _by_stack(estimate(long, ["stack"], self.level))

    def difference(self, stack: str, other: str) -> Floats:
        """log(``other`` / ``stack``) in each block that has both."""
        return np.asarray(self._difference(stack, other), dtype=np.float64)

    def _difference(self, stack: str, other: str) -> pd.Series[float]:
        gap = (self.effects[other] - self.effects[stack]).dropna()
        return pd.Series(rounded(gap.to_numpy(dtype=float)), gap.index)

    def compare(
        self, best: str, others: Sequence[str], threshold: float = 0.0
    ) -> dict[str, tuple[Estimate, str]]:
        """How much more each of ``others`` costs than ``best``, and a verdict, decided as in ``vbench.stats.overhead``.

        Verdicts: "costlier", "cheaper", "not distinguishable" or "undetermined" (too few blocks in common, or no
        A/A floor).
        """
        if not others:
            return {}
        mine = self._step(best)
        long = pd.concat(
            pd.DataFrame({"stack": o, "effect": self._difference(best, o), "step": mine + self._step(o)})
            for o in others
        )
        out = estimate(long.reset_index(), ["stack"], self.level)
        few = (out["n"] < min_blocks(self.level)) | out["log_low"].isna()
        p_holm = holm(out["p"].where(~few).to_numpy(dtype=float))
        limit = max(self.floor, math.log1p(threshold))
        same = (out["log_low"] <= 0) & (out["log_high"] >= 0)
        same |= (out["log"].abs() <= limit) | (p_holm > 1 - self.level)
        verdicts, _ = first_that_holds(
            [
                (few | math.isnan(self.floor), Verdict.UNDETERMINED, ""),
                (same, Verdict.NOT_DISTINGUISHABLE, ""),
                (out["log"] > 0, Verdict.COSTLIER, ""),
            ],
            Verdict.CHEAPER,
        )
        told = _by_stack(out)
        found = {stack: (told[stack], str(verdict)) for stack, verdict in zip(told, verdicts, strict=True)}
        nothing = (Estimate(0, math.nan, math.nan, math.nan), Verdict.UNDETERMINED.value)
        return {other: found.get(other, nothing) for other in others}

    def blocks_needed(self, stack: str, other: str) -> int | None:
        """About how many blocks it would take to tell two stacks apart if difference and noise stay as they are.

        The fewest for which the expected t interval of the mean log difference clears the A/A floor; ``None`` if no
        number up to 10,000 does.
        """
        difference = self.difference(stack, other)
        floor = 0.0 if math.isnan(self.floor) else self.floor
        if difference.size < 2:
            return None
        margin = abs(float(difference.mean())) - floor
        if margin <= 0:
            return None
        sd = float(difference.std(ddof=1))
        counts = np.arange(min_blocks(self.level), MOST_BLOCKS + 1)
        half = stats.t.ppf((1 + self.level) / 2, counts - 1) * sd / np.sqrt(counts)
        enough = counts[half < margin]
        return int(enough[0]) if enough.size else None


def _by_stack(table: pd.DataFrame) -> dict[str, Estimate]:
    columns = (table[name].to_list() for name in ("stack", "n", "log", "log_low", "log_high", "boots"))
    return {stack: Estimate(*values) for stack, *values in zip(*columns, strict=True)}


def rank(samples: pd.DataFrame, mix: Mix, *, level: float = 0.95) -> list[Ranking]:
    """Rank a bundle's stacks, in one group per bare baseline. ``samples``: those of primary metrics only."""
    all_costs = costs(samples)
    known = dict(zip(all_costs["stack"], all_costs["baseline"], strict=True))
    grounds: dict[str, list[str]] = {}
    for stack in sorted(known):
        grounds.setdefault(ground_of(known, stack), []).append(stack)
    return [Ranking(table_of(all_costs, ground, members), mix, level) for ground, members in grounds.items()]


def _shares(workloads: dict[str, float], measured: Sequence[Cell]) -> dict[Cell, float]:
    """An atom's shares by cell, summing to 1: each workload's share is split equally over its parameters."""
    cells = {name: [cell for cell in measured if cell[0] == name] for name in workloads}
    total = sum(share for name, share in workloads.items() if cells[name])
    return {cell: workloads[name] / total / len(mine) for name, mine in cells.items() for cell in mine}
