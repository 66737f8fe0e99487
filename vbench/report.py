"""The report: one self-contained HTML file, and the same rows for a terminal.

Everything shown comes from the bundle, and a bundle may come from a stranger: the template escapes all of it,
figures draw text as outlines, and the page's policy allows no script and no request.
"""

from __future__ import annotations

import json
import math
import shlex
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd
from markupsafe import Markup

from vbench import plot
from vbench.errors import UsageError
from vbench.overhead import aa_floors, clock_disagreement, footprint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vbench.store import Run, RunInfo

LEVEL = 0.95
CLOCK_BOUND = 0.05
_TITLES = {"wall": "Relative performance", "instructions": "Relative performance, instruction-counted"}


def summary_table(run: Run, *, level: float = LEVEL, threshold: float = 0.0) -> list[dict[str, Any]]:
    """One plain row per cell, in the order to show; then one per failure.

    Keys: stack, baseline, technique, kind, workload, title, params, metric, primary, clock, n, ratio, low,
    high, aa_floor, verdict, why, flag, child, base, unit, better. Numbers that are unknown are None; a
    failure has the verdict "unavailable", its reason in ``why``, and no figures.
    """
    return _table(run, run.overheads(level=level, threshold=threshold))


def _table(run: Run, overheads: pd.DataFrame) -> list[dict[str, Any]]:
    info = run.info
    rows = []
    keep = ["stack", "baseline", "kind", "workload", "params", "metric", "clock", "n", "ratio", "low", "high"]
    keep += ["aa_floor", "verdict", "why", "flag", "child", "base", "unit", "better"]
    for row in overheads[keep].to_dict("records"):
        known = info.workloads.get(row["workload"])
        rows.append(
            {name: _plain_number(value) for name, value in row.items()}
            | {
                "technique": info.techniques.get(row["stack"], ""),
                "title": known.title if known else row["workload"],
                "primary": known is None or known.primary == row["metric"],
            }
        )
    blank: dict[str, Any] = dict.fromkeys([*keep, "technique", "title"], "")
    blank |= dict.fromkeys(("ratio", "low", "high", "aa_floor", "child", "base"), None)
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
                "primary": True,
                "verdict": "unavailable",
                "why": failure.reason,
            }
        )
    stacks, workloads = list(info.techniques), list(info.workloads)
    kinds = [*plot.KINDS, *sorted({row["kind"] for row in rows} - {*plot.KINDS, ""}), ""]
    rows.sort(
        key=lambda row: (
            row["verdict"] == "unavailable",
            kinds.index(row["kind"]),
            _place(workloads, row["workload"]),
            row["workload"],
            not row["primary"],
            row["metric"],
            row["params"],
            _place(stacks, row["stack"]),
            row["stack"],
        )
    )
    return rows


def _place(order: list[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def _plain_number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _times(ratio: float | None, like: float | None = None) -> str:
    """A ratio in digits, as precise as is of use (or as ``like`` is): 1.034, 2.31, 51.7, 1240."""
    if ratio is None or not math.isfinite(ratio):
        return "n/a"
    size = like or ratio
    places = 3 if 0.1 < size < 2 else 2 if 0.1 < size < 10 else 1 if size >= 10 else 4
    return f"{ratio:.{places}f}" if ratio < 1000 else f"{ratio:.4g}"


def _value(value: float | None) -> str:
    """A value as measured, to four significant digits."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if value == 0 or 1e-4 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.3e}"


def _interval(low: float | None, high: float | None) -> str:
    unknown = low is None or high is None or math.isnan(low)
    return "n/a" if unknown else f"{_times(low, like=high)} to {_times(high)}"


def _percent(floor: float | None) -> str:
    return (
        "n/a"
        if floor is None or math.isnan(floor)
        else f"{100 * floor:.2g}%"
        if floor < 1
        else _times(1 + floor)
    )


def _share(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f}%".replace("-", "\N{MINUS SIGN}")


def _cost(row: dict[str, Any]) -> tuple[str, str]:
    """A ratio and its interval: as a share where the whole interval is small, else in times."""
    numbers = [row["ratio"], row["low"], row["high"]]
    if all(number is not None and 0.5 < number < 2 for number in numbers):
        return _share(numbers[0]), f"{_share(numbers[1])} to {_share(numbers[2])}"
    return f"{_times(numbers[0])} times", _interval(*numbers[1:])


def _sentence(row: dict[str, Any]) -> str:
    """What one cell costs, in plain words."""
    if row["verdict"] == "undetermined":
        so_far = "" if row["ratio"] is None else f"; so far it looks like {_times(row['ratio'])} times"
        return f"not decidable ({row['why']}){so_far}"
    cost, interval = _cost(row)
    if row["verdict"] == "not distinguishable":
        return f"no difference could be told ({cost}, {interval})"
    if cost.endswith("%"):
        cost = f"{cost[1:]} {'more' if row['ratio'] > 1 else 'less'}"
    text = f"costs {cost} ({interval})"
    return f"{text}; {row['flag']}" if row["flag"] else text


def _answers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per stack and kind, one line: the cell, or where there are several the cheapest and the dearest."""
    out: dict[tuple[str, str], dict[str, Any]] = {}
    kinds: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["primary"] and row["verdict"] != "unavailable":
            kinds.setdefault((row["stack"], row["clock"], row["kind"]), []).append(row)
    for (stack, clock, kind), cells in kinds.items():
        known = sorted((c for c in cells if c["ratio"] is not None), key=lambda c: c["ratio"])
        shown = [known[0], known[-1]] if len(known) > 1 else known or cells[:1]
        if all(c["verdict"] == "not distinguishable" for c in cells) and len(cells) > 1:
            widest = {
                "ratio": 1.0,
                "low": min(c["low"] for c in cells),
                "high": max(c["high"] for c in cells),
            }
            text = f"no difference could be told in {len(cells)} workloads (all within {_cost(widest)[1]})"
        else:
            text = "; ".join(f"{c['title']}: {_sentence(c)}" for c in shown)
            if len(cells) > len(shown):
                text += f"; {len(cells) - len(shown)} more in the table"
        answer = out.setdefault(
            (stack, clock),
            {
                "name": stack,
                "technique": cells[0]["technique"],
                "counted": clock == "instructions",
                "lines": [],
            },
        )
        answer["lines"].append({"kind": kind, "text": text})
    return list(out.values())


def figure(run: Run, *, clock: str | None = None, level: float = LEVEL) -> Figure:
    """The figure "relative performance by technique" for one kind of clock: by default, the first there is.

    Raises ``UsageError`` when the bundle has no comparison measured by that clock.
    """
    overheads = run.overheads(level=level)
    for kind in (clock,) if clock else ("wall", "instructions"):
        frame = overheads[overheads["clock"] == kind]
        if not frame.empty:
            return _figure(run.info, frame)
    raise UsageError(f"{run.path} holds no comparison" + (f" measured in {clock}" if clock else ""))


def _figure(info: RunInfo, frame: pd.DataFrame) -> Figure:
    return plot.relative_performance(
        frame,
        kinds={name: w.kind for name, w in info.workloads.items()},
        titles={name: w.title for name, w in info.workloads.items()},
        primary={name: w.primary for name, w in info.workloads.items()},
        stacks=list(info.techniques),
        techniques=info.techniques,
    )


def _parts(run: Run, overheads: pd.DataFrame, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One figure and table per kind of clock: their ratios never share a panel."""
    info = run.info
    parts = []
    for clock in ("wall", "instructions"):
        frame = overheads[overheads["clock"] == clock]
        if frame.empty:
            continue
        stacks = {*frame["stack"]}
        shown = [r for r in rows if r["clock"] == clock]
        shown += [r for r in rows if r["verdict"] == "unavailable" and r["workload"] and r["stack"] in stacks]
        parts.append(
            {
                "title": _TITLES[clock],
                "counted": clock == "instructions",
                "clock": plot.CLOCKS[clock],
                "svg": Markup(plot.svg(_figure(info, frame))),  # noqa: S704  (our own drawing; text in it is outlines)
                "groups": _by_workload(shown),
            }
        )
    return parts


def _by_workload(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows under the metric that they share, figures as text. A failure goes under its workload's first."""
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("workload", "params", "metric", "baseline"))
        if row["verdict"] == "unavailable":
            key = next((known for known in groups if known[0] == row["workload"]), key)
        detail = [row["metric"]] * (not row["primary"]) + [row["params"]] * (row["params"] not in ("", "{}"))
        start = row | {"detail": " ".join(detail), "base": _value(row["base"]), "rows": []}
        group = groups.setdefault(key, start | {"floor": _percent(row["aa_floor"])})
        texts = {"ratio": _times(row["ratio"]), "child": _value(row["child"])}
        group["rows"].append(row | texts | {"interval": _interval(row["low"], row["high"])})
    return list(groups.values())


def _footprint(run: Run) -> dict[str, Any]:
    """Host-side cost as a matrix: workloads by stacks, and memory by stack."""
    taken = footprint(run.samples)
    stacks = sorted(taken["stack"].unique(), key=lambda name: (_place(list(run.info.techniques), name), name))
    workloads = sorted(
        taken["workload"].unique(), key=lambda name: (_place(list(run.info.workloads), name), name)
    )
    cpu = taken.pivot_table(index="workload", columns="stack", values="cpu_per_s", dropna=False)
    cpu = cpu.reindex(index=workloads, columns=stacks)
    memory = taken.groupby("stack")["rss_mib"].max()
    return {
        "stacks": stacks,
        "rows": [
            {
                "title": _title(run, name),
                "cells": [f"{value:.2f}" if math.isfinite(value) else "n/a" for value in cpu.loc[name]],
            }
            for name in workloads
        ],
        "memory": [_value(memory[name]) for name in stacks],
    }


def _title(run: Run, workload: str) -> str:
    known = run.info.workloads.get(workload)
    return known.title if known else workload


def _replay(run: Run) -> str:
    """The command that repeats the run, quoted for a shell."""
    samples = run.samples.loc[~run.samples["warmup"].astype(bool)]
    baselines = {*samples["baseline"]}
    stacks = [s for s in samples["stack"].unique() if s not in baselines]
    stacks += [f.stack for f in run.info.failures if f.workload is None]
    words = ["vbench", "run"]
    for option, names in (("--stack", stacks), ("--workload", run.info.workloads)):
        for name in sorted({*names}):
            words += [option, name]
    blocks = run.info.plan.get("blocks")
    words += ["--blocks", str(blocks if isinstance(blocks, int) else samples["block"].nunique())]
    return shlex.join([*words, "--seed", str(run.info.seed)])


def _plain(value: Any) -> str:
    """Facts as text: a nested value as indented JSON."""
    return json.dumps(value, indent=1, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def render(
    run: Run, *, level: float = LEVEL, threshold: float = 0.0, clock_bound: float = CLOCK_BOUND
) -> str:
    """The whole report as HTML text: no script, no external request."""
    overheads = run.overheads(level=level, threshold=threshold)
    rows = _table(run, overheads)

    def titled(frame: pd.DataFrame) -> list[dict[str, Any]]:
        frame = frame.sort_values([c for c in ("stack", "workload", "metric", "params") if c in frame])
        records = frame.to_dict("records")
        return [{str(k): v for k, v in r.items()} | {"title": _title(run, r["workload"])} for r in records]

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vbench", "data"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["plain"] = _plain
    return environment.get_template("report.html.j2").render(
        info=run.info,
        level=f"{level:.0%}",
        bound=f"{clock_bound:.0%}",
        baselines=sorted({*overheads["baseline"]}),
        comparisons=int(overheads["p_holm"].notna().sum()),
        answers=_answers(rows),
        unavailable=[failure for failure in run.info.failures if failure.workload is None],
        parts=_parts(run, overheads, rows),
        footprint=_footprint(run),
        clocks=[
            r | {"median": _times(r["median"]), "worst": _times(r["worst"])}
            for r in titled(clock_disagreement(run.samples, clock_bound))
        ],
        floors=[
            r
            | {
                "ratio": _times(r["ratio"]),
                "interval": _interval(r["low"], r["high"]),
                "floor": _percent(r["floor"]),
            }
            for r in titled(aa_floors(run.samples, level=level))
        ],
        replay=_replay(run),
    )
