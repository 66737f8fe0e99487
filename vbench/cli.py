"""The command line: what puts the commands together, and turns errors into lines and exit codes."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from vbench import __version__
from vbench.commands import analysis, deciding, inside, knowledge, measuring, teaching, upkeep
from vbench.console import say, warn
from vbench.errors import VbenchError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="What each layer of virtualization costs: identical workloads, alone and stacked.",
)
for module in (measuring, analysis, deciding, knowledge, teaching, inside, upkeep):
    app.add_typer(module.app)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        say(f"vbench {__version__}")
        raise typer.Exit


def _terminate(*_: object) -> None:
    # The same unwinding as for Ctrl-C, so that nothing is left behind either way.
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: errors that users can act on become one or two lines and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)
    except VbenchError as error:
        warn(error.message + (f"\n  mend: {error.hint}" if error.hint else ""))
        code = error.exit_code
    except TyperException as error:
        warn(error.format_message())
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        warn("interrupted")
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
