"""The decision aid: which measured stack suits given needs and a given mix of work, and how certain that is.

Stacks are ruled out by what the catalogue documents (``requirements``); the rest are ranked by measured cost
(``ranking``) and compared (``candidates``). Stacks with different baselines or clocks are never compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from vbench.advisor.candidates import Answer, Candidates, about, judged
from vbench.advisor.ranking import rank
from vbench.advisor.requirements import Need, meeting, named
from vbench.errors import VbenchError
from vbench.stats import wording
from vbench.stats.added import ADDED, added
from vbench.workload.mix import Mix, expand, parse, profiles

if TYPE_CHECKING:
    from vbench.stats.run import Run

COLUMNS = [
    "stack", "system", "technique", "baseline", "clock", "needs", "reason", "n", "ratio", "low", "high", "verdict",
    "missing",
]  # fmt: skip


@dataclass(frozen=True)
class Advice:
    """The decision aid's result; notebooks render it as HTML.

    ``table``: one row per stack: stack, system (in the catalogue), technique, baseline, clock, needs ("met", "not
    met", "unknown"), reason, n (blocks), ratio with low and high under the mix (1: the bare baseline), verdict,
    missing. ``alternatives``: systems documented to meet the needs that no stack in the bundle runs.
    """

    needs: list[str]
    mix: Mix
    level: float
    table: pd.DataFrame
    answers: list[Answer]
    alternatives: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """The answers, then what they are based on."""
        out = []
        for answer in self.answers:
            out += [answer.headline, *([answer.added] if answer.added else []), *answer.sensitivity]
        return out + self._basis()

    def _basis(self) -> list[str]:
        out = []
        if len(self.answers) > 1:
            out.append("Groups with baselines or clocks of their own are not compared with each other.")
        mixed = ", ".join(f"{name} {weight:.0%}" for name, weight in self.mix.asked.items())
        out.append(f"Needs: {', '.join(self.needs) or 'none'}. Work: {mixed}, as a geometric mean of ratios.")
        for name in self.mix.asked:
            if (profile := profiles().get(name)) is None or name in self.mix.atoms:
                continue
            parts = ", ".join(f"{kind} {weight:.0%}" for kind, weight in profile.weights.items())
            out.append(f"The profile {name} is an assumption: {parts}. {profile.why} ({profile.source}).")
        if self.alternatives:
            out.append(f"Documented to meet the needs, not measured here: {', '.join(self.alternatives)}.")
        return out

    @property
    def text(self) -> str:
        """All findings as plain text, one per line."""
        return "\n".join(self.lines)

    def records(self) -> list[dict[str, Any]]:
        """The table as plain dicts; missing numbers are None."""
        table = self.table.astype(object).where(self.table.notna(), None)
        return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; missing numbers are None."""
        return {
            "needs": self.needs,
            "mix": {"asked": self.mix.asked, "workloads": self.mix.workloads, "absent": self.mix.absent},
            "level": self.level,
            "answers": [vars(answer) for answer in self.answers],
            "stacks": self.records(),
            "alternatives": self.alternatives,
        }

    def _repr_html_(self) -> str:
        told = "".join(
            f"<p><b>{escape(answer.headline)}</b></p><p>{escape(answer.added)}</p>{_list(answer.sensitivity)}"
            for answer in self.answers
        )
        shown = self.table.loc[:, ~(self.table == "").all()]
        table = shown.to_html(
            index=False, escape=True, na_rep="n/a", float_format="{:.3g}".format, border=0, justify="left"
        )
        return told + table + _list(self._basis())


def _list(lines: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def advise(
    run: Run,
    needs: Iterable[str] = (),
    mix: Mapping[str, float] | str | None = None,
    *,
    level: float = 0.95,
    threshold: float = 0.0,
) -> Advice:
    """Rank a bundle's stacks for ``needs`` and a ``mix`` of work.

    ``needs``: names in ``requirements.NEEDS``. ``mix``: weights by workload, kind or profile (``{"web": 0.6,
    "db": 0.4}`` or ``"web=0.6,db=0.4"``); ``None`` weights the bundle's kinds equally. ``threshold``: differences up
    to this do not matter (0.05: 5%). Raises ``UsageError`` for unknown names and bad weights, ``VbenchError`` if
    the bundle has no sample of any primary metric.
    """
    wanted = named(needs)
    workloads = run.info.workloads
    mixed = expand(
        parse(mix) if isinstance(mix, str) else mix, {name: each.kind for name, each in workloads.items()}
    )
    primary = {name: each.primary for name, each in workloads.items()}
    samples = run.samples[run.samples["workload"].map(primary) == run.samples["metric"]]
    if samples.empty:
        raise VbenchError(
            f"{run.path}: no sample of any primary metric", "measure first, or finish it: vbench resume"
        )
    rows: list[dict[str, Any]] = []
    answers = []
    for ranking in rank(samples, mixed, level=level):
        if not ranking.stacks:
            continue
        facts = run.facts.get(ranking.baseline, {})
        group = Candidates(ranking, wanted, mixed, threshold, run.info.failures, facts, run.info.notes)
        rows += group.rows()
        answer = group.answer()
        answers.append(replace(answer, added=_added(run, samples, answer, mixed, level)))
    rows += _never_opened(run, wanted, {row["stack"] for row in rows})
    table = pd.DataFrame(rows, columns=COLUMNS)
    here = set(table["system"])
    others = [entry.name for entry in meeting(wanted) if entry.name not in here] if wanted else []
    return Advice([need.name for need in wanted], mixed, level, table, answers, others)


MOST_ADDED = 4
"""Operations of which the added time is told."""


def _added(run: Run, samples: pd.DataFrame, answer: Answer, mix: Mix, level: float) -> str:
    """What the choice adds to one operation of the mix's workloads, the longest first, in a sentence.

    Of calls, requests and accesses: of a computation, whose operation is a unit of its own, no time transfers.
    """
    if answer.choice is None:
        return ""
    kinds = {name for name, each in run.info.workloads.items() if each.kind in {"os", "disk", "network"}}
    mine = samples[samples["stack"].isin([answer.choice, answer.baseline]) & samples["workload"].isin(kinds)]
    found = added(mine[mine["workload"].map(lambda name: mix.workloads.get(name, 0.0) > 0)], level)
    found = found[(found["stack"] == answer.choice) & (found["baseline"] == answer.baseline)].dropna(
        subset=ADDED
    )
    found = found.loc[found["added_s"].abs().sort_values(ascending=False).index].head(MOST_ADDED)
    if found.empty:
        return ""
    told = [
        f"{run.info.workloads[row['workload']].title} {wording.added(row['added_s'])}"
        f" ({wording.added(row['added_low_s'])} to {wording.added(row['added_high_s'])})"
        for row in found.to_dict("records")
    ]
    return (
        f"To one operation {answer.choice} adds: {', '.join(told)}. Such times are much the same over a faster or a"
        " slower baseline, which ratios are not."
    )


def _never_opened(run: Run, wanted: list[Need], known: set[str]) -> Iterator[dict[str, Any]]:
    """Rows for stacks that were planned but yielded no sample."""
    for failure in run.info.failures:
        if failure.workload is None and failure.stack not in known | set(run.samples["stack"]):
            known = known | {failure.stack}
            yield {
                **about(failure.stack, judged(wanted, failure.stack)),
                "baseline": "",
                "clock": "",
                "n": 0,
                "ratio": math.nan,
                "low": math.nan,
                "high": math.nan,
                "verdict": "not measured",
                "missing": failure.reason,
            }
