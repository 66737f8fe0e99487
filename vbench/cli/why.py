"""`vbench why`: what an operation is made of, in a stack and in its baseline."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vbench.cli.console import say, show_table
from vbench.cli.options import Json, StackPath, group
from vbench.errors import NotComparable, UsageError

if TYPE_CHECKING:
    from vbench.bundle.reasons import Reasons

app = group()

_MUCH = 0.05
"""The share of a figure above which what was counted beside it is worth a line."""


@app.command()
def why(
    stack: StackPath,
    workload: Annotated[list[str], typer.Argument(help="Workloads; vbench workloads lists them.")],
    memory: Annotated[
        bool, typer.Option("--memory", help="Model caches of translations and of data, too; takes longer.")
    ] = False,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Draw it, too: a .png, .svg or .pdf file.")
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option("--into", help="Add it to this bundle, whose report then shows it at the cell."),
    ] = None,
    json: Json = False,
) -> None:
    """Count what an operation is made of: instructions by where they are, exits by reason, faults, hypercalls.

    On the testbed, whose emulator counts in a second pass of the same cell. That moves no figure.
    """
    from vbench.bundle.reasons import keep_reasons
    from vbench.capsule import capsule
    from vbench.cli.console import ConsoleProgress
    from vbench.cli.options import workloads_of
    from vbench.harness.why import countable, reasons
    from vbench.layers.stack import Stack
    from vbench.plot import FORMATS

    known = workloads_of(None)
    for name in workload:
        if name not in known:
            raise UsageError(f"there is no workload {name!r}", "vbench workloads lists them")
    if figure is not None and (len(workload) > 1 or figure.suffix.lower().lstrip(".") not in FORMATS):
        raise UsageError(f"{figure}: a figure is a .png, .svg or .pdf file, of one workload")
    asked = Stack.parse(stack)
    countable(asked)
    base = asked.baseline()
    built = capsule.require(ConsoleProgress().sending)
    if into is not None:
        _belongs(into, asked.path, workload, built.digest)
    everything: list[Reasons] = []
    for name in workload:
        found = [
            reasons(each, known[name], built, model=memory) for each in (base, asked) if each is not None
        ]
        everything += found
        if into is not None:
            keep_reasons(into, found)
        if not json:
            _tell(found)
    if json:
        show_table([dataclasses.asdict(each) for each in everything], json=True)
    if figure is not None:
        from vbench.plot import save
        from vbench.plot.why import made_of

        save(made_of(everything), figure)
        if not json:
            say(f"figure: {figure}")


def _belongs(folder: Path, stack: str, workloads: list[str], digest: str) -> None:
    """Raises ``NotComparable`` if a bundle was made of another capsule, ``UsageError`` if it has no such cells."""
    from vbench.bundle.store import read_info

    info = read_info(folder)
    if info.capsule.get("digest") != digest:
        raise NotComparable(
            f"{folder} was measured with capsule {info.capsule.get('digest')}, here is {digest}"
        )
    if stack not in info.techniques:
        raise UsageError(f"{folder} has no stack {stack}", f"it has {', '.join(info.techniques)}")
    if missing := [name for name in workloads if name not in info.workloads]:
        raise UsageError(f"{folder} has no workload {missing[0]}", f"it has {', '.join(info.workloads)}")


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
        texts = [
            "n/a" if name in each.unseen else f"{number:,.2f}"
            for each, number in zip(found, numbers, strict=True)
        ]
        more = "n/a" if "n/a" in texts else f"{numbers[-1] - numbers[0]:+,.2f}"
        row = dict(zip([each.stack for each in found], texts, strict=True))
        row |= {"added": more} if len(found) > 1 else {}
        table.append({"": name} | row)
    width = {name: max(len(row[name]) for row in table) for name in table[0]}
    show_table([{k: v.rjust(width[k]) if k else v for k, v in row.items()} for row in table], json=False)
    what = "per operation" if last.operations else "of a whole invocation"
    say(
        f"Counted {what}, in a pass of its own that moves no figure: {last.metric} is {last.value:.6g} {last.unit}."
    )
    if last.beside is not None and abs(last.beside) > _MUCH:
        more = "more" if last.beside > 0 else "less"
        say(
            f"All that was counted takes {abs(last.beside):.0%} {more} than that: not all of it is what is timed."
        )
    if last.unseen:
        told = ", ".join(f"{name}s" for name in last.unseen)
        say(f"Not counted: {told}, as a kernel in {last.stack} does not tell where it is entered.")
