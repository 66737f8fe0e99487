"""Commands that keep the capsule and the caches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vbench.cli.console import say, warn
from vbench.cli.options import Json, group

app = group()


capsule_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="The payload that runs everywhere."
)
app.add_typer(capsule_app, name="capsule")


@capsule_app.command("build")
def capsule_build(
    mirror: Annotated[str | None, typer.Option(help="A Debian mirror, as mmdebstrap takes it.")] = None,
    update_lock: Annotated[bool, typer.Option(help="Make the lock file say what was built.")] = False,
) -> None:
    """Build the capsule from Debian packages, once, and what layers need beyond it; says what differs from the lock."""
    from vbench.capsule import add_on, capsule
    from vbench.layers.base import needed

    built = capsule.build(say, mirror=mirror)
    for wanted in needed():
        part = add_on.build(wanted, say, mirror=mirror)
        if update_lock:
            add_on.write_lock(wanted, part)
        say(f"add-on {wanted.name} {part.digest}")
    if update_lock:
        capsule.write_lock(built)
    elif built.manifest.drift:
        warn(
            f"{len(built.manifest.drift)} packages differ from the lock file: vbench capsule show lists them"
        )
    say(f"capsule {built.digest}")


@capsule_app.command("show")
def capsule_show(json: Json = False) -> None:
    """What the capsule holds, and how it differs from the lock file; which add-ons layers need."""
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
    say(f"mended    {'; '.join(manifest.mended) or 'nothing'}")
    say(f"programs  {', '.join(sorted(manifest.programs))}")
    for wanted in needed():
        found = add_on.find(wanted)
        said = f"{found[1].digest} in {found[0].directory}" if found else "not built: vbench capsule build"
        say(f"add-on    {wanted.name} {said}")
        for line in found[1].drift if found else ():
            say(f"  {line}")


@capsule_app.command("export")
def capsule_export(file: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Write the capsule to one file, to be imported on another machine."""
    from vbench.capsule import capsule

    capsule.export(capsule.require(), file)
    say(f"wrote {file}")


@capsule_app.command("import")
def capsule_import(file: Annotated[Path, typer.Argument(help="A file that export wrote.")]) -> None:
    """Take in an exported capsule, after checking its digest."""
    from vbench.capsule import capsule

    say(f"capsule {capsule.import_(file, say).digest}")


@app.command()
def clean(
    capsules: Annotated[bool, typer.Option("--capsules", help="Remove the capsule, too.")] = False,
) -> None:
    """Remove what killed runs and builds left behind, and with --capsules the capsule."""
    from contextlib import nullcontext

    from vbench.capsule import capsule
    from vbench.hosts.workspace import end_orphans, nobody_else, remove_stale

    orphans = end_orphans()
    gone = remove_stale()
    with nobody_else("removing the capsule") if capsules else nullcontext():
        gone += capsule.remove(partial_only=not capsules)
    for number in orphans:
        say(f"ended process {number}, which a killed vbench had left behind")
    for folder in gone:
        say(f"removed {folder}")
    if not gone and not orphans:
        say("nothing to remove")
