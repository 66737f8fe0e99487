"""What would change an answer of the decision aid: other weights, other needs, more blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from vbench.advisor.ranking import MOST_BLOCKS, Ranking
from vbench.advisor.requirements import NEEDS, Judgement, judge_stack
from vbench.stats.verdict import Verdict
from vbench.stats.wording import against, listed, share
from vbench.workload.mix import Mix


def by_weight(ranking: Ranking, mix: Mix, best: str, rivals: Sequence[str]) -> Iterator[str]:
    """The weights of a single kind or workload at which another stack would come first, by mean log-ratios.

    The other weights keep their proportions. Mixed costs are linear in the weights, so the crossing is exact.
    """
    means = ranking.means
    if means.empty or means[[best, *rivals]].isna().any().any() or ranking.gone or len(mix.atoms) < 2:
        return
    for atom, weight in mix.atoms.items():
        rest = {name: part / (1 - weight) for name, part in mix.atoms.items() if name != atom}
        found: list[tuple[float, str]] = []
        for rival in rivals:
            apart = means[rival] - means[best]
            alone, others = float(apart[atom]), sum(float(apart[name]) * part for name, part in rest.items())
            if alone == others:
                continue
            crossing = others / (others - alone)  # where crossing * alone + (1 - crossing) * others is 0
            if 0.005 <= crossing <= 0.995 and not math.isclose(crossing, weight):
                found.append((crossing, rival))
        for above in (True, False):
            side = [one for one in found if (one[0] > weight) == above]
            if side:
                crossing, rival = min(side, key=lambda one: abs(one[0] - weight))
                word = "above" if above else "below"
                yield f"With {atom} {word} {crossing:.0%} of the mix (now {weight:.0%}), {rival} would come first."


def by_cell(ranking: Ranking, best: str, rivals: Sequence[str], threshold: float) -> str:
    """Why a choice hinges on a single cell; empty if it stands without any one of them."""
    if len(ranking.weights) == 1:
        return f"the answer rests on one cell, {ranking.name(next(iter(ranking.weights)))}"
    flips: dict[str, list[str]] = {}
    for cell in ranking.weights:
        rest = ranking.without([cell])
        logs = {stack: each.log for stack, each in rest.estimates().items() if stack in {best, *rivals}}
        first = min(logs, key=lambda stack: logs[stack])
        if first != best:
            flips.setdefault(f"{first} would come first", []).append(ranking.name(cell))
            continue
        compared = rest.compare(best, rivals, threshold)
        if tied := [stack for stack, (_, verdict) in compared.items() if verdict != Verdict.COSTLIER]:
            text = f"{listed([best, *tied])} are not distinguishable"
            flips.setdefault(text, []).append(ranking.name(cell))
    return "; ".join(f"without {' or '.join(cells)}, {outcome}" for outcome, cells in flips.items())


def by_need(
    judged: Mapping[str, Sequence[Judgement]], logs: Mapping[str, float], best: str | None
) -> Iterator[str]:
    """Needs that rule out a cheaper stack. ``logs``: log-ratios under the mix, of stacks with all cells."""
    limit = logs.get(best, math.inf) if best else math.inf
    for need in dict.fromkeys(one.need for each in judged.values() for one in each):
        back = [
            stack
            for stack, each in judged.items()
            if logs.get(stack, math.inf) < limit
            and {one.need for one in each if one.answer != "met"} == {need}
        ]
        if back:
            cheapest = min(back, key=lambda stack: logs[stack])
            unknown = any(one.need == need and one.answer == "unknown" for one in judged[cheapest])
            condition = "If it were documented to meet" if unknown else "Without"
            cost = against(math.exp(logs[cheapest]), math.nan, math.nan, "its baseline")
            yield f"{condition} {need}, {cheapest} would come first ({cost})."


def by_further_need(layers: Sequence[str], asked: Sequence[str], best: str) -> Iterator[str]:
    """Needs the user did not state that would rule the choice out."""
    others = [need for name, need in NEEDS.items() if name not in asked]
    against = [need.name for need in others if judge_stack(need, layers).answer == "not met"]
    if against:
        yield f"{best} would be ruled out by: {', '.join(against)}."


def by_blocks(ranking: Ranking, best: str, rival: str) -> str:
    """How many blocks it would take to tell the two apart."""
    now = ranking.difference(best, rival).size
    if not ranking.difference(best, rival).any():
        return f"{best} and {rival} cost the same in every block: more blocks will not part them."
    needed = ranking.blocks_needed(best, rival)
    if needed is None:
        floor = "" if math.isnan(ranking.floor) else f" ({share(math.expm1(ranking.floor))} now)"
        return (
            f"No number of blocks up to {MOST_BLOCKS} parts {best} and {rival} while the baseline differs from "
            f"itself as it does{floor}; that floor shrinks with more blocks, too."
        )
    if needed <= now:
        return f"About {now} more blocks may part {best} and {rival}: the noise is not even."
    return f"About {needed} blocks in place of {now} would part {best} and {rival}, if difference and noise stay."
