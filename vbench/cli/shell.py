"""`vbench shell`: an interactive shell inside a stack."""

from __future__ import annotations

import sys

import typer

from vbench.cli.console import say
from vbench.cli.options import StackPath, group, opened
from vbench.errors import UsageError

app = group()


@app.command()
def shell(stack: StackPath) -> None:
    """Open an interactive shell inside a stack."""
    if not sys.stdin.isatty():
        raise UsageError("a shell needs a terminal", "for one command: vbench exec STACK -- COMMAND")
    from vbench.cli.terminal import interact

    with opened(stack) as host:
        say(f"shell in {host.name}; type exit to leave")
        code = interact(host)
    raise typer.Exit(code)
