"""What all kinds of hosts do with a command: check it, limit its output, say how it failed."""

from __future__ import annotations

import shlex
import threading
from collections import deque
from pathlib import Path

from vbench.errors import CommandFailed, HostError
from vbench.hosts.base import Argv, Result

OUTPUT_LIMIT = 64 << 20
"""Maximum bytes per stream that ``Host.run`` accepts."""
TAIL_LIMIT = 64 << 10
"""Bytes of output that a ``Process`` keeps."""


def script(path: Path) -> str:
    """The text of a vbench shell script, without comments: for ``sh -c`` on a host without the file."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.lstrip().startswith("#"))


def checked(argv: Argv) -> tuple[str, ...]:
    """The argv as a tuple; ``HostError`` if no kernel could execute it."""
    if isinstance(argv, str) or not argv:
        raise HostError(f"a command is a list of at least one string, not {argv!r}")
    if any("\0" in part for part in argv):
        raise HostError(f"a NUL byte in an argument: {shorten(argv)}")
    return tuple(argv)


def shorten(argv: Argv, limit: int = 200) -> str:
    """The argv as typed in a shell, cut in the middle if it is long."""
    text = shlex.join(argv)
    return text if len(text) <= limit else f"{text[: limit - 40]} ... {text[-35:]}"


def require_success(host: str, result: Result) -> Result:
    """The result, or ``CommandFailed`` with the command, how it ended and its last line of standard error."""
    if result.code == 0:
        return result
    stderr = result.stderr.decode(errors="replace")
    how = f"was ended by {result.signal}" if result.signal else f"gave exit code {result.code}"
    said = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    message = f"{host}: {shorten(result.argv)} {how}"
    raise CommandFailed(f"{message}: {said}" if said else message, result.code, stderr)


def not_started(code: int, stderr: bytes, starter: str) -> bytes:
    """Standard error without the name of the starter program, if that could not start the command."""
    return stderr.removeprefix(f"{starter}: ".encode()) if code in {126, 127} else stderr


class Capped:
    """Collects a whole stream, up to ``OUTPUT_LIMIT``."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def full(self) -> bool:
        """Whether the limit has been exceeded; the excess is discarded."""
        return self._size > OUTPUT_LIMIT

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self._size += len(data)
        if not self.full:
            self._chunks.append(data)

    def value(self) -> bytes:
        """Everything taken."""
        return b"".join(self._chunks)


class Ring:
    """Keeps the last ``TAIL_LIMIT`` bytes that several threads feed it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece, and drop what no longer fits."""
        with self._lock:
            self._chunks.append(data)
            self._size += len(data)
            while self._size - len(self._chunks[0]) >= TAIL_LIMIT:
                self._size -= len(self._chunks.popleft())

    def text(self) -> str:
        """What is kept, as text."""
        with self._lock:
            return b"".join(self._chunks)[-TAIL_LIMIT:].decode(errors="replace")
