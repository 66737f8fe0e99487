"""`vbench capsule ...`: the payload that runs everywhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vbench.cli.console import say, warn
from vbench.cli.options import Json
from vbench.errors import UsageError
from vbench.technique import AddOn

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Build, show, export or import the payload that runs everywhere.",
)


@app.command("build")
def build(
    add_ons: Annotated[
        list[str] | None, typer.Argument(help="Add-ons to build beside it; all, if none is named.")
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(help="Debian mirror to use, in any form that mmdebstrap accepts.")
    ] = None,
    update_lock: Annotated[bool, typer.Option(help="Update the lock file to what was built.")] = False,
) -> None:
    """Build the capsule from Debian packages, and what layers need beyond it, unless they are there.

    Says whether it differs from the lock file.
    """
    from vbench.capsule import add_on, capsule
    from vbench.layers.base import needed

    asked = add_ons and _named(add_ons)  # before anything is built, and only then: it takes what opens layers
    built = capsule.build(say, mirror=mirror)
    for wanted in asked or needed():
        part = add_on.build(wanted, say, mirror=mirror)
        if update_lock:
            add_on.write_lock(wanted, part)
        say(f"add-on {wanted.name} {part.digest}")
    if update_lock:
        capsule.write_lock(built)
    elif built.manifest.drift:
        warn(f"{len(built.manifest.drift)} packages differ from the lock file; see vbench capsule show")
    say(f"capsule {built.digest}")


def _named(names: list[str]) -> list[AddOn]:
    from vbench.layers.base import needed

    known = {each.name: each for each in needed()}
    if strangers := {*names} - known.keys():
        raise UsageError(f"there is no add-on {min(strangers)!r}", f"there are {', '.join(sorted(known))}")
    return [known[name] for name in names]


@app.command("show")
def show(json: Json = False) -> None:
    """Show what the capsule holds, how it differs from the lock file, and which add-ons layers need."""
    from vbench.capsule import add_on, capsule
    from vbench.layers.base import needed

    built = capsule.require()
    manifest = built.manifest
    if json:
        sys.stdout.write(manifest.model_dump_json(indent=1) + "\n")
        return
    say(f"capsule   {manifest.digest}\nin        {built.directory}\nkernel    {manifest.kernel}")
    say(f"packages  {len(manifest.packages)}, {len(manifest.drift)} of them not as in the lock file")
    for line in manifest.drift:
        say(f"  {line}")
    say(f"patched   {'; '.join(manifest.mended) or 'nothing'}")
    say(f"programs  {', '.join(sorted(manifest.programs))}")
    for wanted in needed():
        found = add_on.find(wanted)
        said = f"{found[1].digest} in {found[0].directory}" if found else "not built: vbench capsule build"
        say(f"add-on    {wanted.name} {said}")
        for line in found[1].drift if found else ():
            say(f"  {line}")


@app.command("export")
def export(file: Annotated[Path, typer.Argument(help="File to write.")]) -> None:
    """Write the capsule to one file, for import on another machine."""
    from vbench.capsule import capsule, transfer

    transfer.export(capsule.require(), file)
    say(f"wrote {file}")


@app.command("import")
def import_(file: Annotated[Path, typer.Argument(help="File written by export.")]) -> None:
    """Import an exported capsule, after checking its digest."""
    from vbench.capsule import transfer

    say(f"capsule {transfer.import_(file, say).digest}")
