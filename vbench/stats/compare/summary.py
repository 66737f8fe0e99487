"""A comparison of two bundles as text: rows for a terminal or JSON, and a Markdown page."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vbench.stats import wording
from vbench.stats.compare.bundles import CHANGED, Comparison
from vbench.stats.intervals import attained_shift_level
from vbench.stats.verdict import Verdict


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain Python values; unknown numbers are None."""
    return [{str(k): _known(v) for k, v in row.items()} for row in frame.to_dict("records")]


def _known(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value


def as_json(found: Comparison) -> dict[str, Any]:
    """The whole comparison as plain Python values.

    Keys: before, after, changed, decidable, forced, obstacles, differences, cells; the columns of ``cells`` are those
    of ``vbench.stats.compare.bundles.Comparison``.
    """
    return {
        "before": str(found.before.path),
        "after": str(found.after.path),
        "changed": bool(len(found.changed)),
        "decidable": found.decidable,
        "forced": bool(found.obstacles),
        "obstacles": [vars(each) for each in found.obstacles],
        "differences": [vars(each) for each in found.differences],
        "cells": plain(found.cells),
    }


def share(factor: float | None, places: int = 2) -> str:
    """A factor shown as a change: +5.00%, x 2.1, n/a."""
    if factor is None or not math.isfinite(factor):
        return "n/a"
    return f"{100 * (factor - 1):+.{places}f}%" if 0.5 < factor < 2 else f"x {factor:.3g}"


def rows(found: Comparison) -> list[dict[str, Any]]:
    """Cells with their figures as text, changed ones first.

    Keys: stack, workload, metric, compared, before, after, change, interval, verdict, why.
    """
    first = found.cells["verdict"].isin(CHANGED)
    out = []
    for row in plain(pd.concat([found.cells[first], found.cells[~first]])):
        known = row["low"] is not None
        out.append(
            {
                "stack": row["stack"],
                "workload": row["workload"] + ("" if row["params"] == "{}" else f" {row['params']}"),
                "metric": row["metric"],
                "compared": f"over {row['against']}" if row["basis"] == "ratio" else row["unit"] or "value",
                "before": _figure(row["before"]),
                "after": _figure(row["after"]),
                "change": share(row["change"]),
                "interval": f"{share(row['low'])} to {share(row['high'])}" if known else "n/a",
                "verdict": row["verdict"],
                "why": row["why"],
            }
        )
    return out


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.5g}"


def summary(found: Comparison) -> str:
    """The outcome in one line; a second line names what moved without being called a change, and why."""
    cells = found.cells
    count = cells["verdict"].value_counts()
    changed = int(sum(count.get(name, 0) for name in CHANGED))
    open_ = int(count.get(Verdict.UNDETERMINED, 0))
    moved = cells[
        (cells["verdict"] == Verdict.NOT_DISTINGUISHABLE) & ((cells["low"] > 1) | (cells["high"] < 1))
    ]
    nothing = "nothing changed" if moved.empty else "no change can be called"
    text = f"{changed} of {len(cells)} cells changed" if changed else nothing
    if not found.decidable:
        text = "nothing can be decided"
    text += f"; {open_} undetermined" if open_ else ""
    text += "; FORCED: the bundles are not comparable" if found.obstacles else ""
    if moved.empty:
        return text
    most = moved.loc[np.log(moved["change"]).abs().idxmax()]
    interval = f"{share(most['low'])} to {share(most['high'])}"
    floor = "" if math.isnan(most["floor"]) else f", floor {most['floor']:.2%}"
    return (
        f"{text}\n{len(moved)} cells moved and are not called: most {most['workload']} in {most['stack']}, "
        f"{share(most['change'])} ({interval}): {most['why']}{floor}"
    )


def markdown(found: Comparison) -> str:
    """A Markdown page for a merge request or wiki: summary, what changed, possible causes, every cell."""
    cells = rows(found)
    moved = [row for row in cells if row["verdict"] in CHANGED]
    lines = [
        f"# {_safe(found.before.path)} and {_safe(found.after.path)}",
        "",
        f"**{_safe(summary(found))}**",
        "",
    ]
    lines += [f"Interval: exact rank-sum, {_levels(found)}. Above 0% is costlier.", ""]
    if found.obstacles:
        lines += ["## Not comparable, compared by force", "", *_bullets(map(str, found.obstacles)), ""]
    if moved:
        lines += ["## Changed", "", *table(moved), ""]
    if found.differences:
        causes = (
            f"{each} ({', '.join(each.stacks)})" if each.stacks else str(each) for each in found.differences
        )
        lines += ["## Also different", "", *_bullets(causes), ""]
    return "\n".join([*lines, "## Every cell", "", *table(cells), ""])


def _levels(found: Comparison) -> str:
    pairs = found.cells[["n_before", "n_after"]].drop_duplicates().itertuples(index=False)
    level = float(found.cells["level"].iloc[0])
    return wording.levels(attained_shift_level(m, n, level) for m, n in pairs)


def _bullets(texts: Iterable[str]) -> list[str]:
    return [f"- {_safe(text)}" for text in texts]


def table(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a Markdown table; the first row determines the columns."""
    names = list(cells[0]) if cells else []
    head = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    return head + [f"| {' | '.join(_safe(row[name]) for name in names)} |" for row in cells]


def _safe(value: Any) -> str:
    """Text from a bundle, which may come from a stranger, made safe: one line, no markup."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    return "".join(f"\\{c}" if c in "\\`*_{}[]|#" else c for c in html.escape(line, quote=False))
