"""The stacks on one baseline as candidates: judged by needs, ranked by cost, and the answer that follows.

Two stacks are compared within each block, so that the baseline and whatever the block shares cancel out. A difference
is called only if its interval excludes zero, Holm's correction agrees, and it exceeds how much the baseline, measured
twice, differs from itself under the same mix. If that does not support a choice, none is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vbench.advisor import catalog, sensitivity
from vbench.advisor.ranking import Estimate, Ranking
from vbench.advisor.requirements import Judgement, Need, judge_stack
from vbench.advisor.scoring import Cell
from vbench.bundle.store import Failure, Note
from vbench.stats.intervals import attained_level, min_blocks
from vbench.stats.run import ONCE
from vbench.stats.verdict import ELSEWHERE, Verdict
from vbench.stats.wording import against, listed, number, share
from vbench.workload.mix import Mix

_NOTHING = Estimate(0, math.nan, math.nan, math.nan)
MOST_SKIPPED = 0.25
"""Up to this share of the mix may be left out for all, so that a stack whose plan leaves it out can be compared."""
MOST_NAMED = 12  # up to this many cells that an answer rests on are named; more are only counted
_UNDECIDED = "Not decidable from this data"


@dataclass(frozen=True)
class Answer:
    """What the data say about stacks that share a baseline and a clock; ``choice`` is None if undecided.

    ``added``: what the choice adds to single operations, as time; "" if nothing of the mix is told as a time.
    """

    baseline: str
    clock: str
    choice: str | None
    text: str
    sensitivity: list[str]
    added: str = ""

    @property
    def headline(self) -> str:
        """The answer, with the baseline and clock it applies to."""
        clock = "instructions counted" if self.clock == "instructions" else "wall clock"
        return f"Over {self.baseline} ({clock}): {self.text}"


class Candidates:
    """The stacks on one baseline, judged and ranked.

    ``failures`` and ``notes`` are the run's, ``facts`` the baseline's. A cell in which a candidate beats the baseline
    does not measure it (see :meth:`Ranking.artefacts`): it is left out for all, so that candidates are compared on the
    same cells. So is a small part of the mix that the plan leaves out in one of them; a candidate without a large part
    is set aside instead.
    """

    def __init__(
        self,
        ranking: Ranking,
        wanted: list[Need],
        mix: Mix,
        threshold: float,
        failures: Sequence[Failure],
        facts: Mapping[str, Any] | None = None,
        notes: Sequence[Note] = (),
    ) -> None:
        self.wanted, self.mix, self.threshold, self.failures = wanted, mix, threshold, failures
        self.facts, self.notes = facts or {}, notes
        self.judged = {stack: judged(wanted, stack) for stack in ranking.stacks}
        self.eligible = [s for s in ranking.stacks if _verdict_of(self.judged[s]) == "met"]
        self.skipped = self._skipped(ranking)
        ranking = ranking.without(self.skipped)
        self.artefacts = ranking.artefacts(self.eligible)
        self.ranking = ranking = ranking.without(self.artefacts)
        self.estimates = ranking.estimates()
        self.logs = {stack: each.log for stack, each in self.estimates.items()}
        self.aside = self._set_aside()
        self.complete = sorted((s for s in self.eligible if s in self.logs), key=lambda s: self.logs[s])
        self.best = self.complete[0] if self.complete else None
        self.compared = ranking.compare(self.best, self.complete[1:], threshold) if self.best else {}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the table: eligible stacks first, cheapest first."""
        order = [*self.complete, *(s for s in self.ranking.stacks if s not in self.complete)]
        for stack in order:
            known = self.estimates.get(stack, _NOTHING)
            yield {
                **about(stack, self.judged[stack]),
                "baseline": self.ranking.baseline,
                "clock": self.ranking.clock,
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
            return "set aside"
        if stack not in self.logs:
            return "not decidable: cells are missing"
        if stack == self.best:
            return "lowest cost so far" if self._why_not() else "lowest cost"
        return f"{self.compared[stack][1]} against {self.best}"

    def _missing(self, stack: str) -> list[str]:
        """The cells that a stack lacks, grouped by reason."""
        planned = {each.workload: each.reason for each in self.failures if each.stack == stack}
        by_reason: dict[str, list[str]] = {}
        for cell, why in self.ranking.missing(stack).items():
            reason = why or planned.get(cell[0], planned.get(None, ""))
            by_reason.setdefault(reason, []).append(self.ranking.name(cell))
        out = [f"{', '.join(cells)}{f' ({reason})' if reason else ''}" for reason, cells in by_reason.items()]
        if not out and stack not in self.logs and self.ranking.weights:
            out.append("no block holds every cell of the mix")
        return out

    def _skipped(self, ranking: Ranking) -> dict[Cell, list[str]]:
        """The cells that the plan leaves out in candidates which have most of the mix, and those candidates."""
        found: dict[Cell, list[str]] = {}
        for stack in self.eligible:
            absent = ranking.missing(stack)
            few = sum(ranking.weights[cell] for cell in absent) <= MOST_SKIPPED * ranking.carried
            if few and {cell[0] for cell in absent} <= self._planned(stack).keys():
                for cell in absent:
                    found.setdefault(cell, []).append(stack)
        rest = ranking.without(found)
        return found if math.isclose(rest.carried, ranking.carried) else {}

    def _planned(self, stack: str) -> dict[str | None, str]:
        """The workloads that the plan leaves out in a stack, with the reasons."""
        return {each.workload: each.reason for each in self.failures if each.stack == stack and each.planned}

    def _set_aside(self) -> dict[str, str]:
        """By stack, why it is not considered: its cells were left out on purpose, or do not measure it."""
        aside = {}
        for stack in self.eligible:
            planned = self._planned(stack)
            absent = self.ranking.missing(stack)
            far = [self.ranking.name(cell) for cell, why in absent.items() if why == ELSEWHERE]
            gone = [cell[0] for cell, why in absent.items() if why != ELSEWHERE]
            if stack in self.logs or not absent or not {*gone} <= planned.keys():
                continue
            reasons = [f"the plan leaves out {len(gone)} of its cells ({planned[gone[0]]})"] if gone else []
            reasons += [f"in {', '.join(far)} {ELSEWHERE}"] if far else []
            aside[stack] = " and ".join(reasons)
        return aside

    def _why_not(self) -> str:
        """Why the data do not support a choice; empty if they do."""
        if self.ranking.gone:
            carried = self.ranking.carried
            told = f"only {carried:.0%} of the mix" if carried else "nothing of the mix"
            return f"the bundle carries {told} ({'; '.join(self.ranking.gone)})"
        if lacking := [s for s in self.eligible if s not in self.logs and s not in self.aside]:
            return "; ".join(f"{stack} lacks {', '.join(self._missing(stack))}" for stack in lacking)
        return (
            "every stack that meets the needs is set aside"
            if self.best is None
            else self._why_not_best(self.best)
        )

    def _why_not_best(self, best: str) -> str:
        """Why the cheapest stack is not chosen although all the required data are there; empty if it is."""
        if (n := self.estimates[best].n) < (few := min_blocks(self.ranking.level)):
            return f"{n} whole blocks are too few, {few} are needed"
        if math.isnan(self.estimates[best].low):
            return "all blocks are of one boot or opening, two are needed"
        if math.isnan(self.ranking.floor) and len(self.complete) > 1:
            return "the baseline was not measured twice in enough blocks, so that noise has no measure"
        if ties := self._ties():
            return f"{listed([best, *ties])} are not distinguishable under this mix"
        return self._fragile

    @cached_property
    def _fragile(self) -> str:
        """Why a choice is fragile: it hinges on a single cell. Empty if it does not."""
        if self.best is None or not self.compared:
            return ""
        return sensitivity.by_cell(self.ranking, self.best, list(self.compared), self.threshold)

    def _ties(self) -> list[str]:
        return [stack for stack, (_, verdict) in self.compared.items() if verdict != Verdict.COSTLIER]

    def answer(self) -> Answer:
        """The choice, or why none is made, and what would change it."""
        notes: list[str] = []
        why = self._why_not()
        choice = None if why or self.best is None else self.best
        if not self.eligible:
            unknown = [s for s in self.ranking.stacks if _verdict_of(self.judged[s]) == "unknown"]
            doubt = f"; {', '.join(unknown)}: not documented" if unknown else ""
            text = f"{_UNDECIDED if unknown else 'No measured stack meets the needs'}{doubt}."
        elif self.best is None:
            text = f"{_UNDECIDED}: {why}."
        else:
            text = f"{_UNDECIDED}: {why}. Lowest so far: {self._told(self.best)}." if why else self._choice()
            notes += [*self._rests_on(), *self._unlike(self.best)]
            if not math.isnan(self.ranking.floor):
                floor = share(math.expm1(self.ranking.floor))
                notes.append(f"Differences up to {floor} are noise: the baseline may differ so from itself.")
            notes += sensitivity.by_weight(self.ranking, self.mix, self.best, self.complete[1:])
            notes += [sensitivity.by_blocks(self.ranking, self.best, tie) for tie in self._ties()[:1]]
            asked = [need.name for need in self.wanted]
            notes += sensitivity.by_further_need(_layers(self.best), asked, self.best)
        notes += [f"Set aside: {stack}, because {why}." for stack, why in self.aside.items()]
        notes += sensitivity.by_need(self.judged, self.logs, self.best)
        notes += self._meaning()
        return Answer(self.ranking.baseline, self.ranking.clock, choice, text, notes)

    def _rests_on(self) -> Iterator[str]:
        """Which cells are left out, and which the answer then rests on."""
        for cell, faster in self.artefacts.items():
            who = listed([f"{stack} ({number(ratio)} times)" for stack, ratio in faster.items()])
            yield f"Left out: {self.ranking.name(cell)}, in which {who} beats the baseline: usually an artefact."
        for cell, stacks in self.skipped.items():
            yield f"Left out: {self.ranking.name(cell)}, which the plan leaves out in {listed(stacks)}."
        names = [self.ranking.name(cell) for cell in self.ranking.weights]
        rest = ", ".join(names) if len(names) <= MOST_NAMED else f"the other {len(names)} cells"
        if self.artefacts or self.skipped:
            yield f"The answer rests on {rest}."

    def _unlike(self, stack: str) -> Iterator[str]:
        """The run's warnings about those cells of a stack that the answer rests on."""
        rests_on = {workload for workload, _ in self.ranking.weights}
        for note in self.notes:
            touched = not note.workloads or rests_on & {*note.workloads}
            if note.severity != "info" and note.text != ONCE and stack in note.stacks and touched:
                yield f"Not alike: {stack}: {note.text.rstrip('.')}."

    def _meaning(self) -> Iterator[str]:
        """What the baseline is and what its clock leaves out, so that nobody reads figures as over bare hardware."""
        if self.ranking.clock == "instructions":
            yield (
                "These are counts of instructions: caches, TLB misses and what entering and leaving a guest costs a "
                "processor are not in them. They say which work a technique adds, not how long a given machine takes."
            )
        else:
            if any(note.text == ONCE for note in self.notes):
                yield "Each environment was opened once: what one opening differs by from the next is in no interval."
            below = [str(self.facts.get(name, "")) for name in ("virtualized", "container")]
            signs = [sign for sign in below if sign and not sign.startswith(("no sign", "unavailable"))]
            if signs:
                told = f"{self.ranking.baseline} is itself virtualized ({'; '.join(signs)})"
                yield f"{told}: costs are over that, not over bare hardware, and may differ there."

    def _choice(self) -> str:
        text = f"{self._told(str(self.best))} costs least of the stacks that meet the needs"
        if not self.compared:
            return f"{text}; it is the only one."
        second = self.complete[1]
        return f"{text}; next is {second}, {against(*self.compared[second][0].ratio, str(self.best))}."

    def _told(self, stack: str) -> str:
        known = self.estimates[stack]
        level = attained_level(known.n, self.ranking.level, known.boots)
        cost = against(*known.ratio, self.ranking.baseline)
        return f"{stack} ({cost}{f', {level:.1%} interval' if level else ''})"


def _layers(stack: str) -> list[str]:
    return stack.split("/")[1:]


def judged(wanted: list[Need], stack: str) -> list[Judgement]:
    """Judge a stack, given by its path, against each need."""
    return [judge_stack(need, _layers(stack)) for need in wanted]


def _verdict_of(judged: list[Judgement]) -> str:
    answers = {one.answer for one in judged}
    return next((answer for answer in ("not met", "unknown") if answer in answers), "met")


def about(stack: str, judged: list[Judgement]) -> dict[str, Any]:
    """The columns of a stack's row that do not depend on measurements."""
    top = catalog.of_layer(_layers(stack)[-1]) if _layers(stack) else None
    return {
        "stack": stack,
        "system": top.name if top else "",
        "technique": top.technique if top else "",
        "needs": _verdict_of(judged),
        "reason": "; ".join(f"{one.need}: {one.reason}" for one in judged if one.answer != "met"),
    }
