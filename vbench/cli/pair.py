"""`vbench pair`: the overhead of a machine whose baseline was measured at other times."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vbench.cli.console import say, show_table, warn
from vbench.cli.options import Json, group
from vbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vbench.stats.run import Run

app = group()


@app.command()
def pair(
    bundles: Annotated[
        list[Path], typer.Argument(help="Bundles: sessions of two machines on the same hardware.")
    ],
    json: Json = False,
) -> None:
    """Join sessions of a machine and of its baseline, which could not be up at once, into overheads.

    The session is the replicate: three of each give an interval.
    """
    from vbench import load
    from vbench.stats.sessions import by_session, paired

    runs = [load(each) for each in bundles]
    declared = _declared(runs)
    _check(runs, declared)
    sessions = by_session(run.samples for run in runs)
    rows: list[dict[str, Any]] = []
    for name, base in declared.items():
        cells = paired(sessions, name, base)
        primary = {key: each.primary for run in runs for key, each in run.info.workloads.items()}
        for found in cells.astype(object).where(cells.notna(), None).to_dict("records"):
            row = {str(key): value for key, value in found.items()}
            mine = {"stack": name, "baseline": base, "primary": primary[row["workload"]] == row["metric"]}
            rows.append(mine | row)
    if not rows:
        raise UsageError("these bundles have no cell in common of a machine and its baseline")
    if json:
        show_table(rows, json=True)
        return
    show_table([_told(row) for row in rows if row["primary"]], json=False)
    for why in dict.fromkeys(row["why"] for row in rows if row["why"]):
        say(why)


def _told(row: dict[str, Any]) -> dict[str, str]:
    def share(value: float | None) -> str:
        return "n/a" if value is None else f"{value:.2%}"

    interval = "n/a" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
    return {
        "stack": row["stack"],
        "over": row["baseline"],
        "workload": row["workload"],
        "ratio": f"{row['ratio']:.3f}",
        "interval": interval,
        "sessions": f"{row['n']}, {row['base_n']}",
        "between sessions": f"{share(row['between'])}, {share(row['base_between'])}",
    }


def _declared(runs: Sequence[Run]) -> dict[str, str]:
    """The baseline of each machine that the bundles' hosts files declared one for."""
    found: dict[str, str] = {}
    for run in runs:
        for machine in run.info.plan.get("machines", []):
            if machine.get("baseline"):
                found[machine["name"]] = machine["baseline"]
    if not found:
        raise UsageError(
            "none of these bundles declares a machine with a baseline",
            'measure with --hosts FILE, in which one machine has baseline = "..." naming the other',
        )
    return found


def _check(runs: Sequence[Run], declared: dict[str, str]) -> None:
    """Raise ``UsageError`` for sessions that may not be joined."""
    from vbench.observe.identity import odd_hardware, other_hardware

    seen: dict[str, Path] = {}
    for run in runs:
        if run.info.id in seen:
            raise UsageError(
                f"{run.path} is the same session as {seen[run.info.id]}", "name each session once"
            )
        seen[run.info.id] = run.path
    first = runs[0]
    for run in runs[1:]:
        if run.info.capsule.get("digest") != first.info.capsule.get("digest"):
            raise UsageError(f"{run.path} was measured with another capsule than {first.path}")
        for name in run.info.workloads.keys() & first.info.workloads.keys():
            if run.info.workloads[name].digest != first.info.workloads[name].digest:
                raise UsageError(f"{run.path}: workload {name} is not the one of {first.path}")
    for name, base in declared.items():
        _same_hardware(runs, name, base)
    facts = {stack: known for run in runs for stack, known in run.facts.items()}
    for name, base in declared.items():
        if name not in facts or base not in facts:
            continue
        if unlike := other_hardware(facts[name], facts[base]):
            raise UsageError(
                f"{name} and its baseline {base} are not on the same hardware: {'; '.join(unlike)}"
            )
        if odd := odd_hardware(facts[name], facts[base]):
            warn(f"{name} may be on other hardware than its baseline {base}: {'; '.join(odd)}")


def _same_hardware(runs: Sequence[Run], name: str, base: str) -> None:
    """Raise ``UsageError`` unless a machine and its baseline are declared to be on the same hardware, in all runs."""
    from vbench.stats.declared import declared

    said = {
        (machine, known[machine].hardware): run.path
        for run in runs
        for known in [declared(run.info)]
        for machine in (name, base)
        if machine in known and known[machine].hardware
    }
    words = [*dict.fromkeys(hardware for _, hardware in said)]
    if len(words) > 1:
        told = "; ".join(f"{machine} on {hardware!r} in {path}" for (machine, hardware), path in said.items())
        raise UsageError(
            f"{name} and its baseline {base} are not declared to be on the same hardware: {told}",
            "only machines on the same hardware may be compared: say the same hardware = ... for both, if so it is",
        )
