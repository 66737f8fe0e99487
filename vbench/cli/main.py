"""The command line: puts the commands together, and turns errors into messages and exit codes."""

from __future__ import annotations

import codecs
import io
import logging
import os
import signal
import sys
import unicodedata
from typing import Annotated

import typer
from typer.exceptions import TyperException

from vbench import __version__
from vbench.cli import (
    advise,
    blocks,
    capsule,
    catalog,
    clean,
    compare,
    doctor,
    exec,
    identify,
    layers,
    logs,
    notebook,
    pair,
    plot,
    quickstart,
    replay,
    report,
    resume,
    run,
    shell,
    verify,
    why,
    work,
    workloads,
)
from vbench.cli.console import say, warn
from vbench.errors import VbenchError, missing_extra

log = logging.getLogger("vbench.cli.main")  # also when this module is run as a program

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Measure what each layer of virtualization costs: identical workloads, alone and stacked.",
)
_MODULES = (
    quickstart, run, resume, replay,
    report, plot, verify, compare, pair, blocks, why,
    catalog, advise,
    doctor, identify, layers, workloads,
    notebook,
    exec, shell,
    clean, work,
)  # fmt: skip
for module in _MODULES:
    app.add_typer(module.app)
app.add_typer(capsule.app, name="capsule")
for module in (*_MODULES, capsule):
    for command in module.app.registered_commands:
        logs.accept_log_options(command)


@app.callback(invoke_without_command=True)
def _root(
    verbose: logs.Verbose = False,
    debug: logs.Debug = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    logs.show(verbose=verbose, debug=debug)
    if version:
        say(f"vbench {__version__}")
        raise typer.Exit


def _terminate(*_: object) -> None:
    # Unwind as for Ctrl-C, so that nothing is left behind.
    raise KeyboardInterrupt


# What replaces characters that an output's encoding lacks; letters just lose their accents.
_PLAIN = {
    ord(each): plain
    for plain, all_of in {
        "-": "\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}─━╌",
        "'": "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}",
        '"': "“”«»",
        "x": "\N{MULTIPLICATION SIGN}",
        "/": "÷\N{FRACTION SLASH}",
        "u": "\N{MICRO SIGN}",
        "|": "│╎",
        "+": "┌┐└┘├┤╭╮╰╯†",
        "~": "≈",
        "+/-": "±",
        "->": "→",
        "<=": "≤",
        ">=": "≥",
        "oe": "œ",
        "*": "•·" + "".join(map(chr, range(0x2800, 0x2900))),  # the spinner of a progress line
    }.items()
    for each in all_of
}


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """A codec error handler: something readable in ASCII for what cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    letters = (each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
    return "".join(each if each.isascii() else "?" for each in letters), error.end


def _never_die_of_an_encoding() -> None:
    codecs.register_error("vbench-plainly", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="vbench-plainly")


def main() -> None:
    """Entry point: errors that users can act on become a line, perhaps a hint, and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    _never_die_of_an_encoding()
    try:
        code = app(standalone_mode=False)
    except (VbenchError, ModuleNotFoundError) as error:
        told = error if isinstance(error, VbenchError) else missing_extra(error)
        if told is None:
            raise
        log.debug("the command failed", exc_info=logs.below_command(error))
        warn(told.message + (f"\n  hint: {told.hint}" if told.hint else ""))
        code = told.exit_code
    except TyperException as error:
        warn(error.format_message())
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        warn("interrupted")
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    finally:
        logs.hide()
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
