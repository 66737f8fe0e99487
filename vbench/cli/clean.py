"""`vbench clean`: remove what was left behind."""

from __future__ import annotations

from typing import Annotated

import typer

from vbench.cli.console import say
from vbench.cli.options import group

app = group()


@app.command()
def clean(
    machine: Annotated[
        str | None, typer.Argument(help="Another machine, from which all of vbench's is removed.")
    ] = None,
    capsules: Annotated[bool, typer.Option("--capsules", help="Remove the capsule too.")] = False,
    snapshots: Annotated[
        bool, typer.Option("--snapshots", help="Remove the testbed's snapshots too.")
    ] = False,
) -> None:
    """Remove what killed runs and builds left behind."""
    if machine is not None:
        _over_ssh(machine)
        return
    from contextlib import nullcontext

    from vbench.capsule import capsule
    from vbench.exact.snapshots import remove as remove_snapshots
    from vbench.hosts.workspace import nobody_else, tidy

    orphans, gone = tidy()
    with nobody_else("removing the capsule") if capsules else nullcontext():
        gone += capsule.remove(partial_only=not capsules)
    gone += remove_snapshots(partial_only=not snapshots)
    for number in orphans:
        say(f"ended process {number}, left behind by a killed vbench")
    for folder in gone:
        say(f"removed {folder}")
    if not gone and not orphans:
        say("nothing to remove")


def _over_ssh(machine: str) -> None:
    from vbench.hosts.ssh.keeper import sweep
    from vbench.hosts.ssh.login import log_in, way
    from vbench.layers.roots import cache_of

    with log_in(way(machine)) as host:
        gone = sweep(host, cache_of(host))
    for each in gone:
        say(f"removed {each.removeprefix('process ')}" if each.startswith("/") else f"ended {each}")
    if not gone:
        say("nothing to remove")
