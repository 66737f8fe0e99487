"""Decomposition of a stack's overhead into a factor per layer and their interactions. pandas in, pandas out.

For a stack base/l1/.../ln, each block's cost over the baseline is decomposed in two ways ("views"). Both sum exactly
in logs, so their factors multiply exactly:

    "path"    layer by layer as stacked: log(base/l1 : base) + log(base/l1/l2 : base/l1) + ...
    "alone"   each layer alone on the baseline, log(base/l1 : base) + log(base/l2 : base) + ..., plus the
              interaction of each layer with those below it: what it costs on top of them over what it costs
              alone. No interaction means that layers multiply: UML in KVM costs UML x KVM.

In a factorial experiment with the bare baseline as reference, these interactions are the contrasts with one
layer added at a time; with two layers, the interaction term itself (Box, Hunter & Hunter, "Statistics for
Experimenters", 2nd ed. (2005), chapter 5; Jain, "The Art of Computer Systems Performance Analysis" (1991),
chapters 17 and 18, multiplicative model).

Every term is the mean over blocks of a per-block sum of logs, with its t interval; a view uses the blocks in which all
the stacks it needs were measured. Where instructions are counted, each stack has its own testbed and blocks pair by
number only: they share no noise, and the intervals are valid all the same. The baseline is the end of the chain of
baselines: ``local/testbed`` for ``local/testbed/xen/pv``, because a second there is not a second of the machine's. A
layer that was not measured alone (pv opens only on xen) is combined with the one below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vbench.errors import UsageError
from vbench.stats.blocks import CELL, ESTIMATES, costs, estimate, measured, rounded, stack_costs, texts
from vbench.stats.intervals import holm, min_blocks
from vbench.stats.overhead import floors_of
from vbench.stats.verdict import ELSEWHERE, ONE_BOOT, Texts, Verdict, first_that_holds

if TYPE_CHECKING:
    from vbench.stats.run import Run

COLUMNS = [
    *CELL, "view", "position", "role", "term", "stack", "over", "n", "log", "log_low", "log_high",
    "factor", "low", "high", "p", "p_holm", "aa_floor", "verdict", "why", "unit", "clock", "level",
]  # fmt: skip


_STEP = "step of "  # prefix of the column with a stack's resolution, beside the column with its cost


@dataclass(frozen=True)
class _Term:
    """A signed sum of stacks' costs: +1 for a stack, -1 for what it is compared with."""

    role: str
    name: str
    stack: str
    over: str
    signs: tuple[tuple[str, int], ...]


def decompose(run: Run | pd.DataFrame, stack: str, *, level: float = 0.95) -> pd.DataFrame:
    """The factor of each layer of ``stack`` and the interactions: one row per cell, view and term.

    ``run``: a loaded bundle, or its samples. Raises ``UsageError`` if the stack was not measured or is itself a
    baseline. Columns:

        workload, params, metric, unit, clock, level    the cell
        view                  "path" or "alone" (see above); ``position`` is the term's index in it, from 0
        role                  "layer", "interaction", or "total", which comes last and is the sum of the others
        term                  the layer's name, such as "uml" or "xen/pv"; "uml x chroot" for an interaction
        stack, over           the two stacks that a layer or the total compares; empty for an interaction
        n                     blocks; the same for all terms of a view
        log, log_low, log_high    mean log-ratio and its t interval (Student); terms sum exactly to the total
        factor, low, high     exp of these: terms multiply exactly to the total; above 1 is costlier
        p, p_holm             t test; Holm's correction over the interactions of all cells
        aa_floor              of the baseline: see vbench.stats.overhead.aa_floors
        verdict, why          for interactions: "costlier together", "cheaper together" or "not distinguishable"
                              from none; "undetermined" with the reason; empty for other roles

    A view that lacks a stack has a single row with the role "total" and NaN figures, and ``why`` names the stack.
    """
    samples = run if isinstance(run, pd.DataFrame) else run.samples
    known_stacks = measured(samples)[["stack", "baseline"]].drop_duplicates()
    base = _chain(known_stacks, stack)[-1]
    arms = texts(costs(samples[samples["stack"].isin(_sub_stacks(base, stack))]))
    mine = stack_costs(arms).dropna(subset=["cost"])
    near = _near(mine, base)
    known_of = mine[near].groupby(CELL, sort=False)["stack"].agg(frozenset).rename("known")
    far_of = mine[~near].groupby(CELL, sort=False)["stack"].agg(frozenset).rename("far")
    cells = known_of.to_frame().join(far_of).reset_index()
    cells = cells.assign(far=cells["far"].where(cells["far"].notna(), frozenset()))
    mine = mine[near]
    by = ["run", *CELL, "block", "boot"]
    wide = mine.pivot_table(index=by, columns="stack", values="cost", aggfunc="first")
    steps = mine.pivot_table(index=by, columns="stack", values="step", aggfunc="first").add_prefix(_STEP)
    wide = wide.join(steps)
    rows = []
    groups: Any = cells.groupby(["known", "far"], sort=False)[CELL]
    for (known, far), those in groups:
        same = those.merge(wide.reset_index(), on=CELL)
        for view, terms, why in _views(known, far, base, stack):
            rows.append(_estimated(same, those, view, terms, why, level))
    if not rows:
        raise UsageError(f"{stack} has no value above 0")
    out = pd.concat(rows, ignore_index=True)
    out["factor"], out["low"], out["high"] = (np.exp(out[c]) for c in ("log", "log_low", "log_high"))
    floors = floors_of(arms[arms["stack"] == base], level)[[*CELL, "floor"]]
    out = out.merge(floors.rename(columns={"floor": "aa_floor"}), on=CELL, how="left")
    called = (out["role"] == "interaction") & (out["n"] >= min_blocks(level))
    out["p_holm"] = holm(out["p"].where(called).to_numpy(dtype=float))
    out["verdict"], out["why"] = _verdicts(out, level)
    units = measured(samples[samples["stack"] == stack]).groupby(CELL, sort=False)
    known_as = units.agg(unit=("unit", "first"), clock=("clock", "first")).reset_index()
    out = out.merge(known_as, on=CELL).assign(level=level)
    out["order"] = out["view"].map({"path": 0, "alone": 1})
    return out.sort_values([*CELL, "order", "position"], ignore_index=True)[COLUMNS]


def _chain(known_stacks: pd.DataFrame, stack: str) -> list[str]:
    """The stack, its baseline, that one's baseline, and so on."""
    known = dict(zip(known_stacks["stack"], known_stacks["baseline"], strict=True))
    if stack not in known:
        names = ", ".join(sorted(name for name, base in known.items() if name != base)) or "none"
        raise UsageError(f"{stack} was not measured", f"stacks in this bundle: {names}")
    chain = [stack]
    while (below := known.get(chain[-1], chain[-1])) not in chain:
        chain.append(below)
    if len(chain) == 1:
        raise UsageError(f"{stack} is a baseline", "name a stack with layers")
    return chain


def _layers(base: str, stack: str) -> list[str]:
    if not stack.startswith(f"{base}/"):
        raise UsageError(f"{stack} is not built on its baseline {base}")
    return stack.removeprefix(f"{base}/").split("/")


def _sub_stacks(base: str, stack: str) -> set[str]:
    """The stacks a decomposition can use: the baseline, and every contiguous part of the stack's layers on it."""
    layers = _layers(base, stack)
    size = len(layers)
    runs = ["/".join(layers[i:j]) for i in range(size) for j in range(i + 1, size + 1)]
    return {base, *(f"{base}/{part}" for part in runs)}


def _near(mine: pd.DataFrame, base: str) -> pd.Series[bool]:
    """Mask of the costs whose network peer runs in the same place as that of their cell's baseline."""
    bases = mine[mine["stack"] == base].drop_duplicates(CELL)[[*CELL, "peer"]]
    peers = mine[CELL].merge(bases, on=CELL, how="left")["peer"].set_axis(mine.index)
    return peers.isna() | (peers == mine["peer"])


def _views(
    known: frozenset[str], far: frozenset[str], base: str, stack: str
) -> Iterator[tuple[str, list[_Term], str]]:
    """Both views as their terms, or the reason for having none. ``far``: stacks whose network peer runs elsewhere."""
    if missing := [name for name in (base, stack) if name not in known]:
        for view in ("path", "alone"):
            yield view, [], ELSEWHERE if missing[0] in far else f"{missing[0]} has no value for it"
        return
    layers = _layers(base, stack)
    total = _Term("total", "total", stack, base, ((stack, 1), (base, -1)))
    stops = [
        base,
        *(path for end in range(1, len(layers) + 1) if (path := "/".join([base, *layers[:end]])) in known),
    ]
    steps = [
        _Term("layer", above.removeprefix(f"{below}/"), above, below, ((above, 1), (below, -1)))
        for below, above in pairwise(stops)
    ]
    yield "path", [*steps, total], ""
    units = _units(known, base, layers)
    if len(units) == 1 < len(layers):
        absent = next(name for each in layers if (name := f"{base}/{each}") not in known)
        yield "alone", [], f"{absent} was not measured beside it"
        return
    alone = [
        _Term("layer", unit, f"{base}/{unit}", base, ((f"{base}/{unit}", 1), (base, -1))) for unit in units
    ]
    yield "alone", [*alone, *_interactions(known, base, units), total], ""


def _units(known: frozenset[str], base: str, layers: list[str]) -> list[str]:
    """Split the stack's layers into the most contiguous parts that were each measured alone on the baseline."""
    best: list[list[str] | None] = [[]]
    for end in range(1, len(layers) + 1):
        options = [
            [*before, unit]
            for start in range(end)
            if (before := best[start]) is not None
            and f"{base}/{(unit := '/'.join(layers[start:end]))}" in known
        ]
        best.append(max(options, key=len, default=None))
    return best[-1] or ["/".join(layers)]


def _interactions(known: frozenset[str], base: str, units: list[str]) -> Iterator[_Term]:
    """Each layer's interaction with all those below it; several layers at once if a stack between was not measured."""
    begin = 1
    for end in range(2, len(units) + 1):
        whole = "/".join([base, *units[:end]])
        if whole not in known:
            continue
        below = "/".join([base, *units[:begin]])
        added = units[begin:end]
        signs = [(whole, 1), (below, -1), *((f"{base}/{unit}", -1) for unit in added), (base, len(added))]
        yield _Term("interaction", " x ".join(units[:end]), "", "", tuple(signs))
        begin = end


def _estimated(
    wide: pd.DataFrame, cells: pd.DataFrame, view: str, terms: list[_Term], why: str, level: float
) -> pd.DataFrame:
    """One row per cell and term, from the blocks that hold all the view needs; or one row that says why not."""
    needed = sorted({name for term in terms for name, _ in term.signs})
    whole = wide.dropna(subset=needed)
    parts = []
    for position, term in enumerate(terms):
        effect = sum((sign * whole[name].to_numpy() for name, sign in term.signs), np.zeros(len(whole)))
        step = sum(
            (abs(sign) * whole[_STEP + name].to_numpy() for name, sign in term.signs), np.zeros(len(whole))
        )
        part = estimate(whole[[*CELL, "boot"]].assign(effect=rounded(effect), step=step), CELL, level)
        part["log"], part["log_low"], part["log_high"] = part["mean"], part["mean_low"], part["mean_high"]
        parts.append(part.assign(role=term.role, term=term.name, stack=term.stack, over=term.over))
        parts[-1]["position"] = position
    out = (
        pd.concat(parts, ignore_index=True)
        if parts
        else cells.iloc[:0].assign(n=0, **dict.fromkeys(ESTIMATES, np.nan))
    )
    done = pd.MultiIndex.from_frame(out[CELL])
    gaps = cells[~pd.MultiIndex.from_frame(cells).isin(done)].assign(
        role="total",
        term="total",
        stack="",
        over="",
        position=0,
        n=0,
        why=why or "no block has all that it needs",
    )
    return pd.concat([out.assign(why=""), gaps], ignore_index=True).assign(view=view)


def _verdicts(out: pd.DataFrame, level: float) -> tuple[Texts, Texts]:
    """Verdict and reason as for overheads: significant after correction, and larger than the A/A floor."""
    together = (out["role"] == "interaction").to_numpy()
    few = (out["n"] < min_blocks(level)).to_numpy()
    floor = np.log1p(out["aa_floor"].to_numpy(dtype=float))
    undetermined, same = Verdict.UNDETERMINED, Verdict.NOT_DISTINGUISHABLE
    multiply = "the layers multiply, as far as can be told"
    return first_that_holds(
        [
            (~together, "", out["why"]),
            (few, undetermined, f"needs at least {min_blocks(level)} blocks"),
            (out["log_low"].isna(), undetermined, ONE_BOOT),
            (np.isnan(floor), undetermined, "needs the baseline measured twice a block"),
            (out["p_holm"] > 1 - level, same, multiply),
            (out["log"].abs() <= floor, same, "within the A/A floor"),
            ((out["log_low"] <= 0) & (out["log_high"] >= 0), same, multiply),
            (out["log"] > 0, Verdict.COSTLIER_TOGETHER, ""),
        ],
        Verdict.CHEAPER_TOGETHER,
    )
