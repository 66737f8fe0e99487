"""Figures of stacks and their layers: diagrams with measured factors, and waterfalls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from vbench import plot
from vbench.errors import UsageError
from vbench.figures.query import Asked, choose
from vbench.plot import diagram
from vbench.stats.decompose import decompose
from vbench.stats.overhead import baselines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vbench.stats.run import Run


MOST_PANELS = 15  # in a waterfall: the workloads with the highest cost


def _deepest(asked: Asked) -> str:
    """The stack asked for, or the one with the most layers measured step by step."""
    if len(asked.chosen) > 1:
        raise UsageError(f"a waterfall shows one stack, not {len(asked.chosen)}", "name one with -s")
    if asked.chosen:
        return asked.chosen[0]
    children = asked.overheads["stack"].unique()
    if not len(children):
        raise asked.lacks("a comparison")
    return str(max(children, key=lambda name: (name.count("/"), -asked.stacks.index(name))))


def waterfall(asked: Asked) -> Figure:
    """One stack decomposed, one panel per workload, with the interaction if the bundle has the stacks it needs."""
    stack = _deepest(asked)
    primary = asked.of_primary(asked.overheads)
    costs = primary[primary["stack"] == stack].groupby("workload")["ratio"].max()
    shown = costs.sort_values(ascending=False).index[:MOST_PANELS]
    samples = asked.samples
    if len(costs) > MOST_PANELS:  # select before decomposing: panels not drawn need no analysis
        samples = samples[samples["workload"].isin(shown)]
    terms = decompose(asked.of_primary(samples), stack, level=asked.level)
    alone = terms[(terms["view"] == "alone") & terms["factor"].notna()]
    terms = alone if (alone["role"] == "interaction").any() else terms[terms["view"] == "path"]
    together = (terms["role"] == "interaction").any()
    whole = terms["factor"].notna().groupby([terms["workload"], terms["params"]]).transform("all")
    terms = terms[whole]
    if terms.empty:
        raise asked.lacks(f"blocks in which {stack} and all below it were measured")
    order = {name: number for number, name in enumerate(asked.titles)}
    terms = terms.sort_values(
        ["workload", "params", "position"],
        key=lambda c: c.map(order) if c.name == "workload" else c,
        kind="stable",
    )
    several: Any = terms.groupby("workload")["params"].nunique()
    base = str(terms.loc[terms["role"] == "total", "over"].iloc[0])
    steps = pd.DataFrame(
        {
            "panel": [
                asked.titles.get(w, w) + f" {p}" * bool(several[w] > 1)
                for w, p in zip(terms["workload"], terms["params"], strict=True)
            ],
            "label": [
                "together" if role == "interaction" and term.count(" x ") == 1
                else term if role != "total" else "all" for term, role in zip(terms["term"], terms["role"], strict=True)
            ],
            **{name: terms[name] for name in ("role", "factor", "low", "high", "n")},
        }
    )  # fmt: skip
    how = (
        "Layers: each alone on the baseline. Together (hatched): what they cost in a stack beyond the product of "
        "what each costs alone; 1 is no interaction. "
        if together
        else "Layers: each over the one below it, in the order stacked. "
    )
    return plot.waterfall(
        steps,
        title=f"What each layer adds: {stack}",
        clock=str(asked.by),
        level=asked.level,
        lead=f"Cost over {base}, multiplied up layer by layer."
        + f" The {len(shown)} costliest of {len(costs)} workloads." * (len(costs) > len(shown)),
        note=how + "Factors are means of log-ratios over blocks, so they multiply to the total exactly.",
    )


def layer_factors(asked: Asked, workload: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """One workload's results for each stack: the factor to write into its top layer, and the lines below the diagram.

    Both keyed by path. A layer's factor is its stack over the stack below it; a line names what it is compared with.
    """
    rows = asked.cell(asked.overheads, workload)
    samples = asked.cell(asked.samples, workload)  # select before decomposing: the rest is not used
    roots = {name for name, base in baselines(samples).items() if name == base}
    factors: dict[str, str] = {}
    lines: dict[str, list[str]] = {}
    for row in rows.dropna(subset=["ratio"]).to_dict("records"):
        stack, base = str(row["stack"]), str(row["baseline"])
        lines[stack] = [_factor(row["ratio"], row["low"], row["high"], base)]
        if base == stack.rpartition("/")[0]:
            factors[stack] = plot.times(row["ratio"])
        if base in roots and base == stack.rpartition("/")[0]:
            continue  # one layer: nothing more to decompose
        terms = decompose(samples, stack, level=asked.level)
        terms = terms[(terms["view"] == "path") & terms["factor"].notna()]
        for term in terms[terms["role"] == "layer"].to_dict("records"):
            if term["over"] == str(term["stack"]).rpartition("/")[0]:
                factors.setdefault(str(term["stack"]), plot.times(term["factor"]))
        for term in terms[terms["role"] == "total"].to_dict("records"):
            if term["over"] != base:
                lines[stack].append(_factor(term["factor"], term["low"], term["high"], str(term["over"])))
    return factors, lines


def _factor(ratio: float, low: float, high: float, base: str) -> str:
    return f"{plot.times(ratio)} {plot.interval_text(low, high)}\nover {base}"


def stacks(asked: Asked) -> Figure:
    """Every stack as a column of boxes, with the factors of one workload if stacks were compared."""
    names, factors, lines, caption, of = _measured(asked)
    info = asked.run.info
    columns = [
        plot.Column(
            diagram.of(name, info.techniques, factors, info.pictures),
            name,
            "\n".join(lines.get(name, ["baseline"])).splitlines(),
        )
        for name in names
    ]
    return plot.stack_diagrams(
        columns, title=f"What each stack is made of{of}", caption=caption, clock=asked.by
    )


def side_by_side(asked: Asked) -> Figure:
    """All stacks at once, on top of what they share; a machine booted differently is drawn separately."""
    names, factors, _, caption, of = _measured(asked)
    info = asked.run.info
    machines = diagram.together(names, info.techniques, factors, info.pictures)
    return plot.stack_diagrams(
        [plot.Column(machine, "") for machine in machines],
        title=f"All stacks side by side{of}",
        caption=caption,
        clock=asked.by,
        paths=True,
    )


def _measured(asked: Asked) -> tuple[list[str], dict[str, str], dict[str, list[str]], str, str]:
    """Stacks, factors and lines as from :func:`layer_factors`, a caption, and text for the title."""
    names = list(asked.chosen) or plot.in_order(asked.samples, asked.stacks)[0]
    if not names:
        raise asked.lacks("a measurement")
    if asked.overheads.empty:
        return names, {}, {}, "", ""
    workload = asked.one_workload()
    cells = asked.cell(asked.overheads, workload)
    rests_on = plot.blocks_text(cells["n"], cells["boots"])
    caption = (
        f"Factors: {asked.title(workload)}, cost in the stack over cost in what it stands on, Hodges-Lehmann "
        f"ratio; in brackets the exact signed-rank interval ({plot.level_text(cells)}), {rests_on}; where "
        "the run does not hold the two against each other, the mean of their log-ratios and its t interval."
    )
    of = f"; factors: {asked.titles.get(workload, workload)}"
    return names, *layer_factors(asked, workload), caption, of


def text_factors(
    run: Run, stacks: list[str], workload: str | None
) -> tuple[dict[str, str], dict[str, list[str]], str]:
    """For diagrams in a terminal: factors and lines by path as from :func:`layer_factors`, and what they measure.

    ``workload`` None: the one with the highest overhead in any stack. Raises ``UsageError`` for a stack or workload
    that was not measured, and for stacks with different clocks.
    """
    found = [choose(run, stack=stack, workload=workload) for stack in stacks]
    clocks = {asked.by for asked in found}
    if len(clocks) > 1:
        raise UsageError(
            "these stacks are timed by different kinds of clock",
            "draw wall-clock and testbed stacks separately",
        )
    asked = Asked(run, workload=workload, clock=clocks.pop())
    name = asked.one_workload()
    factors, lines = layer_factors(asked, name)
    note = (
        f"Factors: {asked.title(name)}, cost in the stack over cost in what it stands on, "
        f"{plot.blocks_text(asked.cell(asked.overheads, name)['n'])}. {plot.CLOCKS[str(asked.by)]}"
    )
    return factors, {path: "\n".join(each).splitlines() for path, each in lines.items()}, note
