"""`vbench exec`: one command inside a stack."""

from __future__ import annotations

import os
import stat
import sys
from typing import Annotated

import typer

from vbench.cli.options import StackPath, group, opened

app = group()


@app.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def exec_(
    stack: StackPath,
    argv: Annotated[list[str], typer.Argument(help="The command and its arguments, after --.")],
) -> None:
    """Run one command inside a stack and exit with its exit code."""
    with opened(stack) as host:
        data = sys.stdin.buffer.read() if _is_fed() else None
        argv = argv[1:] if argv[0] == "--" else argv
        done = host.run(argv, check=False, timeout=None, input=data)
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(done.stderr)
    raise typer.Exit(done.code)


def _is_fed() -> bool:
    """Whether standard input is a file or a pipe, and so is passed on; a terminal is not waited for."""
    mode = os.fstat(0).st_mode if sys.stdin else 0
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
