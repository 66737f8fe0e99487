"""The few lines of POSIX shell that run a command at the far end of an SSH channel.

They make the command's shell the leader of a process group (OpenSSH does that by itself, dropbear does
not), tell its number, run the command as a child so that its end is known whatever it was, tell that too,
and kill the whole group, themselves included. All of it costs one fork and no extra round trip. What they
tell comes on standard error, marked with a token that :class:`Markers` takes out again.
"""

from __future__ import annotations

import secrets
import shlex

# The shell's own standard error goes to /dev/null while the command runs: it would add "Killed" to it.
# The traps keep a signal for the group from ending the shell before it has told the command's end; the
# subshell has them reset. `exec` makes sure that a program runs, never a builtin of the same name.
_BODY = (
    'exec 3>&2 2>/dev/null; echo "{token} P $$" >&3; trap : HUP INT QUIT PIPE ALRM TERM USR1 USR2; '
    '(exec 2>&3 3>&-; exec "$@"); echo "{token} X $?" >&3; kill -KILL 0'
)
_COMMAND = (
    "b={body}; set -- {argv}; read -r x x x x g x </proc/$$/stat; "
    '[ "$g" = $$ ] && eval "$b"; exec setsid sh -c "$b" sh "$@"'
)


def new_token() -> str:
    """A marker that no output holds by chance."""
    return f"vbench-{secrets.token_hex(8)}"


def wrap(argv: tuple[str, ...], token: str) -> str:
    """The shell command that runs ``argv`` and tells about it."""
    if argv[0].startswith("-"):  # some shells take it for an option of exec
        argv = ("env", "--", *argv)
    return _COMMAND.format(body=shlex.quote(_BODY.format(token=token)), argv=shlex.join(argv))


class Markers:
    """Takes the marks out of standard error as it comes in pieces; what is left is the command's own."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._held = b""
        self.pid: int | None = None
        self.code: int | None = None

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; returns what is certain to be the command's."""
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
        kind, number = mark.split()
        if kind == b"P":
            self.pid = int(number)
        else:
            self.code = int(number)

    def _overlap(self, buffer: bytes) -> int:
        """How many bytes at the end may be the beginning of a mark."""
        most = min(len(self._token) - 1, len(buffer))
        return next((n for n in range(most, 0, -1) if self._token.startswith(buffer[-n:])), 0)
