"""`vbench doctor`: which layers work on a stack, and why others do not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from vbench.cli.console import show_table
from vbench.cli.options import Json, group
from vbench.errors import VbenchError

if TYPE_CHECKING:
    from vbench.layers.base import Available, Unavailable

app = group()


@dataclass(frozen=True)
class Row:
    """One layer on one stack: whether it works there. ``hint`` says how to fix it, "" where nothing is known."""

    layer: str
    stack: str
    technique: str
    status: str
    available: bool
    detail: str
    hint: str


@app.command()
def doctor(
    parent: Annotated[str, typer.Argument(help="The stack to check the layers on.")] = "local",
    json: Json = False,
) -> None:
    """Check which layers work here; for the rest, say why and how to fix it."""
    rows = examine(parent)
    if json:
        show_table([asdict(row) for row in rows], json=True)
    else:
        show_rows(rows)


def show_rows(rows: list[Row]) -> None:
    """The answers as a table, each hint below its reason."""
    table = [
        asdict(row) | {"detail": f"{row.detail}\nhint: {row.hint}" if row.hint else row.detail}
        for row in rows
    ]
    show_table(table, json=False, columns=("layer", "technique", "status", "detail"))


def examine(path: str) -> list[Row]:
    """Whether each layer can open on the stack ``path``, one row per layer."""
    from vbench.capsule import capsule
    from vbench.layers.base import Shape, Unavailable, layer_classes
    from vbench.layers.stack import Stack, open_stack

    where = Stack.asked(path)
    answers: dict[str, Available | Unavailable]
    if (built := capsule.find()) is None:
        missing = Unavailable("no capsule has been built here", "vbench capsule build")
        answers = dict.fromkeys(layer_classes(), missing)
    else:
        with open_stack(where, built, Shape()) as host:
            answers = {}
            for name, layer in layer_classes().items():
                try:
                    answers[name] = layer().lacks(host) or layer().probe(host)
                except VbenchError as error:
                    answers[name] = Unavailable(f"its probe failed: {error.message}", error.hint or "")
    return [_row(where.path, name, answer) for name, answer in answers.items()]


def _row(where: str, name: str, answer: Available | Unavailable) -> Row:
    from vbench.layers.base import Available, layer_classes

    available = isinstance(answer, Available)
    return Row(
        layer=name,
        stack=f"{where}/{name}",
        technique=layer_classes()[name].technique.value,
        status="available" if available else "unavailable",
        available=available,
        detail=answer.detail if isinstance(answer, Available) else f"because {answer.reason}",
        hint="" if isinstance(answer, Available) else answer.hint,
    )
