"""Machines reached over SSH from inside a deterministic machine: the client has moved in.

A connection from outside brings packets at times that are not the machine's own. So its environments are led by the
capsule's own client (dbclient), which runs on the environment's parent.
"""

from __future__ import annotations

import random
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from vbench.errors import BootError, CommandTimeout, ConnectionLost, HostError
from vbench.exact.inside import Inside
from vbench.hosts import accounting, trace
from vbench.hosts.base import Argv, Host, Process, Result, Setting, Usage
from vbench.hosts.command import checked, not_started, require_success, script, shorten
from vbench.hosts.keys import HostKey
from vbench.hosts.ssh.wrapper import Markers, end_group, signal_group, wrap

_SCRIPTS = Path(__file__).parent / "scripts"
_FAR, _NEAR, _SESSION = (script(_SCRIPTS / f"{name}.sh") for name in ("far", "near", "session"))
_SLOW = 600.0


@contextmanager
def connect(
    parent: Inside,
    address: tuple[str, int],
    setting: Setting,
    *,
    host_key: HostKey,
    client_key: HostKey | None = None,
    outermost: bool = False,
    deadline: float,
    alive: Callable[[], None],
) -> Iterator[Host]:
    """Log in to an environment on ``parent`` from there, as soon as it answers.

    ``outermost``: it is the machine itself that is logged in to, from its console, and ``client_key`` the key that all
    its environments let in. ``deadline``: seconds of the parent's own. Raises ``BootError`` if it does not answer
    until then, and what ``alive`` raises.
    """
    via = parent.stand if isinstance(parent, Hop) else parent
    key = parent.client_key if isinstance(parent, Hop) else client_key or HostKey.generate(via.chance)
    home = via.run(["mktemp", "-d", "/run/hop.XXXXXX"]).text
    via.run(["mkdir", f"{home}/.ssh"])
    via.put(f"{address[0]} {host_key.public}\n".encode(), f"{home}/.ssh/known_hosts", 0o600)
    via.put(key.dropbear, f"{home}/id", 0o600)
    client = [
        "env",
        f"HOME={home}",
        "dbclient",
        "-i",
        f"{home}/id",
        "-p",
        str(address[1]),
        f"root@{address[0]}",
    ]
    host = Hop(via, tuple(client), setting, key, via if outermost else None)
    end = via.clock() + deadline
    while True:
        try:
            host.run(["true"], timeout=deadline)
            break
        except HostError as error:
            alive()
            if via.clock() > end:
                raise BootError(f"{setting.name} does not answer: {error.message}") from error
        via.pause(0.1)
    with host.session(home):
        yield host


class Hop(Inside):
    """A machine at the other end of SSH connections that are made on ``via``.

    ``stand`` is where the clients of its own environments run, with ``client_key``: itself, by default.
    """

    patience: ClassVar[float] = _SLOW

    def __init__(
        self,
        via: Inside,
        client: tuple[str, ...],
        setting: Setting,
        client_key: HostKey,
        stand: Inside | None = None,
    ) -> None:
        super().__init__(setting)
        self.via, self._client, self.client_key = via, client, client_key
        self.stand: Inside = stand or self
        # Its own: each hop takes its own marks out of what passes, and no others.
        self._depth: int = via._depth + 1 if isinstance(via, Hop) else 0
        self._token = f"vbench-at-gate-{self._depth}"
        self._carrier: Process | None = None
        self._home = ""

    def client(self, *options: str) -> list[str]:
        """The argv prefix of the client that logs in to it; without options, with no terminal."""
        return [*self._client[:3], *(options or ("-T",)), *self._client[3:]]

    @property
    def chance(self) -> random.Random:
        """That of the machine that it is in."""
        return self.via.chance

    @contextmanager
    def session(self, home: str) -> Iterator[None]:
        """Keep one connection open for the commands of :meth:`run`; ``home`` is the client's folder."""
        line = f"exec sh -c {shlex.quote(_FAR)} far {_far(home)}"
        self.via.run(["mkfifo", f"{home}/in", f"{home}/out"])
        with self.via.spawn(["sh", "-c", _SESSION, "session", home, *self.client(), line]) as carrier:
            self._carrier, self._home = carrier, home
            try:
                yield
            finally:
                self._carrier = None

    @trace.commands
    def run(
        self, argv: Argv, *, check: bool = True, timeout: float | None = 60.0, input: bytes | None = None
    ) -> Result:
        """Run a command to its end; ``elapsed`` and ``timeout`` are seconds of the machine's own."""
        argv, data = checked(argv), input or b""
        try:
            result = (
                self._in_session(argv, data, timeout) if self._carrier else self._alone(argv, data, timeout)
            )
        except CommandTimeout:
            raise CommandTimeout(f"{self.name}: {shorten(argv)} ran longer than {timeout:g} s") from None
        return require_success(self.name, result) if check else result

    def _in_session(self, argv: tuple[str, ...], data: bytes, timeout: float | None) -> Result:
        line = f"set -- {shlex.join(argv)}".replace("\n", "'\"$n\"'").encode(errors="surrogateescape")
        order = f"{len(data)}\n".encode() + line + b"\n" + data
        try:
            said, elapsed = self.via.exchange(order, self._home, timeout)
        except CommandTimeout:
            if self._carrier is None or self._carrier.poll() is not None:
                raise self._lost(argv, self._carrier.tail() if self._carrier else "") from None
            self._give_up()
            raise
        head, _, rest = said.partition(b"\n")
        code, out, err = map(int, head.split())
        if len(rest) != out + err:
            raise self._lost(argv, "its output broke off")
        return Result(argv, code, rest[:out], not_started(code, rest[out:], "setsid"), elapsed)

    def exchange(self, order: bytes, folder: str, timeout: float | None) -> tuple[bytes, float]:
        """By a shell, over its own session."""
        done = self.run(["sh", "-c", _NEAR, "near", folder], timeout=timeout, input=order)
        return done.stdout, done.elapsed

    def _give_up(self) -> None:
        """Kill the session's command, and take what it has still to say."""
        self._alone(("sh", "-c", 'kill -KILL "-$(cat "$1/p")"', "kill", _far(self._home)), b"", _SLOW)
        self.via.exchange(b"", self._home, _SLOW)

    def _alone(self, argv: tuple[str, ...], data: bytes, timeout: float | None) -> Result:
        line = wrap(argv, self._token, len(data))
        done = self.via.run([*self.client(), line], check=False, timeout=timeout, input=data)
        marks = Markers(self._token)
        stderr = marks.feed(done.stderr) + marks.rest()
        if marks.code is None:
            raise self._lost(argv, stderr.decode(errors="replace"))
        return Result(argv, marks.code, done.stdout, not_started(marks.code, stderr, "setsid"), done.elapsed)

    def _lost(self, argv: tuple[str, ...], said: str) -> ConnectionLost:
        last = said.strip().splitlines()[-1:] or ["no answer"]
        return ConnectionLost(f"{self.name}: the connection dropped while {shorten(argv)} ran: {last[0]}")

    @contextmanager
    def spawn(self, argv: Argv) -> Iterator[Process]:
        """Start a command; leaving the block ends its process group."""
        argv = checked(argv)
        with self.via.spawn([*self.client(), wrap(argv, self._token, 0)]) as carrier:
            end = self.clock() + _SLOW
            while (pid := self.marks(carrier)[0].pid) is None:
                if carrier.poll() is not None or self.clock() > end:
                    raise HostError(f"{self.name}: {shorten(argv)} does not start: {carrier.tail().strip()}")
                self.pause(0.01)
            process = _Far(self, argv, pid, carrier)
            with trace.unseen_life(self.name, process, process.close):
                yield process

    def marks(self, carrier: Process) -> tuple[Markers, str]:
        """What the marks in a carrier's output tell, and the output without them."""
        marks = Markers(self._token)
        said = marks.feed(carrier.tail().encode()) + marks.rest()
        return marks, said.decode(errors="replace")

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        self.via.pause(seconds)

    def clock(self) -> float:
        """Seconds by the clock of the machine that all is in."""
        return self.via.clock()

    def date(self) -> datetime:
        """The time of day in the machine that all is in."""
        return self.via.date()

    def discard(self) -> None:
        """Switch off the machine that all is in."""
        self.via.discard()


class _Far(Process):
    def __init__(self, host: Hop, argv: tuple[str, ...], pid: int, carrier: Process) -> None:
        self.argv, self.pid = argv, pid
        self._host, self._carrier = host, carrier
        self._used: Usage | None = None

    def poll(self) -> int | None:
        if (ended := self._carrier.poll()) is None:
            return None
        code = self._host.marks(self._carrier)[0].code
        return ended if code is None else code

    def wait(self, timeout: float) -> int:
        self._carrier.wait(timeout)
        return self.poll() or 0

    def kill(self, sig: int = signal.SIGKILL) -> None:
        if self._carrier.poll() is None:
            self._host.run(signal_group(self.pid, sig), check=False)

    def tail(self) -> str:
        return self._host.marks(self._carrier)[1]

    def usage(self) -> Usage | None:
        said = self._host.run(accounting.argv(self.pid), check=False, timeout=_SLOW).text
        if (found := accounting.usage(said)) is not None:
            self._used = found
        return self._used

    def close(self) -> None:
        with suppress(ConnectionLost):
            self._host.run(end_group(self.pid), check=False, timeout=_SLOW)


def _far(home: str) -> str:
    """The folder at the far end of a session."""
    return f"/dev/shm/{home.rpartition('/')[2]}"  # noqa: S108 - in a machine of our own
