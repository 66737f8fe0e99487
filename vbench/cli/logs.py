"""The log on standard error, for whoever asks for it; `vbench.cli.run_log` keeps that of a run in its bundle.

Modules of vbench log to ``logging.getLogger(__name__)``: at INFO what is opened and measured and how long that
took, at DEBUG every command, process and login. They say nothing of keys or of what is fed to commands.
"""

from __future__ import annotations

import inspect
import logging
from functools import wraps
from typing import Annotated, Any

import typer
from typer.models import CommandInfo

from vbench.cli.console import err, harmless

Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Log what is opened and measured, and how long it takes.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Log every command too: its host, exit code and time.")]

_vbench = logging.getLogger("vbench")
_vbench.addHandler(logging.NullHandler())  # or Python would print warnings to standard error by itself


class Format(logging.Formatter):
    """One event with its time and origin; what a stranger made a tool say cannot command a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The event as text."""
        return harmless(super().format(record))


class _Terminal(logging.Handler):
    """Standard error, above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            err.print(self.format(record), markup=False)
        except Exception:  # a log must not stop what it tells of
            self.handleError(record)


_terminal = _Terminal()
_terminal.setFormatter(Format("%(asctime)s.%(msecs)03d %(levelname)-5s %(name)s: %(message)s", "%H:%M:%S"))


def show(*, verbose: bool, debug: bool) -> None:
    """Send the log to standard error from now on, if either is wanted; what was wanted before stays."""
    if verbose or debug:
        level = logging.DEBUG if debug else logging.INFO
        _terminal.setLevel(min(level, _terminal.level or level))
        _vbench.addHandler(_terminal)
        _vbench.setLevel(_terminal.level)


def hide() -> None:
    """No more of it on standard error."""
    _vbench.removeHandler(_terminal)
    _terminal.setLevel(logging.NOTSET)
    _vbench.setLevel(logging.NOTSET)


def accept_log_options(command: CommandInfo) -> None:
    """Have a command take ``--verbose`` and ``--debug``, for users who write them after its name."""
    own = command.callback
    assert own is not None  # noqa: S101 - it was registered with a function

    @wraps(own)
    def with_log_options(*, verbose: bool = False, debug: bool = False, **given: Any) -> None:
        show(verbose=verbose, debug=debug)
        own(**given)

    signature = inspect.signature(own, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in (("verbose", Verbose), ("debug", Debug))
    ]
    signature = signature.replace(parameters=[*signature.parameters.values(), *more])
    with_log_options.__signature__ = signature  # type: ignore[attr-defined]
    command.callback = with_log_options


def below_command(error: Exception) -> Exception:
    """The error without what the traceback says of how the command line called the command."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_name != "with_log_options":
        trace = trace.tb_next
    return error.with_traceback(trace.tb_next) if trace else error
