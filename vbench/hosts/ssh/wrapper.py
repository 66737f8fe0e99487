"""The few lines of POSIX shell that run a command at the far end of an SSH channel.

They start the command in its own session and process group, report its PID, wait for it to end in whatever
way, kill what is left of the group, report the exit code, and wait for the client's permission to exit.
Reports go to standard error, marked with a token; :class:`Markers` strips them again. The cost is one fork,
and starting ``setsid``.
"""

from __future__ import annotations

import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

from vbench.hosts.base import Usage
from vbench.hosts.command import script

# The shell itself is not in the group, so it survives every signal sent to the group. Its own standard error
# goes to /dev/null: it would add "Killed" to the command's. Without the trap, bash would also exit when its
# child dies of SIGINT; in the child the trap is reset. Command substitution gives the shell both the child's
# PID and its exit code; the command's output bypasses it through descriptor 4. The PID is reported before a
# group of that number exists, so whoever signals it must be ready to signal the process instead.
_SCRIPT = (
    "set -- {argv}; exec 3>&2 4>&1 2>/dev/null; trap : INT QUIT; "
    'p=$(exec 2>&3 3>&-; {feed}{{ read -r p x </proc/self/stat; echo "{token} P $p" >&2; echo "$p"; '
    'exec setsid -- {lead}"$@" >&4 4>&-{stdin}; }}); '
    'c=$?; kill -KILL "-$p"; echo "{token} X $c" >&3; {wait}'
)

_SIGNAL = 'kill "-$1" "-$2" 2>/dev/null || kill "-$1" "$2"'
_END_GROUP = script(Path(__file__).parents[1] / "scripts/end-group.sh")


@dataclass(frozen=True)
class Leader:
    """The program that runs commands on a machine of the user's (``capsule/sources/lead.c``).

    It pins them to ``cpus``, or leaves them on all that are ``usable``, and marks them.
    """

    program: str
    mark: str
    usable: frozenset[int]
    cpus: frozenset[int] | None = None

    def argv(self, token: str) -> list[str]:
        """Its own argv; the command's follows."""
        cpus = "-" if self.cpus is None else ",".join(map(str, sorted(self.cpus)))
        return [self.program, token, cpus, self.mark]


def signal_group(pid: int, sig: int) -> tuple[str, ...]:
    """The command that signals the process group at the far end, or its process if there is no such group yet."""
    return "sh", "-c", _SIGNAL, "kill", f"{int(sig)}", f"{pid}"


def end_group(pid: int) -> tuple[str, ...]:
    """The command that ends the process group at the far end, with TERM and then KILL; it fails if some is left."""
    return "sh", "-c", _END_GROUP, "end", f"{pid}"


def new_token() -> str:
    """A marker that no output contains by chance."""
    return f"vbench-{secrets.token_hex(8)}"


def wrap(
    argv: tuple[str, ...], token: str, size: int, leader: Leader | None = None, *, account: bool = True
) -> str:
    """The shell command that runs ``argv`` on the next ``size`` bytes of input, and reports on it.

    With a ``leader``, that runs it, and with ``account`` reports with the same token what it used.
    """
    lead = shlex.join(leader.argv(token if account else "-")) + " " if leader else ""
    if size:
        feed, stdin, wait = f"head -c {size} | ", "", "cat >/dev/null"
    else:
        feed, stdin, wait = "", " </dev/null", "read -r x"
    return _SCRIPT.format(argv=shlex.join(argv), token=token, lead=lead, feed=feed, stdin=stdin, wait=wait)


class Markers:
    """Strips the marks from standard error as it arrives in pieces; what remains is the command's own."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._held = b""
        self.pid: int | None = None
        self.code: int | None = None
        self.usage: Usage | None = None

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; returns what is certainly the command's output."""
        buffer = self._held + data
        clear = b""
        while True:
            start = buffer.find(self._token)
            end = buffer.find(b"\n", start) if start >= 0 else -1
            if end < 0:
                break
            self._note(buffer[start + len(self._token) : end])
            clear += buffer[:start]
            buffer = buffer[end + 1 :]
        keep = len(buffer) - start if start >= 0 else self._overlap(buffer)
        self._held = buffer[len(buffer) - keep :]
        return clear + buffer[: len(buffer) - keep]

    def rest(self) -> bytes:
        """What was held back, at the end of the stream."""
        held, self._held = self._held, b""
        return held

    def _note(self, mark: bytes) -> None:
        kind, *numbers = mark.split()
        if kind == b"P":
            self.pid = int(numbers[0])
        elif kind == b"X":
            self.code = int(numbers[0])
        else:
            micro, rss, switches, read, written = map(int, numbers)
            self.usage = Usage(micro / 1e6, rss << 10, switches, read * 512, written * 512)

    def _overlap(self, buffer: bytes) -> int:
        """How many bytes at the end may be the start of a mark."""
        most = min(len(self._token) - 1, len(buffer))
        return next((n for n in range(most, 0, -1) if self._token.startswith(buffer[-n:])), 0)
