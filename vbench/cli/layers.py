"""`vbench layers`: the layers there are, and drawings of stacks."""

from __future__ import annotations

import sys
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated

import typer

from vbench.cli.console import say, show_table
from vbench.cli.options import Json, group
from vbench.errors import UsageError

if TYPE_CHECKING:
    from vbench.layers.base import Layer

app = group()


@app.command()
def layers(
    stacks: Annotated[
        list[str] | None, typer.Argument(help="Stack paths to draw, such as local/uml.")
    ] = None,
    together: Annotated[
        bool,
        typer.Option(
            "--together",
            help="Draw the stacks side by side on the host they share; name one twice for two of it.",
        ),
    ] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Label the boxes with the factors in this bundle.")
    ] = None,
    workload: Annotated[
        str | None, typer.Option("--workload", "-w", help="Use the factors of this workload.")
    ] = None,
    json: Json = False,
) -> None:
    """List the layers, or draw stacks from the hardware up."""
    if stacks:
        _draw_stacks(stacks, together=together, bundle=bundle, workload=workload, json=json)
        return
    if together or bundle or workload:
        raise UsageError("no stack to draw", "name some, such as: vbench layers local/uml local/qemu")
    from vbench.layers.base import layer_classes

    rows = [
        {
            "layer": name,
            "technique": layer.technique.value,
            "what it is": "\n".join([layer.summary, *_parameters(layer)]),
            "parameters": {each.name: each.choices for each in layer.parameters},
            "catalogue": layer.catalogue or "",
        }
        for name, layer in layer_classes().items()
    ]
    show_table(rows, json=json, columns=("layer", "technique", "what it is"))


def _parameters(layer: type[Layer]) -> list[str]:
    """One line that names them; `vbench layers NAME` tells more."""
    return [f"takes {', '.join(each.name for each in layer.parameters)}"] if layer.parameters else []


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _draw_stacks(
    paths: list[str], *, together: bool, bundle: Path | None, workload: str | None, json: bool
) -> None:
    """Print stack diagrams, with a bundle's factors if one is given."""
    from vbench.plot import diagram

    if workload and not bundle:
        raise UsageError("factors are measured, and no bundle is given", "use --bundle DIR")
    factors: dict[str, str] = {}
    more: dict[str, list[str]] = {}
    note, told = "", list[str]()
    if bundle:  # it knows its stacks: no layer is loaded, so that this works where none can open
        from vbench import load
        from vbench.figures import text_factors

        run = load(bundle)
        techniques, measured = run.info.techniques, {*run.samples["stack"]}
        pictures = run.info.pictures
        given = [path.strip("/") for path in paths]
        names = [path if path in measured else f"local/{path}" for path in given]
        factors, more, note = text_factors(run, names, workload)
    else:
        from vbench.layers.stack import Stack, parameters_of, pictures_of

        wanted = [Stack.asked(path) for path in paths]
        prefixes = [each.prefix(depth) for each in wanted for depth in range(1, each.depth + 1)]
        techniques = {each.path: each.technique() for each in prefixes}
        pictures = pictures_of(wanted)
        names = [each.path for each in wanted]
        told = parameters_of(wanted)
    captions = {name: [name, *more.get(name, [])] for name in names}
    boxes = (
        diagram.together(names, techniques, factors, pictures)
        if together
        else [diagram.of(name, techniques, factors, pictures) for name in names]
    )
    if json:
        show_table([box.as_dict() for box in boxes], json=True)
        return
    heads = [[]] * len(boxes) if together else [captions[name] for name in names]
    drawn = [(head, diagram.text(box, paths=together)) for head, box in zip(heads, boxes, strict=True)]
    lines = diagram.columns(drawn, get_terminal_size((100, 24)).columns)
    for line in lines:
        say(line if _can_print(line) else diagram.plain(line))
    for line in told:
        say(line)
    if note:
        say(f"\n{note}")
