"""The log of what hosts are asked to do: each command as typed in a shell, where it ran, and how it ended.

Nothing is formatted unless debug logging is on, and a command is logged after its times have been taken. Of
its input only the length is logged, because it may contain keys.
"""

from __future__ import annotations

import logging
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, cast

from vbench.errors import CommandFailed, HostError
from vbench.hosts.base import Argv, Host, Process, Result

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_LINES = 15
"""Maximum number of output lines that are logged."""


def commands(run: Callable[_P, Result]) -> Callable[_P, Result]:
    """``Host.run`` with logging: host, exit code, milliseconds, shell line, and its stderr if it failed."""

    @wraps(run)
    def logged(*args: _P.args, **options: _P.kwargs) -> Result:
        if not log.isEnabledFor(logging.DEBUG):
            return run(*args, **options)
        host, argv = cast(tuple[Host, Argv], args)
        begin = time.monotonic()
        try:
            result = run(*args, **options)
        except CommandFailed as error:
            _tell(host, argv, options, f"exit code {error.code}", time.monotonic() - begin, error.stderr)
            raise
        except HostError as error:
            _tell(host, argv, options, "no result", time.monotonic() - begin, error.message)
            raise
        said = result.stderr.decode(errors="replace") if result.code else ""
        _tell(host, argv, options, f"exit code {result.code}", result.elapsed, said)
        return result

    return logged


class _Last(threading.local):
    """This thread's last failure, when it was seen, and how often it has been left out of the log since."""

    failure: tuple[str, ...] | None = None
    at = 0.0
    again = 0


_last = _Last()


def _tell(host: Host, argv: Argv, options: dict[str, Any], how: str, seconds: float, said: str) -> None:
    failure, now = (host.name, *argv, how, said), time.monotonic()
    polled = failure == _last.failure and now - _last.at < 1  # something is being polled for
    _last.at = now
    if said and polled:
        _last.again += 1
        return
    if _last.again:
        log.debug("%s: the same, %d more times", host.name, _last.again)
    _last.failure, _last.again = failure, 0
    fed = f"  # with {len(data)} bytes of input" if (data := options.get("input")) else ""
    line = f"{shlex.join(argv)}{fed}{_end_of(said)}"
    log.debug("%s: %s after %.1f ms: %s", host.name, how, 1000 * seconds, line)


@contextmanager
def unseen_life(host: str, process: Process, end: Callable[[], object]) -> Iterator[None]:
    """The same as :func:`life` where looking at a process takes time that counts: only its start is logged."""
    log.debug("%s: process %d started: %s", host, process.pid, shlex.join(process.argv))
    try:
        yield
    finally:
        end()


@contextmanager
def life(host: str, process: Process, end: Callable[[], object]) -> Iterator[None]:
    """End a process when the block is left; log its start, how it ended and its last output."""
    begin = time.monotonic()
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s: process %d started: %s", host, process.pid, shlex.join(process.argv))
    try:
        yield
    finally:
        by_itself = log.isEnabledFor(logging.DEBUG) and _code(process) is not None
        end()
        if log.isEnabledFor(logging.DEBUG):
            how = "had already ended" if by_itself else "was ended"
            said = f"code {_code(process)}, after {time.monotonic() - begin:.1f} s{_end_of(process.tail())}"
            log.debug("%s: process %d %s: %s", host, process.pid, how, said)


def _code(process: Process) -> int | None:
    """Exit code of a process if it has ended and its host can still report it."""
    try:
        return process.poll()
    except HostError:
        return None


def _end_of(output: str) -> str:
    """The last lines of an output, indented on separate lines."""
    return "".join(f"\n    | {line:.500}" for line in output.splitlines()[-_LINES:])
