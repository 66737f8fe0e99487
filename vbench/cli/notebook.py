"""`vbench notebook`: the course, as notebooks."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from vbench.cli.console import say, show_table
from vbench.cli.options import Json, group
from vbench.errors import VbenchError

app = group()

COPIES = "vbench-notebooks"
"""The folder for copies, by default."""

# No pop-ups about news in a classroom, and nothing here contacts another machine.
_QUIET = ("--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")


@app.command()
def notebook(
    name: Annotated[str | None, typer.Argument(help="Name or number of a notebook; all by default.")] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the notebooks.")] = False,
    into: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder for your copies; by default {COPIES}, or the current folder if it holds some."
        ),
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Work on this bundle instead of the reference.")] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
    json: Json = False,
) -> None:
    """Open the course on what layers cost in Jupyter.

    You work on copies of your own.
    """
    from vbench.notebook import BUNDLE, find, notebooks, title

    known = notebooks()
    if list_them:
        show_table([{"notebook": stem, "title": title(path)} for stem, path in known.items()], json=json)
        return
    wanted = [find(name)] if name is not None else list(known.values())
    if bundle is None and (chosen := os.environ.get(BUNDLE)):
        bundle = Path(chosen)
    if bundle is not None:
        from vbench import load
        from vbench.notebook.course import check

        check(load(bundle), [path.stem for path in wanted])
        os.environ[BUNDLE] = str(bundle.resolve())
    if importlib.util.find_spec("jupyterlab") is None:
        raise ModuleNotFoundError(name="jupyterlab")  # main() says which extra provides it
    if into is None:
        into = _place(known.values())
    _copy(wanted, into)
    target = into / wanted[0].name if name is not None else into
    say(f"opening {target} in Jupyter; press Ctrl-C to stop it")
    command = [sys.executable, "-m", "jupyterlab", str(target), *_QUIET]
    command += [] if browser else ["--no-browser"]
    command += (
        ["--allow-root"] if os.geteuid() == 0 else []
    )  # it listens on loopback only, and asks for a token
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606  (Jupyter takes over: nothing is left to clean up)


def _place(originals: Iterable[Path]) -> Path:
    """The current folder if it already holds copies, by its name or its content; else a folder below it."""
    here = Path.cwd()
    held = [path for path in originals if (here / path.name).is_file()]
    if any((here / path.name).samefile(path) for path in held):
        return Path(COPIES)  # these are no copies
    return Path() if held or here.name == COPIES else Path(COPIES)


def _copy(wanted: list[Path], into: Path) -> None:
    """Copy the notebooks; a copy that exists is somebody's work, and is kept."""
    try:
        into.mkdir(parents=True, exist_ok=True)
        for path in wanted:
            if (into / path.name).exists():
                say(f"{into / path.name} exists and is left as it is")
            else:
                shutil.copyfile(path, into / path.name)
    except OSError as error:
        raise VbenchError(
            f"cannot write to {into}: {error.strerror}", "choose another folder: --into"
        ) from error
