"""`vbench identify`: what a machine says of itself, and where that contradicts the hosts file."""

from __future__ import annotations

from typing import Annotated

import typer

from vbench.cli.console import say, show_table, warn
from vbench.cli.options import Hosts, Json, group, machines_of

app = group()


@app.command()
def identify(
    name: Annotated[
        str,
        typer.Argument(help="A machine of the hosts file, an alias of ~/.ssh/config, user@host, or local."),
    ],
    hosts: Hosts = None,
    accept_new: Annotated[
        bool,
        typer.Option("--accept-new", help="Add the host key of a machine that is not known to known_hosts."),
    ] = False,
    json: Json = False,
) -> None:
    """Say what a machine is, as far as it tells; exit code 1 if that contradicts what it is declared to be."""
    import json as plain

    from vbench.hosts.declared import LOCAL, Machine
    from vbench.hosts.local import LocalHost
    from vbench.hosts.ssh.login import log_in, way
    from vbench.observe import identity

    declared = machines_of(hosts).get(name)
    machine = declared or Machine(name=name)
    if name == LOCAL:
        known = identity.ask(LocalHost())
    else:
        with log_in(way(machine.address), accept_new=accept_new) as host:
            known = identity.ask(host)
    against = [*identity.contradictions(machine.system, known)] if declared else []
    if json:
        told = {"name": name, "system": machine.system, "facts": known, "contradictions": against}
        typer.echo(plain.dumps(told, indent=1))
    else:
        rows = [{"": key, " ": str(known[key])} for key in identity.SHOWN]
        declared_as = [{"": "declared", " ": machine.system or "without a hypervisor"}] if declared else []
        show_table([*declared_as, *rows], json=False)
    for each in against:
        warn(f"{name}: {each}")
    if not against and declared and not json:
        say(f"nothing contradicts that {name} is {machine.system or 'without a hypervisor'}")
    raise typer.Exit(1 if against else 0)
