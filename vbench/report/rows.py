"""The rows shared by the report's tables, its answers and the terminal: one per cell, then one per failure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from vbench.stats.added import ADDED
from vbench.stats.verdict import Verdict
from vbench.terms import KINDS

if TYPE_CHECKING:
    from vbench.bundle.reasons import Reasons
    from vbench.stats.run import Run

LEVEL = 0.95
_KEPT = (
    "stack", "baseline", "kind", "workload", "params", "metric", "clock", "n", "boots", "ratio", "low", "high",
    *ADDED, "attained", "aa_floor", "verdict", "why", "flag", "child", "base", "unit", "better",
)  # fmt: skip
_NUMBERS = ("ratio", "low", "high", *ADDED, "attained", "aa_floor", "child", "base")


def summary_table(run: Run, *, level: float = LEVEL, threshold: float = 0.0) -> list[dict[str, Any]]:
    """One plain row per cell, in display order; then one per failure.

    Keys: stack, baseline, technique, kind, workload, title, params, metric, primary, clock, n, ratio, low, high,
    added_s, added_low_s, added_high_s, attained (the interval's actual level), aa_floor, verdict, why, flag, child,
    base, unit, better, made_of (what an operation is made of, if that was counted). Unknown numbers are None; a failure
    has the verdict "unavailable", its reason in ``why``, and no figures.
    """
    return rows_of(run, run.overheads(level=level, threshold=threshold))


def rows_of(run: Run, overheads: pd.DataFrame) -> list[dict[str, Any]]:
    """:func:`summary_table` for overheads already computed."""
    info = run.info
    rows = []
    reasons = run.reasons
    for row in overheads[list(_KEPT)].to_dict("records"):
        known = info.workloads.get(row["workload"])
        rows.append(
            {str(name): _plain_number(value) for name, value in row.items()}
            | {
                "technique": info.techniques.get(row["stack"], ""),
                "title": known.title if known else row["workload"],
                "primary": known is None or known.primary == row["metric"],
                "made_of": _made_of(reasons, row)
                if known is None or known.primary == row["metric"]
                else None,
            }
        )
    blank: dict[str, Any] = dict.fromkeys([*_KEPT, "technique", "title"], "") | dict.fromkeys(_NUMBERS)
    blank["made_of"] = None
    for failure in info.failures:
        known = info.workloads.get(failure.workload or "")
        rows.append(
            blank
            | {
                "stack": failure.stack,
                "technique": info.techniques.get(failure.stack, ""),
                "workload": failure.workload or "",
                "title": known.title if known else failure.workload or "(every workload)",
                "kind": known.kind if known else "",
                "n": 0,
                "boots": 0,
                "primary": True,
                "verdict": Verdict.UNAVAILABLE.value,
                "why": failure.reason,
            }
        )
    stacks, workloads = list(info.techniques), list(info.workloads)
    kinds = [*KINDS, *sorted({row["kind"] for row in rows} - {*KINDS, ""}), ""]
    rows.sort(
        key=lambda row: (
            row["verdict"] == Verdict.UNAVAILABLE,
            kinds.index(row["kind"]),
            place(workloads, row["workload"]),
            row["workload"],
            not row["primary"],
            row["metric"],
            row["params"],
            place(stacks, row["stack"]),
            row["stack"],
        )
    )
    return rows


def place(order: list[str], name: str) -> int:
    """The index of a name in ``order``; after all others if it is not there."""
    return order.index(name) if name in order else len(order)


def _plain_number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _made_of(reasons: dict[tuple[str, str], Reasons], row: dict[Any, Any]) -> dict[str, Any] | None:
    """What a cell's operation is made of, and its baseline's, where it was counted."""
    mine = reasons.get((row["stack"], row["workload"]))
    base = reasons.get((row["baseline"], row["workload"]))
    if mine is None:
        return None
    return {"counts": mine.counts, "baseline": base.counts if base else None, "operations": mine.operations}
