"""How far cells moved between two bundles with unpaired blocks: estimates, intervals and verdicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vbench.stats.blocks import CELL, by_boot, costs, measured, no_narrower, rounded, stack_costs, texts
from vbench.stats.intervals import Floats, holm, min_blocks, shift, signed_rank, welch
from vbench.stats.overhead import floors_of, ground_of
from vbench.stats.verdict import (
    CORRECTED_AWAY,
    FINER,
    INCLUDES_ONE,
    ONE_BOOT,
    WITHIN_FLOOR,
    Verdict,
    first_that_holds,
)

KEY = ["stack", *CELL]


@dataclass(frozen=True)
class Side:
    """One bundle's blocks: an effect per cell and block, in logs, and facts about the cells.

    ``values``: the cost itself. ``ratios``: the cost over the lowest baseline's; for the baseline, its cost over the
    mean of the stacks on it, in blocks that have them all. ``floors``: A/A floor by ``against``, the baseline.
    ``roots``: the lowest baseline of each stack. ``known``: median, unit and clock of each cell.
    """

    values: pd.DataFrame
    ratios: pd.DataFrame
    floors: pd.DataFrame
    roots: dict[str, str]
    known: pd.DataFrame

    @classmethod
    def of(cls, samples: pd.DataFrame, level: float) -> Side:
        """From the samples of the cells that both bundles have."""
        arms = texts(costs(samples))
        blocks = stack_costs(arms)
        below = dict(zip(blocks["stack"], blocks["baseline"], strict=True))
        roots = {stack: ground_of(below, stack) for stack in below}
        blocks["against"] = blocks["stack"].map(roots)
        bases = blocks[["run", "stack", *CELL, "block", "cost", "peer", "step"]]
        bases = bases.rename(
            columns={"stack": "against", "cost": "base", "peer": "base_peer", "step": "base_step"}
        )
        above = blocks[blocks["stack"] != blocks["against"]].merge(
            bases, on=["run", "against", *CELL, "block"]
        )
        above = above[above["peer"] == above["base_peer"]]  # otherwise they use different paths
        above["step"] += above["base_step"]
        by = ["run", "against", *CELL, "block"]
        others = above.groupby(by, as_index=False).agg(
            cost=("cost", "mean"),
            base=("base", "first"),
            size=("cost", "count"),
            boot=("boot", "first"),
            step=("step", "max"),
        )
        most = others.groupby(["against", *CELL])["size"].transform("max")
        roots_ = others[others["size"] == most].assign(stack=others["against"])
        roots_[["cost", "base"]] = roots_[["base", "cost"]].to_numpy()
        above = pd.concat([above, roots_], ignore_index=True)
        floors = floors_of(arms[arms["stack"].isin(set(roots.values()))], level)
        known = (
            measured(samples)
            .groupby(KEY, sort=False)
            .agg(median=("value", "median"), unit=("unit", "first"), clock=("clock", "first"))
        )
        return cls(
            values=blocks.assign(effect=blocks["cost"]),
            ratios=above.assign(effect=rounded((above["cost"] - above["base"]).to_numpy(dtype=float))),
            floors=floors.rename(columns={"stack": "against"})[["against", *CELL, "floor"]],
            roots=roots,
            known=known.reset_index(),
        )


def changes(before: pd.DataFrame, after: pd.DataFrame, level: float) -> pd.DataFrame:
    """One row per cell in both bundles, all in logs: each side's estimate, and the shift between them.

    Where blocks of either side began in the same boot, these are means over boots and Welch's interval.
    """
    one, two = (
        {key: (len(rows), *_units(rows)) for key, rows in each.dropna(subset=["effect"]).groupby(KEY)}
        for each in (before, after)
    )
    rows = []
    for key, (m, x, of_boots) in one.items():
        if key not in two:
            continue
        n, y, others_too = two[key]
        told = welch(x, y, level)[0]
        if of_boots or others_too:
            found = x.mean(), y.mean(), *told
        else:
            found = signed_rank(x, level)[0, 0], signed_rank(y, level)[0, 0], *shift(x, y, level)[0], told[3]
        rows.append((*key, m, n, *found))
    names = ["n_before", "n_after", "log_before", "log_after", "log", "log_low", "log_high", "p"]
    out = pd.DataFrame(rows, columns=[*KEY, *names])
    steps = [side.groupby(KEY)["step"].median() for side in (before, after)]
    step = out[KEY].merge((steps[0] + steps[1]).reset_index(), on=KEY, how="left")["step"]
    out["step"] = step
    return no_narrower(out, "log", step.to_numpy(dtype=float))


def _units(rows: pd.DataFrame) -> tuple[Floats, bool]:
    """A cell's independent effects, as one row, and whether they are means of boots."""
    effect = rows["effect"].to_numpy(dtype=float)
    means = by_boot(effect, rows["boot"].to_numpy())
    nested = means.size < effect.size
    return (means if nested else effect)[None, :], nested


def judge(cells: pd.DataFrame, changes: pd.DataFrame, level: float, threshold: float) -> pd.DataFrame:
    """Shifts with their verdicts, one row for each of ``cells``; Holm's correction is per clock.

    Adds p_holm, verdict and why, as described in vbench.stats.compare.bundles.Comparison.
    """
    out = cells.merge(changes, on=KEY, how="left")
    few = ~(out[["n_before", "n_after"]].min(axis=1, skipna=False) >= min_blocks(level)).to_numpy()
    p = np.where(few, np.nan, out["p"].to_numpy(dtype=float))
    out["p_holm"] = holm(p, out["clock"].eq("wall").to_numpy(dtype=int))
    limit = np.log1p(np.maximum(out["floor"], threshold))
    undetermined, same = Verdict.UNDETERMINED, Verdict.NOT_DISTINGUISHABLE
    lacking = "no positive value, or no baseline in the same blocks, in both"
    out["verdict"], out["why"] = first_that_holds(
        [
            (out["log"].isna(), undetermined, lacking),
            (few, undetermined, f"needs at least {min_blocks(level)} blocks in both"),
            (out["log_low"].isna(), undetermined, f"{ONE_BOOT} in both"),
            (out["floor"].isna(), undetermined, "needs the baseline measured twice a block in both"),
            ((out["step"] > 0) & (out["log"].abs() <= out["step"]), same, FINER),
            ((out["log_low"] <= 0) & (out["log_high"] >= 0), same, INCLUDES_ONE),
            (out["log"].abs() <= limit, same, WITHIN_FLOOR),
            (out["p_holm"] > 1 - level, same, CORRECTED_AWAY),
            (out["log"] > 0, Verdict.COSTLIER, ""),
        ],
        Verdict.CHEAPER,
    )
    return out
