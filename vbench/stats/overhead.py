"""What a stack costs over its baseline: ratios, intervals, verdicts. pandas in, pandas out, no I/O.

Per cell (stack, workload, params, metric) and block, the effect is the child's cost minus the baseline's
(see ``vbench.stats.blocks``): above 0 is costlier. The baseline's cost in a block is the mean of its two
measurements, A and A' (or of the only one). Sources of the estimates and tests: ``vbench.stats.intervals``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from vbench.stats.added import ADDED, added
from vbench.stats.blocks import CELL, ESTIMATES, INVOCATION, costs, estimate, measured, paired_blocks, texts
from vbench.stats.intervals import attained_level, holm, min_blocks
from vbench.stats.verdict import (
    CORRECTED_AWAY,
    ELSEWHERE,
    FINER,
    INCLUDES_ONE,
    ONE_BOOT,
    WITHIN_FLOOR,
    Texts,
    Verdict,
    first_that_holds,
)


def aa_floors(samples: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """The A/A floor of each cell of each stack that was measured twice per block.

    The floor is the largest effect that the method does not rule out between two measurements of the same
    environment: the bound further from 0 of the exact interval of log(A'/A) over the blocks. It includes both noise
    and any position bias, and with more blocks shrinks to the bias alone. A smaller effect cannot be distinguished
    from none, and no floor lies below the resolution of the reading itself. (On A/A tests: Kohavi et al., Data Min.
    Knowl. Disc. 18 (2009).)

    Columns: stack, workload, params, metric, n, ratio, low, high (A' over A), floor (0.02: 2%).
    """
    return floors_of(costs(samples), level)


def baselines(samples: pd.DataFrame) -> dict[str, str]:
    """The baseline of each stack; a stack that is compared with no other is its own baseline."""
    pairs = samples[["stack", "baseline"]].drop_duplicates()
    return dict(zip(pairs["stack"], pairs["baseline"], strict=True))


def ground_of(known: Mapping[str, str], stack: str) -> str:
    """The end of a stack's chain of baselines; ``known`` as from :func:`baselines`."""
    seen = {stack}
    while (below := known.get(stack, stack)) not in seen:
        seen.add(stack := below)
    return stack


def floors_of(blocks: pd.DataFrame, level: float) -> pd.DataFrame:
    """:func:`aa_floors` for costs already computed."""
    key = ["run", "stack", *CELL, "block"]
    # In one opening of an environment, what is particular to that opening is in neither of the two.
    alike = blocks["clock"] == "wall"
    each = blocks.groupby(["run", "block"], sort=False, observed=True).ngroup()
    blocks = blocks.assign(boot=blocks["boot"].mask(alike, each))
    first, second = (blocks.loc[blocks["arm"] == arm, [*key, "cost", "step", "boot"]] for arm in ("A", "A'"))
    pairs = first.merge(second.drop(columns="boot"), on=key, suffixes=("_a", "_b"))
    pairs["effect"] = pairs["cost_b"] - pairs["cost_a"]
    pairs["step"] = pairs["step_a"] + pairs["step_b"]
    out = estimate(pairs, ["stack", *CELL], level)
    for name, log in (("ratio", "log"), ("low", "log_low"), ("high", "log_high")):
        out[name] = np.exp(out[log])
    out["floor"] = np.expm1(np.maximum(out["log_low"].abs(), out["log_high"].abs()))
    return out[["stack", *CELL, "n", "ratio", "low", "high", "floor"]]


def overheads(
    samples: pd.DataFrame,
    *,
    level: float = 0.95,
    threshold: float = 0.0,
    kinds: Mapping[str, str] | None = None,
    primary: Mapping[str, str] | None = None,
    families: Sequence[str] = (),
) -> pd.DataFrame:
    """What each stack costs over its baseline: one row per stack, baseline, workload, params and metric.

    Columns:
        n                             blocks in which child and baseline were both measured
        boots                         openings of environments, or boots of a deterministic machine, in which these were
                                      measured; ``n``, unless several share one
        ratio, low, high              Hodges-Lehmann ratio, exact signed-rank interval; above 1 is costlier. Its
                                      confidence is at least ``level``: see ``attained`` (6 blocks: 96.9% for 95%).
                                      With fewer boots than blocks: as the next three
        mean_ratio, mean_low, mean_high   exp of the mean log-ratio and its t interval; mean ratios multiply exactly
                                      along a stack
        added_s, added_low_s, added_high_s   how much longer an operation takes, in seconds, of a metric that is a time:
                                      see vbench.stats.added
        p, p_holm                     t test of the mean log-ratio, and Holm's correction over all rows, or those that
                                      agree in the columns ``families``; over the ``primary`` metric of each workload
                                      and over all other metrics apart, if these are given
        aa_floor                      see aa_floors(); 0.02 is 2%
        resolution                    the combined resolution of both readings; 0.002 is 0.2%. Every interval
                                      reaches at least this far to either side
        verdict, why, flag            below
        child, base, unit, better     medians of the values as measured (baseline: A and A' together)
        kind, clock, level, attained

    Verdict: "costlier" or "cheaper" if the interval excludes 1, p_holm is within 1 - level, and the effect exceeds
    both aa_floor and ``threshold`` (0.02: 2%); otherwise "not distinguishable". "undetermined" if there are too few
    blocks for an interval or a floor, or if the two cannot be compared because they use different clocks or their
    network peers run in different places. Holm's correction uses the t test because a signed-rank p-value cannot fall
    below 2^(1-n): with 6 blocks and 2 cells no effect, however large, could pass. A difference still requires the
    exact interval to exclude 1. A cheaper child is flagged: it is usually an artefact.
    """
    cell = ["stack", "baseline", *CELL]
    arms = costs(samples)
    pairs = paired_blocks(arms)
    groups = pairs.groupby(cell, sort=False, observed=True)
    out = groups.agg(
        clock=("clock", "first"), alien=("alien", "any"), apart=("apart", "any"), alone=("alone", "all")
    ).reset_index()
    out = texts(out)
    out = out.merge(estimate(pairs, cell, level), on=cell, how="left")
    floors = floors_of(arms, level)[["stack", *CELL, "floor"]]
    floors = floors.rename(columns={"stack": "baseline", "floor": "aa_floor"})
    out = out.merge(floors, on=["baseline", *CELL], how="left")
    out["n"] = out["n"].fillna(0).astype(int)
    out["p"] = out["p"].where(out["n"] >= min_blocks(level))
    first = out["metric"] == out["workload"].map(primary or {})
    family = out.groupby([first, *families], sort=False).ngroup().to_numpy()
    out["p_holm"] = holm(out["p"].to_numpy(dtype=float), family)
    out["level"] = level
    out["boots"] = out["boots"].fillna(0).astype(int)
    out["attained"] = [
        attained_level(n, level, boots) for n, boots in zip(out["n"], out["boots"], strict=True)
    ]
    out["resolution"] = np.expm1(out["step"])
    out = out.merge(added(samples, level), on=cell, how="left")
    out["kind"] = [(kinds or {}).get(name, "other") for name in out["workload"]]
    out = absolutes(samples, out)
    out["verdict"], out["why"] = _verdicts(out, level, threshold)
    artefact = "faster than its baseline: usually an artefact, look into it"
    out["flag"] = np.where(out["verdict"] == Verdict.CHEAPER, artefact, "")
    ratios = ["ratio", "low", "high", "mean_ratio", "mean_low", "mean_high"]
    out[ratios] = np.exp(out[ESTIMATES[:6]].to_numpy())
    tail = ["child", "base", "unit", "better", "kind", "clock", "level", "attained"]
    shown = ["n", "boots", *ratios, *ADDED, "p", "p_holm", "aa_floor", "resolution"]
    out = out[[*cell, *shown, "verdict", "why", "flag", *tail]]
    return out.sort_values(cell, ignore_index=True)  # the journal's order is random


def absolutes(samples: pd.DataFrame, out: pd.DataFrame) -> pd.DataFrame:
    """Add ``child`` and ``base``, the medians of the values as measured, their unit, and which direction is better."""
    s = measured(samples)
    groups = s.groupby(["stack", *CELL], sort=False)
    medians = groups.agg(
        child=("value", "median"), unit=("unit", "first"), better=("better", "first")
    ).reset_index()
    out = out.merge(medians, on=["stack", *CELL], how="left")
    medians = medians.rename(columns={"stack": "baseline", "child": "base"})[["baseline", *CELL, "base"]]
    return out.merge(medians, on=["baseline", *CELL], how="left")


def _verdicts(out: pd.DataFrame, level: float, threshold: float) -> tuple[Texts, Texts]:
    need, alpha = min_blocks(level), 1 - level
    limit = np.log1p(np.maximum(out["aa_floor"], threshold))
    undetermined, same = Verdict.UNDETERMINED, Verdict.NOT_DISTINGUISHABLE
    alone = "its baseline was not measured in the same blocks, or has no positive value"
    once = f"needs at least {need} blocks with the baseline measured twice"
    return first_that_holds(
        [
            (out["alien"], undetermined, "its baseline is timed by another kind of clock"),
            (out["apart"], undetermined, ELSEWHERE),
            (out["alone"], undetermined, alone),
            (out["n"] == 0, undetermined, "no value above 0, so no ratio"),
            (out["n"] < need, undetermined, f"needs at least {need} blocks"),
            (out["log_low"].isna(), undetermined, ONE_BOOT),
            (out["aa_floor"].isna(), undetermined, once),
            ((out["step"] > 0) & (out["log"].abs() <= out["step"]), same, FINER),
            ((out["log_low"] <= 0) & (out["log_high"] >= 0), same, INCLUDES_ONE),
            (out["log"].abs() <= limit, same, WITHIN_FLOOR),
            (out["p_holm"] > alpha, same, CORRECTED_AWAY),
            (out["log"] > 0, Verdict.COSTLIER, ""),
        ],
        Verdict.CHEAPER,
    )


def clock_disagreement(samples: pd.DataFrame, bound: float = 0.05, *, slack_s: float = 0.0) -> pd.DataFrame:
    """Where the environment's own clock and its parent's disagree: one row per stack, workload and params.

    An invocation disagrees if |guest_s - parent_s| > slack_s + bound * parent_s; ``slack_s`` allows for what the
    parent sees besides the work (a connection, a fork). Instruction-counted environments are excluded: their second
    is not a wall-clock second. Only rows with a disagreement are returned.

    Columns: stack, workload, params, n (invocations with both clocks), disagree, median and worst
    (guest_s / parent_s; worst is the one furthest from 1).
    """
    s = measured(samples)
    s = s[s["clock"] == "wall"].dropna(subset=["guest_s"]).drop_duplicates(INVOCATION)
    share = s["guest_s"] / s["parent_s"]
    off = (s["guest_s"] - s["parent_s"]).abs() > slack_s + bound * s["parent_s"]
    with np.errstate(divide="ignore"):
        distance = np.abs(np.log(share.clip(lower=0).to_numpy()))
    s = s.assign(share=share, off=off, distance=distance)
    by = ["stack", "workload", "params"]
    out = s.groupby(by, sort=False).agg(
        n=("off", "size"), disagree=("off", "sum"), median=("share", "median")
    )
    worst = s.sort_values("distance", kind="stable").groupby(by, sort=False)["share"].last().rename("worst")
    out = out.join(worst).reset_index()
    return out[out["disagree"] > 0].reset_index(drop=True)
