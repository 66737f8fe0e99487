"""What changed between two runs of the same plan, and whether that is more than noise. pandas in, pandas out.

Runs on different days share no noise, so blocks are not paired across them: each cell gives two independent samples
of blocks. The change is the Hodges-Lehmann shift between them, with the exact rank-sum interval; Welch's t test goes
into Holm's correction over the cells (sources: ``vbench.stats.intervals``).

The ``basis`` says what is compared:

    "ratio"   for wall-clock cells: log(stack / bare baseline) per block. Whatever slows the whole machine on one of
              the days affects both alike and cancels out, as within a run; raw values would differ every day. Each
              stack is compared with the lowest baseline, so that a change in one stack does not show up again in the
              stacks on top of it.
    "value"   where instructions are counted: log of the value, because nothing outside can affect it and there is no
              common noise to cancel. ``absolute`` selects this for wall-clock cells too.

A ratio does not say which of its two sides changed. The baseline's own row is its cost over the mean of the stacks on
it. If that changed, and most of the stacks' ratios changed by what a change of the baseline alone explains, then the
baseline is called and the stacks are not: one cause is likelier than several. If the values themselves say more,
because one side's changed and the other's did not, they decide; for a single stack only they can, and without them
the change is attributed to the stack. If everything moved together, nothing is called: it was the machine.

A change is called only if its interval excludes 1, its corrected test agrees, and it exceeds both the threshold and
the larger A/A floor of the two runs. A run opens each environment once, and blocks cannot show how one opening
differs from the next (memory layout, boot order): to find a threshold that covers this, compare two runs of the same
plan with nothing changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vbench.errors import NotComparable
from vbench.stats.blocks import CELL
from vbench.stats.compare.comparable import Difference, differences, obstacles, same_cells
from vbench.stats.compare.differences import KEY, Side, changes, judge
from vbench.stats.verdict import CALLED, Verdict

if TYPE_CHECKING:
    from vbench.stats.run import Run

CHANGED = (*CALLED, Verdict.FAILED, Verdict.WORKS_AGAIN)
COLUMNS = [
    "stack", *CELL, "basis", "against", "before", "after", "change", "low", "high", "p", "p_holm", "floor",
    "n_before", "n_after", "verdict", "why", "value_change", "unit", "clock", "level",
]  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two bundles.

    ``cells``: one row per stack, workload, params and metric of either bundle, with the columns

        basis, against        what is compared (see above); the denominator of a ratio, otherwise empty
        before, after         the ratio (Hodges-Lehmann), or the median of the values in ``unit``
        change, low, high     after over before and its interval: 1.05 is 5% costlier, whatever the unit
        p, p_holm             Welch's t test, and Holm's correction over the cells of that basis
        floor                 the larger A/A floor of the two runs (0.02: 2%)
        n_before, n_after     blocks
        verdict               "costlier", "cheaper", "not distinguishable", "undetermined"; "failed" and "works
                              again" where the stack or cell is recorded as failed in one run; "only before" and
                              "only after" where it was simply not planned
        why                   the reason for a verdict other than a change
        value_change          after over before of the raw values, whatever the basis
        unit, clock, level

    ``obstacles`` are what made the bundles incomparable, if the comparison was forced; ``differences`` are possible
    causes of a change.
    """

    before: Run
    after: Run
    cells: pd.DataFrame
    obstacles: list[Difference]
    differences: list[Difference]

    @property
    def changed(self) -> pd.DataFrame:
        """The cells that changed."""
        return self.cells[self.cells["verdict"].isin(CHANGED)]

    @property
    def decidable(self) -> bool:
        """Whether anything can be said about any cell, beyond "undetermined" and "in one bundle only"."""
        nothing_said = (Verdict.UNDETERMINED, Verdict.ONLY_BEFORE, Verdict.ONLY_AFTER)
        return not self.cells["verdict"].isin(nothing_said).all()


def compare(
    before: Run,
    after: Run,
    *,
    level: float = 0.95,
    threshold: float = 0.0,
    absolute: bool = False,
    force: bool = False,
) -> Comparison:
    """Compare two bundles cell by cell.

    Raises ``NotComparable``, naming the fields, if they do not describe the same things; ``force`` compares what they
    have in common, if anything, and keeps the fields in the result.
    """
    found = obstacles(before, after)
    if found and not force:
        raise NotComparable(
            f"{before.path} and {after.path} are not comparable: {'; '.join(map(str, found))}",
            "use --force to compare them anyway; the result says so",
        )
    cells = _cells(before, after, level, threshold, absolute)
    return Comparison(before, after, cells, found, differences(before, after))


def _cells(before: Run, after: Run, level: float, threshold: float, absolute: bool) -> pd.DataFrame:
    cells = same_cells(before.samples, after.samples)
    both = cells.loc[cells["where"] == "both", KEY]
    one, two = (Side.of(run.samples.merge(both, on=KEY), level) for run in (before, after))
    cells["against"] = cells["stack"].map({**one.roots, **two.roots})
    known = pd.concat([one.known, two.known]).drop_duplicates(KEY, keep="last")
    cells = cells.merge(known[[*KEY, "unit", "clock"]], on=KEY, how="left")
    floors = pd.concat([one.floors, two.floors]).groupby(["against", *CELL])["floor"]
    floor = floors.agg(lambda both: both.max(skipna=False) if len(both) == 2 else np.nan).reset_index()
    cells = cells.merge(floor, on=["against", *CELL], how="left")
    values = judge(cells, changes(one.values, two.values, level), level, threshold)
    ratios = judge(cells, changes(one.ratios, two.ratios, level), level, threshold)
    values, ratios = values.set_index(KEY), ratios.set_index(KEY)
    _attribute(values, ratios)
    by_value = (cells["clock"].ne("wall") | absolute).to_numpy()
    out = pd.concat([values[by_value], ratios[~by_value]]).loc[values.index]
    medians = (side.known.set_index(KEY)["median"].reindex(out.index) for side in (one, two))
    for name, median in zip(("before", "after"), medians, strict=True):
        out[name] = np.where(by_value, median, np.exp(out[f"log_{name}"].to_numpy(dtype=float)))
    out["basis"] = np.where(by_value, "value", "ratio")
    root = out.index.get_level_values("stack") == out["against"]
    out["against"] = np.where(by_value, "", np.where(root, "the stacks on it", out["against"]))
    for name, log in (("change", out["log"]), ("low", out["log_low"]), ("high", out["log_high"])):
        out[name] = np.exp(log.to_numpy(dtype=float))
    out["value_change"] = np.exp(values["log"].to_numpy(dtype=float))
    out["level"] = level
    out = out.reset_index()
    _one_sided(out, "before", Verdict.FAILED, Verdict.ONLY_BEFORE, after)
    _one_sided(out, "after", Verdict.WORKS_AGAIN, Verdict.ONLY_AFTER, before)
    out[["n_before", "n_after"]] = out[["n_before", "n_after"]].fillna(0).astype(int)
    return out[COLUMNS].sort_values(KEY, ignore_index=True)


def _attribute(values: pd.DataFrame, ratios: pd.DataFrame) -> None:
    """Distinguish a changed baseline from changed stacks, in place; see the module docstring."""
    cell = pd.MultiIndex.from_arrays([ratios.index.get_level_values(name) for name in CELL])
    root = ratios.index.get_level_values("stack") == ratios["against"]
    moved, apart = values["verdict"].isin(CHANGED), ratios["verdict"].isin(CHANGED)
    for key in ratios.index[root]:
        on_it = (ratios["against"] == key[0]) & (cell == key[1:]) & ~root & ratios["log"].notna()
        if not on_it.any():
            why = "no stack beside it tells a change from another day: compare absolute values"
            ratios.loc[[key], ["verdict", "why"]] = Verdict.UNDETERMINED.value, why
        elif _is_cause(ratios.loc[key], ratios[on_it], bool(moved[key]), moved[on_it]):
            theirs = ratios.index[apart & on_it]
            why = "its baseline changed, not it"
            ratios.loc[theirs, ["verdict", "why"]] = Verdict.NOT_DISTINGUISHABLE.value, why
        elif apart[key]:
            why = "stacks on it changed, not it"
            ratios.loc[[key], ["verdict", "why"]] = Verdict.NOT_DISTINGUISHABLE.value, why


def _is_cause(base: Any, stacks: pd.DataFrame, moved: bool, they_moved: pd.Series[Any]) -> bool:
    """Whether a change of the baseline alone explains how the stacks on it moved."""
    called = stacks["verdict"].isin(CHANGED)
    if base["verdict"] not in CHANGED or 2 * called.sum() <= len(stacks):
        return False
    alike = ((stacks["log_low"] <= -base["log"]) & (-base["log"] <= stacks["log_high"])).all()
    if len(stacks) == 1 or moved != they_moved.any():
        return moved and not they_moved.any()
    return bool(alike)


def _one_sided(out: pd.DataFrame, side: str, failed: Verdict, unplanned: Verdict, other: Run) -> None:
    """Set the verdict of cells in one bundle only: they failed in the other, or were never planned there."""
    for row in out.index[out["where"] == side]:
        stack, workload = out.loc[row, "stack"], out.loc[row, "workload"]
        reasons = [
            f.reason for f in other.info.failures if f.stack == stack and f.workload in (None, workload)
        ]
        out.loc[row, ["verdict", "why"]] = (
            (failed.value, reasons[0]) if reasons else (unplanned.value, f"{other.path} has no such cell")
        )
