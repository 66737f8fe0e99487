"""`vbench why`: what an operation is made of, in a stack and in its baseline."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vbench.cli.console import say, show_table
from vbench.cli.options import Json, StackPath, group
from vbench.errors import UsageError

if TYPE_CHECKING:
    from vbench.bundle.reasons import Reasons

app = group()


@app.command()
def why(
    stack: StackPath,
    workload: Annotated[str, typer.Argument(help="A workload; vbench workloads lists them.")],
    memory: Annotated[
        bool, typer.Option("--memory", help="Model caches of translations and of data, too; takes longer.")
    ] = False,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Draw it, too: a .png, .svg or .pdf file.")
    ] = None,
    json: Json = False,
) -> None:
    """Count what an operation is made of: instructions by where they are, exits by reason, faults, hypercalls.

    On the testbed, whose emulator counts in a second pass of the same cell. That moves no figure.
    """
    from vbench.capsule import capsule
    from vbench.cli.console import ConsoleProgress
    from vbench.cli.options import workloads_of
    from vbench.harness.why import countable, reasons
    from vbench.layers.stack import Stack
    from vbench.plot import FORMATS

    known = workloads_of(None)
    if workload not in known:
        raise UsageError(f"there is no workload {workload!r}", "vbench workloads lists them")
    if figure is not None and figure.suffix.lower().lstrip(".") not in FORMATS:
        raise UsageError(f"{figure}: a figure is a .png, .svg or .pdf file")
    asked = Stack.parse(stack)
    countable(asked)
    base = asked.baseline()
    built = capsule.require(ConsoleProgress().sending)
    found = [
        reasons(each, known[workload], built, model=memory) for each in (base, asked) if each is not None
    ]
    if json:
        show_table([dataclasses.asdict(each) for each in found], json=True)
    else:
        _tell(found)
    if figure is not None:
        from vbench.plot import save
        from vbench.plot.why import made_of

        save(made_of(found), figure)
        if not json:
            say(f"figure: {figure}")


def _tell(found: list[Reasons]) -> None:
    from vbench.bundle.reasons import sentence
    from vbench.exact.counts import MODELLED
    from vbench.terms import PLACES

    last = found[-1]
    say(sentence(found))
    names = [
        *PLACES,
        *sorted({name for each in found for name in each.counts} - {*PLACES, *MODELLED}),
        *MODELLED,
    ]
    rows = [("instructions", [each.instructions for each in found])]
    rows += [
        (f"  {name}" if name in PLACES else name, [each.counts.get(name, 0.0) for each in found])
        for name in names
    ]
    table = []
    for name, numbers in rows:
        if max(abs(number) for number in numbers) < 0.005:
            continue
        row = {each.stack: f"{number:,.2f}" for each, number in zip(found, numbers, strict=True)}
        row |= {"added": f"{numbers[1] - numbers[0]:+,.2f}"} if len(numbers) > 1 else {}
        table.append({"": name} | row)
    width = {name: max(len(row[name]) for row in table) for name in table[0]}
    show_table([{k: v.rjust(width[k]) if k else v for k, v in row.items()} for row in table], json=False)
    what = "per operation" if last.operations else "of a whole invocation"
    say(
        f"Counted {what}, in a pass of its own that moves no figure: {last.metric} is {last.value:.6g} {last.unit}."
    )
