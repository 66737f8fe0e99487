"""What each stack costs under a mix of work: per block, and how stacks compare within a block.

Per block, a stack's cost is the weighted mean over cells of log(stack / bare baseline), so a weighted geometric
mean of ratios: weights say how much a kind of work matters, not how long it takes. A block counts only with
every cell of the mix in it. Estimates and intervals: ``vbench.effects``, ``vbench.intervals``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from scipy import stats

from vbench.effects import costs, estimate, rounded, stack_costs
from vbench.intervals import Floats, holm, min_blocks
from vbench.mix import Mix

MOST_BLOCKS = 10_000  # beyond this, no number of blocks is named
_CELL = ["workload", "params"]


class Estimate(NamedTuple):
    """Hodges-Lehmann estimate and exact interval over ``n`` blocks, in logs; NaN: too few for an interval."""

    n: int
    log: float
    low: float
    high: float

    @property
    def ratio(self) -> tuple[float, float, float]:
        """Estimate, low and high as ratios."""
        return math.exp(self.log), math.exp(self.low), math.exp(self.high)


@dataclass(frozen=True)
class Weighed:
    """Stacks on one bare baseline, weighed by one mix.

    ``effects``: a column per stack, a row per block; NaN where the block lacks a cell of the mix. ``means``: a
    column per stack, a row per atom of the mix (kind or workload): its mean log-ratio alone. ``missing``: of
    each stack, the cells of the mix that it has no ratio for. ``gone``: what of the mix the baseline itself
    lacks. ``carried``: the share of the mix that is left. ``floor``: in logs, what the baseline differs from
    itself; NaN where it was not measured twice often enough.
    """

    baseline: str
    clock: str
    level: float
    effects: pd.DataFrame
    means: pd.DataFrame
    missing: dict[str, list[str]]
    gone: list[str]
    carried: float
    floor: float

    @property
    def stacks(self) -> list[str]:
        """All but the baseline, by name."""
        return list(self.effects.columns)

    def estimates(self) -> dict[str, Estimate]:
        """By stack, its cost over the baseline; stacks without a whole block are left out."""
        return _by_stack(
            estimate(self.effects.melt(var_name="stack", value_name="effect"), ["stack"], self.level)
        )

    def difference(self, stack: str, other: str) -> Floats:
        """``other`` over ``stack`` in each block that has both, in logs."""
        return rounded((self.effects[other] - self.effects[stack]).dropna().to_numpy(dtype=float))

    def compare(
        self, best: str, others: Sequence[str], threshold: float = 0.0
    ) -> dict[str, tuple[Estimate, str]]:
        """How much more each of ``others`` costs than ``best``, and a verdict, called as in ``vbench.overhead``.

        Verdicts: "costlier", "cheaper", "not distinguishable" or "undetermined" (too few blocks in common, or no
        A/A floor).
        """
        if not others:
            return {}
        long = pd.concat(
            pd.DataFrame({"stack": other, "effect": self.difference(best, other)}) for other in others
        )
        out = estimate(long, ["stack"], self.level)
        few = out["n"] < min_blocks(self.level)
        p_holm = holm(out["p"].where(~few).to_numpy(dtype=float))
        limit = max(self.floor, math.log1p(threshold))
        same = (out["log_low"] <= 0) & (out["log_high"] >= 0)
        same |= (out["log"].abs() <= limit) | (p_holm > 1 - self.level)
        called = np.where(out["log"] > 0, "costlier", "cheaper")
        verdicts = np.select(
            [few | math.isnan(self.floor), same], ["undetermined", "not distinguishable"], called
        )
        told = _by_stack(out)
        found = {stack: (told[stack], str(verdict)) for stack, verdict in zip(told, verdicts, strict=True)}
        nothing = (Estimate(0, math.nan, math.nan, math.nan), "undetermined")
        return {other: found.get(other, nothing) for other in others}

    def blocks_needed(self, stack: str, other: str) -> int | None:
        """About how many blocks would tell two stacks apart, were difference and noise to stay as they are.

        The fewest whose expected t interval on the mean log difference clears the A/A floor; ``None`` where no
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
    columns = (table[name].to_list() for name in ("stack", "n", "log", "log_low", "log_high"))
    return {stack: Estimate(*values) for stack, *values in zip(*columns, strict=True)}


def weigh(samples: pd.DataFrame, mix: Mix, *, level: float = 0.95) -> list[Weighed]:
    """The stacks of a bundle, a group for each bare baseline. ``samples``: of primary metrics only."""
    all_costs = costs(samples)
    known = dict(zip(all_costs["stack"], all_costs["baseline"], strict=True))
    grounds: dict[str, list[str]] = {}
    for stack in sorted(known):
        grounds.setdefault(_ground(known, stack), []).append(stack)
    return [_group(all_costs, ground, members, mix, level) for ground, members in grounds.items()]


def _ground(known: dict[str, str], stack: str) -> str:
    """The end of the chain of baselines."""
    seen = {stack}
    while (below := known.get(stack, stack)) not in seen:
        seen.add(stack := below)
    return stack


def _group(all_costs: pd.DataFrame, ground: str, members: list[str], mix: Mix, level: float) -> Weighed:
    mine = all_costs[all_costs["stack"].isin(members)]
    bare = mine[mine["stack"] == ground]
    clock = str(bare["clock"].iloc[0]) if len(bare) else "wall"
    wide = _wide(stack_costs(mine), ["stack", *_CELL])
    base = _of(wide, ground).dropna(axis="columns", how="all")
    weights = pd.Series(dict(_cell_weights(mix.workloads, base)), dtype=float)
    clocks = mine.groupby("stack")["clock"].first()
    effects, means, missing = {}, {}, {}
    for stack in members:
        if stack == ground:
            continue
        if clocks[stack] != clock:
            missing[stack] = ["every cell: its baseline is timed by another kind of clock"]
            effects[stack] = pd.Series(np.nan, index=wide.index)
            continue
        cells = _of(wide, stack).reindex(columns=weights.index) - base[weights.index]
        absent = [cell for cell in _cells(cells) if cells[cell].isna().all()]
        missing[stack] = [_name(*cell) for cell in absent]
        whole = (cells * weights).sum(axis=1, skipna=False) / weights.sum()
        effects[stack] = whole if len(weights) and not absent else pd.Series(np.nan, index=wide.index)
        means[stack] = {atom: _atom_mean(cells, share) for atom, share in mix.shares.items() if share}
    gone = [f"{atom}: no workload of this kind in the bundle" for atom in mix.absent]
    gone += [f"{name}: not measured in {ground}" for name in mix.workloads if name not in _workloads(base)]
    return Weighed(
        ground, clock, level, pd.DataFrame(effects, index=wide.index), pd.DataFrame(means), missing, gone,
        float(weights.sum()), _floor(bare, weights, level),
    )  # fmt: skip


def _wide(per_block: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return per_block.pivot_table(index=["run", "block"], columns=columns, values="cost")


def _of(wide: pd.DataFrame, name: str) -> pd.DataFrame:
    """The cells of one stack or arm; none where it has no value."""
    if name not in wide.columns.get_level_values(0):
        return pd.DataFrame(index=wide.index, columns=pd.MultiIndex.from_tuples([], names=_CELL), dtype=float)
    return cast(pd.DataFrame, wide[name])


def _workloads(base: pd.DataFrame) -> set[str]:
    return {workload for workload, _ in _cells(base)}


def _cells(base: pd.DataFrame) -> list[tuple[str, str]]:
    return cast(list[tuple[str, str]], base.columns.to_list())


def _cell_weights(workloads: dict[str, float], base: pd.DataFrame) -> Iterator[tuple[tuple[str, str], float]]:
    """A workload's weight, in equal parts to the parameters that it was measured with."""
    for workload, weight in workloads.items():
        mine = [cell for cell in _cells(base) if cell[0] == workload]
        for cell in mine:
            yield cell, weight / len(mine)


def _atom_mean(cells: pd.DataFrame, share: dict[str, float]) -> float:
    weights = pd.Series(dict(_cell_weights(share, cells)), dtype=float)
    if _workloads(cells) & share.keys() != share.keys() or cells[weights.index].isna().all().any():
        return float("nan")
    return float((cells[weights.index].mean() * weights).sum())


def _floor(bare: pd.DataFrame, weights: pd.Series[float], level: float) -> float:
    """Of the interval of the mix's A' over A, the bound further from 0, in logs."""
    wide = _wide(bare, ["arm", *_CELL])
    gap = _of(wide, "A'").reindex(columns=weights.index) - _of(wide, "A").reindex(columns=weights.index)
    mixed = (gap * weights).sum(axis=1, skipna=False) / weights.sum()
    row = estimate(pd.DataFrame({"of": "baseline", "effect": mixed}), ["of"], level)
    return float(row[["log_low", "log_high"]].abs().max(axis=1).iloc[0]) if len(row) else float("nan")


def _name(workload: str, params: str) -> str:
    return workload if params == "{}" else f"{workload} {params}"
