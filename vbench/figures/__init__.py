"""Every figure by name: draws it from a loaded bundle, or says in one line why the bundle lacks the data for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from vbench import plot
from vbench.errors import UsageError
from vbench.figures.query import Asked, Lacking, choose
from vbench.figures.stacks import layer_factors, side_by_side, stacks, text_factors, waterfall
from vbench.plot.why import made_of
from vbench.stats.declared import named, systems
from vbench.stats.host_cost import footprint
from vbench.stats.machines import by_machine, roots, with_systems
from vbench.stats.overhead import baselines
from vbench.stats.verdict import CALLED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vbench.stats.run import Run

__all__ = ["DEFAULT", "FIGURES", "Asked", "Lacking", "available", "draw", "layer_factors", "text_factors"]


def _words(asked: Asked) -> dict[str, Any]:
    return {"kinds": asked.kinds, "titles": asked.titles, "primary": asked.primary, "stacks": asked.stacks}


def _relative(asked: Asked) -> Figure:
    if asked.overheads.empty:
        raise asked.lacks("a comparison")
    return plot.relative_performance(asked.overheads, techniques=asked.run.info.techniques, **_words(asked))


def _heatmap(asked: Asked) -> Figure:
    if asked.overheads.empty:
        raise asked.lacks("a comparison")
    return plot.heatmap(asked.overheads, **_words(asked))


def _cost(asked: Asked) -> Figure:
    operations = plot.per_operation(asked.samples)
    if asked.chosen:
        bases = asked.of_chosen(operations)["baseline"]
        operations = operations[operations["stack"].isin([*asked.chosen, *bases])]
    cell = ["stack", "workload", "params", "metric"]
    called = asked.overheads.assign(called=asked.overheads["verdict"].isin(CALLED))
    operations = operations.merge(called[[*cell, "called"]], on=cell, how="left")
    operations["called"] = operations["called"].fillna(False).astype(bool)
    if operations.empty:
        raise asked.lacks("a workload measured as a time or as operations a second")
    return plot.cost_per_operation(operations, **_words(asked))


def _latency(asked: Asked) -> Figure:
    found = plot.percentiles(asked.samples)
    found = asked.of_chosen(found)
    if found.empty:
        raise asked.lacks("a workload with several percentiles of latency (net-latency has them)")
    return plot.latency(found, titles=asked.titles, stacks=asked.stacks)


def _footprint(asked: Asked) -> Figure:
    samples = asked.samples
    table = footprint(samples, asked.run.host_costs).assign(clock=asked.by)
    table["baseline"] = table["stack"].map(baselines(samples))
    table = asked.of_chosen(table)
    if table.empty:
        raise asked.lacks("a measurement")
    opened = {name: _number(facts.get("open_seconds")) for name, facts in asked.run.facts.items()}
    table["open_s"] = table["stack"].map(opened).astype(float)
    return plot.start_and_footprint(table, stacks=asked.stacks)


def _number(fact: Any) -> float:
    try:
        value = float(fact)
    except (TypeError, ValueError):
        return math.nan
    return value if math.isfinite(value) else math.nan


def _convergence(asked: Asked) -> Figure:
    workload = asked.one_workload()
    grown = plot.growth(asked.cell(asked.samples, workload), level=asked.level)
    grown = asked.of_chosen(grown)
    if grown.empty:
        raise asked.lacks("a comparison")
    return plot.convergence(grown, title=asked.title(workload), stacks=asked.stacks)


def _trace(asked: Asked) -> Figure:
    workload = asked.one_workload()
    cell = asked.cell(asked.samples, workload)
    cell = asked.of_chosen(cell)
    if cell.loc[~cell["warmup"].astype(bool) & (cell["value"] > 0)].empty:
        raise asked.lacks("a measurement")
    return plot.trace(cell, title=asked.title(workload), stacks=asked.stacks)


def _machines(asked: Asked) -> Figure:
    if len(roots(asked.run)) < 2:
        raise Lacking(asked.run.path, "holds a single machine")
    if asked.workload:
        raise UsageError("machines are shown over all their workloads", "leave out -w")
    cells = by_machine(asked.run, level=asked.level)
    cells = asked.of_chosen(cells[cells["clock"] == asked.by])
    if cells["ratio"].isna().all():
        raise asked.lacks("a comparison")
    return plot.by_machine(cells)


def _made_of(asked: Asked) -> Figure:
    counted = asked.run.reasons if asked.by == "instructions" else {}
    workload = asked.workload or next((key[1] for key in counted), "")
    bases = baselines(asked.samples)
    names = sorted(asked.stacks, key=lambda name: bases.get(name) != name)
    wanted = {*asked.chosen, *(bases[name] for name in asked.chosen)} or {*names}
    found = [counted[name, workload] for name in names if name in wanted and (name, workload) in counted]
    if not found:
        raise Lacking(
            asked.run.path,
            "holds no count of what an operation is made of",
            hint="add it with vbench why STACK WORKLOAD --into DIR",
        )
    return made_of(found, title=asked.title(workload))


def _published(table: str) -> Callable[[Asked], Figure]:
    def draw(asked: Asked) -> Figure:
        published = plot.tables()[table]
        techniques = asked.run.info.techniques
        frame = asked.overheads.assign(technique=asked.overheads["stack"].map(techniques))
        ours = plot.matching(frame, asked.primary, published)
        if ours.empty:
            wanted = ", ".join(dict.fromkeys(w for row in published.rows for w in row["workloads"]))
            raise Lacking(
                asked.run.path,
                f"has nothing to set beside {published.label}, {published.place}",
                hint=f"measure some of {wanted} in a stack such as local/uml or testbed/xen/pv",
            )
        return plot.beside_published(ours, published, titles=asked.titles)

    return draw


@dataclass(frozen=True)
class Choice:
    """An available figure: what it shows, and how to draw it."""

    shows: str
    draw: Callable[[Asked], Figure]


FIGURES: Mapping[str, Choice] = {
    "relative-performance": Choice("performance by technique, 1 is the baseline", _relative),
    "heatmap": Choice("overhead of every workload in every stack, with intervals; the default", _heatmap),
    "stacks": Choice("what each stack is made of, with the factor of each layer for one workload", stacks),
    "side-by-side": Choice("all stacks at once, standing on what they share", side_by_side),
    "waterfall": Choice("one stack taken apart: a factor a layer, and what they cost together", waterfall),
    "cost": Choice("time of one operation, and time added: an additive cost against a ratio", _cost),
    "latency": Choice("percentiles of latency by stack", _latency),
    "footprint": Choice("start-up, memory and CPU taken from the host", _footprint),
    "convergence": Choice("how the interval of one workload closes as blocks come in", _convergence),
    "trace": Choice("every measurement of one workload in time, with drift", _trace),
    "machines": Choice("what each technique costs by machine, a panel for each hardware", _machines),
    "made-of": Choice("where the instructions of an operation are, as vbench why counted them", _made_of),
    "published-micro": Choice(
        "system calls and processes beside Barham et al. 2003, Table 3", _published("micro")
    ),
    "published-macro": Choice("kinds of work beside Barham et al. 2003, Figure 3", _published("macro")),
}
DEFAULT = "heatmap"  # a whole bundle in one picture that fits a screen


def draw(
    run: Run,
    name: str = DEFAULT,
    *,
    stack: str | Sequence[str] | None = None,
    workload: str | None = None,
    clock: str | None = None,
    level: float = 0.95,
) -> Figure:
    """Draw the figure with that name. ``stack``: one or several; the leading ``local/`` may be omitted.

    Raises ``UsageError`` for an unknown name, stack, workload or clock, and if the bundle lacks the figure's data.
    """
    if name not in FIGURES:
        near = get_close_matches(name, FIGURES, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no figure {name!r}", f"{meant}figures: {', '.join(FIGURES)}")
    asked, known = choose(run, stack=stack, workload=workload, clock=clock, level=level), systems(run.info)
    if known:
        chosen = tuple(named(each, known) for each in asked.chosen)
        asked = Asked(with_systems(run), chosen, asked.workload, asked.clock, asked.level)
    return FIGURES[name].draw(asked)


def available(run: Run) -> dict[str, str]:
    """Every figure by name: empty if this bundle has the data for it, otherwise why not. Draws each to find out."""
    found = {}
    for name in FIGURES:
        try:
            draw(run, name)
        except UsageError as error:
            found[name] = error.message
        else:
            found[name] = ""
    return found
