"""What commands share: their options, and what the options name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from vbench.hosts.base import Host
    from vbench.hosts.declared import Machine
    from vbench.workload.library import Library

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Stacks = Annotated[
    list[str] | None,
    typer.Option("--stack", "-s", help="Stack path, such as local/uml; several are separated by commas."),
]
Names = Annotated[
    list[str] | None,
    typer.Option("--workload", "-w", help="Workload or group of workloads; several are separated by commas."),
]
Folders = Annotated[list[Path] | None, typer.Option("--workloads", help="Another folder of workload files.")]
Hosts = Annotated[
    Path | None,
    typer.Option(
        "--hosts",
        help="Hosts file (TOML) that declares machines; by default vbench.toml beside the plan, or here.",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Measure what counts instructions on a Dask cluster: tls://HOST:8786, or local to start one here.",
    ),
]
Folder = Annotated[Path, typer.Argument(help="Folder of a bundle.")]
StackPath = Annotated[str, typer.Argument(help="Stack path, such as local/uml.")]


def share(text: str | float) -> float:
    """A share as given on the command line: 0.05 or 5%. Bare numbers of 1 and above are refused: 2 is hardly 200%."""
    if isinstance(text, float):  # a default
        return text
    number = text.strip().removesuffix("%").strip()
    try:
        value = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not value >= 0 or (value >= 1 and not text.strip().endswith("%")) or math.isinf(value):
        meant = f"{number}%" if value >= 1 else "0.05 or 5%"
        raise typer.BadParameter(f"{text!r} is not a share; write {meant}")
    return value


def group() -> typer.Typer:
    """A command, or several; `vbench.cli.main` puts them together."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def workloads_of(folders: list[Path] | None) -> Library:
    """vbench's own workloads and those in the user's folders, by name."""
    from vbench import paths
    from vbench.workload.library import load_workloads

    return load_workloads([paths.workload_files(), *(folders or [])])


def machines_of(hosts: Path | None, plan: Path | None = None) -> dict[str, Machine]:
    """The machines of a hosts file: the one named, or the one beside the plan or in this folder."""
    from vbench.advisor import catalog
    from vbench.hosts.declared import BESIDE, read_hosts
    from vbench.layers.base import layer_classes

    beside = (plan.parent if plan else Path()) / BESIDE
    path = hosts or (beside if beside.is_file() else None)
    return read_hosts(path, catalog.systems(), [*layer_classes()]) if path else {}


def opened(path: str) -> AbstractContextManager[Host]:
    """The host on top of a stack, as a context manager."""
    from vbench.capsule import capsule
    from vbench.cli.console import ConsoleProgress
    from vbench.layers.base import Shape
    from vbench.layers.stack import Stack, open_stack

    machines = machines_of(None)
    stack = Stack.asked(path, machines)
    machine = machines.get(stack.root)
    return open_stack(
        stack, capsule.require(ConsoleProgress().sending), Shape(), address=machine.address if machine else ""
    )
