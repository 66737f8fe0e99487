"""A terminal in a deterministic machine, whose time passes while its user waits for it, and only then."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vbench.exact.hop import Hop
from vbench.hosts.base import Host, Process
from vbench.hosts.command import script

_SESSION = script(Path(__file__).parent / "scripts/session.sh")
_TYPE, _WATCH = 'cat > "$1/in"', 'exec timeout 0.03 cat "$1/out"'


class Terminal:
    """A login shell on a terminal of its own, looked at from time to time."""

    def __init__(self, via: Host, home: str, process: Process) -> None:
        self._via, self._home, self._process = via, home, process

    def type(self, data: bytes) -> None:
        """Hand on what the user has typed."""
        self._via.run(["sh", "-c", _TYPE, "type", self._home], input=data)

    def watch(self) -> bytes:
        """Let some time pass in the machine; returns what has appeared meanwhile."""
        return self._via.run(["sh", "-c", _WATCH, "watch", self._home], check=False).stdout

    @property
    def code(self) -> int | None:
        """The shell's exit code, once it has ended."""
        return self._process.poll()


@contextmanager
def terminal(host: Hop, kind: str, columns: int, lines: int) -> Iterator[Terminal]:
    """A terminal on a host in a deterministic machine."""
    via = host.via
    home = via.run(["mktemp", "-d", "/run/terminal.XXXXXX"]).text
    via.run(["mkfifo", f"{home}/in", f"{home}/out"])
    shell = f"stty rows {lines} columns {columns}; TERM={shlex.quote(kind)} exec sh -l"
    login = shlex.join(
        [*host.client("-t"), shell]
    )  # the client asks for a terminal here only if it has one itself
    argv = [
        "sh",
        "-c",
        _SESSION,
        "session",
        home,
        "script",
        "--quiet",
        "--return",
        "--command",
        login,
        "/dev/null",
    ]
    with via.spawn(argv) as process:
        yield Terminal(via, home, process)
