"""The stacks on one baseline as candidates: judged by needs, weighed by cost, and what can be said of them.

Two stacks are compared within each block, so that the baseline and what a block has in common drop out; a
difference is called only when its interval excludes none, Holm's correction agrees, and it exceeds what the
baseline, measured twice, differs from itself under the same mix. Where that does not carry a choice, none is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vbench import catalog, sensitivity
from vbench.intervals import min_blocks
from vbench.mix import Mix
from vbench.needs import Judgement, Need, judge_stack
from vbench.store import Failure
from vbench.weigh import Estimate, Weighed

_NOTHING = Estimate(0, math.nan, math.nan, math.nan)
_UNDECIDED = "Not decidable from this data"


@dataclass(frozen=True)
class Answer:
    """What the data say of stacks that share a baseline and a clock; ``choice`` only where it is decided."""

    baseline: str
    clock: str
    choice: str | None
    text: str
    sensitivity: list[str]

    @property
    def headline(self) -> str:
        """The answer, with what it holds for."""
        clock = "instructions counted" if self.clock == "instructions" else "wall clock"
        return f"Over {self.baseline} ({clock}): {self.text}"


class Candidates:
    """The stacks on one baseline, judged and weighed. ``failures``: those of the run."""

    def __init__(
        self, weighed: Weighed, wanted: list[Need], mix: Mix, threshold: float, failures: Sequence[Failure]
    ) -> None:
        self.weighed, self.wanted, self.mix, self.failures = weighed, wanted, mix, failures
        self.judged = {stack: judged(wanted, stack) for stack in weighed.stacks}
        self.estimates = weighed.estimates()
        self.logs = {stack: each.log for stack, each in self.estimates.items()}
        self.eligible = [s for s in weighed.stacks if _verdict_of(self.judged[s]) == "met"]
        self.aside = self._set_aside()
        self.complete = sorted((s for s in self.eligible if s in self.logs), key=lambda s: self.logs[s])
        self.best = self.complete[0] if self.complete else None
        self.compared = weighed.compare(self.best, self.complete[1:], threshold) if self.best else {}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Of the table: eligible stacks first, the cheapest of them first."""
        order = [*self.complete, *(s for s in self.weighed.stacks if s not in self.complete)]
        for stack in order:
            known = self.estimates.get(stack, _NOTHING)
            yield {
                **about(stack, self.judged[stack]),
                "baseline": self.weighed.baseline,
                "clock": self.weighed.clock,
                "n": known.n,
                **dict(zip(("ratio", "low", "high"), known.ratio, strict=True)),
                "verdict": self._verdict(stack),
                "missing": "; ".join(self._missing(stack)),
            }

    def _verdict(self, stack: str) -> str:
        fits = _verdict_of(self.judged[stack])
        if fits != "met":
            return "ruled out" if fits == "not met" else "not decidable: a need is not documented"
        if stack in self.aside:
            return "set aside: the plan leaves out some of its cells"
        if stack not in self.logs:
            return "not decidable: cells are missing"
        if stack == self.best:
            return "lowest cost so far" if self._why_not() else "lowest cost"
        return f"{self.compared[stack][1]} against {self.best}"

    def _missing(self, stack: str) -> list[str]:
        reasons = {each.workload: each.reason for each in self.failures if each.stack == stack}
        out = []
        for cell in self.weighed.missing[stack]:
            reason = reasons.get(cell.split(" ")[0], reasons.get(None))
            out.append(f"{cell} ({reason})" if reason else cell)
        if not out and stack not in self.logs:
            out.append("no block holds every cell of the mix")
        return out

    def _set_aside(self) -> dict[str, str]:
        """Why, by stack, the plan left out cells of the mix on purpose: such a stack is not in the choice."""
        aside = {}
        for stack in self.eligible:
            planned = {e.workload: e.reason for e in self.failures if e.stack == stack and e.planned}
            gone = [cell.split(" ")[0] for cell in self.weighed.missing[stack]]
            if stack not in self.logs and gone and {*gone} <= planned.keys():
                aside[stack] = f"{len(gone)} of its cells ({planned[gone[0]]})"
        return aside

    def _why_not(self) -> str:
        """Why the data do not carry a choice; empty where they do."""
        few = min_blocks(self.weighed.level)
        if self.weighed.gone:
            carried = (
                f"only {self.weighed.carried:.0%} of the mix"
                if self.weighed.carried
                else "nothing of the mix"
            )
            return f"the bundle carries {carried} ({'; '.join(self.weighed.gone)})"
        if lacking := [s for s in self.eligible if s not in self.logs and s not in self.aside]:
            return "; ".join(f"{stack} lacks {', '.join(self._missing(stack))}" for stack in lacking)
        if self.best and (n := self.estimates[self.best].n) < few:
            return f"{n} whole blocks are too few, {few} are needed"
        if math.isnan(self.weighed.floor) and len(self.complete) > 1:
            return "the baseline was not measured twice in enough blocks, so that noise has no measure"
        if ties := self._ties():
            return f"{' and '.join([str(self.best), *ties])} are not distinguishable under this mix"
        return ""

    def _ties(self) -> list[str]:
        return [stack for stack, (_, verdict) in self.compared.items() if verdict != "costlier"]

    def answer(self) -> Answer:
        """The choice, or why there is none, and what would change it."""
        notes: list[str] = []
        why = self._why_not()
        choice = None if why or self.best is None else self.best
        if not self.eligible:
            unknown = [s for s in self.weighed.stacks if _verdict_of(self.judged[s]) == "unknown"]
            doubt = f"; {', '.join(unknown)}: not documented" if unknown else ""
            text = f"{_UNDECIDED if unknown else 'No measured stack meets the needs'}{doubt}."
        elif self.best is None:
            text = f"{_UNDECIDED}: {why}."
        else:
            text = f"{_UNDECIDED}: {why}. Lowest so far: {self._told(self.best)}." if why else self._choice()
            if not math.isnan(self.weighed.floor):
                floor = math.expm1(self.weighed.floor)
                notes.append(
                    f"Differences up to {floor:.2%} are noise: the baseline may differ so from itself."
                )
            notes += sensitivity.by_weight(self.weighed, self.mix, self.best, self.complete[1:])
            notes += [sensitivity.by_blocks(self.weighed, self.best, tie) for tie in self._ties()[:1]]
            asked = [need.name for need in self.wanted]
            notes += sensitivity.by_further_need(_layers(self.best), asked, self.best)
        notes += [f"Set aside: {s}, of which the plan leaves out {why}." for s, why in self.aside.items()]
        notes += sensitivity.by_need(self.judged, self.logs, self.best)
        return Answer(self.weighed.baseline, self.weighed.clock, choice, text, notes)

    def _choice(self) -> str:
        text = f"{self._told(str(self.best))} costs least of the stacks that meet the needs"
        if not self.compared:
            return f"{text}; it is the only one."
        second = self.complete[1]
        more, low, high = self.compared[second][0].ratio
        return f"{text}; next is {second}, {more:.3g} times as costly ({low:.3g} to {high:.3g})."

    def _told(self, stack: str) -> str:
        ratio, low, high = self.estimates[stack].ratio
        interval = (
            "no interval" if math.isnan(low) else f"{self.weighed.level:.0%} interval {low:.3g} to {high:.3g}"
        )
        odd = "; faster than it: usually an artefact" if high < 1 else ""
        return f"{stack} ({ratio:.3g} times the bare machine, {interval}{odd})"


def _layers(stack: str) -> list[str]:
    return stack.split("/")[1:]


def judged(wanted: list[Need], stack: str) -> list[Judgement]:
    """A stack path against each need."""
    return [judge_stack(need, _layers(stack)) for need in wanted]


def _verdict_of(judged: list[Judgement]) -> str:
    answers = {one.answer for one in judged}
    return next((answer for answer in ("not met", "unknown") if answer in answers), "met")


def about(stack: str, judged: list[Judgement]) -> dict[str, Any]:
    """What a table says of a stack before any measurement."""
    top = catalog.of_layer(_layers(stack)[-1]) if _layers(stack) else None
    return {
        "stack": stack,
        "system": top.name if top else "",
        "technique": top.technique if top else "",
        "needs": _verdict_of(judged),
        "reason": "; ".join(f"{one.need}: {one.reason}" for one in judged if one.answer != "met"),
    }
