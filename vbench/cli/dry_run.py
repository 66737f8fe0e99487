"""``vbench run --dry-run``: what would be opened and measured, and how long it would take."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vbench import paths
from vbench.cli.console import say, show_table, span

if TYPE_CHECKING:
    from vbench.capsule.capsule import Capsule
    from vbench.harness.plan import Plan
    from vbench.workload.library import Library


def show(plan: Plan, known: Library, built: Capsule, *, json: bool) -> None:
    """Say what a run of ``plan`` would do. Times are those of bundles in results/ and of vbench's own."""
    from vbench.harness.forecast import expected, read_times, whole
    from vbench.harness.run import new_run, units_for

    units = units_for(new_run(plan, known, built), plan, known)
    earlier = [path.parent for path in Path("results").glob("*/run.json")]
    times = read_times(dict.fromkeys([*earlier, paths.reference_bundle()]), units)
    rows = expected(units, times)
    if json:
        show_table([{**asdict(row), "unknown": list(row.unknown)} for row in rows], json=True)
        return
    show_table(
        [
            {
                "stack": row.stack,
                "baseline": row.baseline or "-",
                "clock": row.clock,
                "workloads": row.workloads,
                "invocations": row.invocations,
                "opening": "unknown" if row.opening_s is None else span(row.opening_s),
                "preparing": _known(row.preparing_s, row.unknown),
                "measuring": _known(row.measuring_s, row.unknown),
            }
            for row in rows
        ],
        json=False,
    )
    adaptive = plan.most_blocks > plan.blocks
    blocks = f"{plan.blocks} to {plan.most_blocks}" if adaptive else str(plan.blocks)
    say(
        f"{blocks} blocks, {sum(row.invocations for row in rows)} invocations{' at most' if adaptive else ''}"
    )
    if times.sources:
        side_by_side = max(1, min(sum(row.clock != "wall" for row in rows), len(os.sched_getaffinity(0))))
        say(f"about {span(whole(rows, side_by_side))}, going by {', '.join(times.sources)}")
    for row in rows:
        unknown = [*(["opening it"] if row.opening_s is None else []), *row.unknown]
        if unknown:
            say(f"{row.stack}: not in this sum, as no earlier bundle has it: {', '.join(unknown)}")
    say("nothing was opened; vbench doctor says which layers open here")


def _known(seconds: float | None, unknown: tuple[str, ...]) -> str:
    if seconds is None:
        return "unknown"
    return f"over {span(seconds)}" if unknown else span(seconds)
