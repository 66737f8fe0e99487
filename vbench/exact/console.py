"""The console of a deterministic machine: commands go through its gate, in no time of its own."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from vbench.errors import CommandTimeout, ConnectionLost, HostError
from vbench.exact.inside import Inside
from vbench.exact.line import Request
from vbench.exact.trail import Trail
from vbench.hosts import trace
from vbench.hosts.base import Argv, Process, Result, Setting
from vbench.hosts.command import checked, require_success, shorten

_POWER_ON = datetime(2026, 1, 1, tzinfo=UTC)
"""What the machine's clock says at power-on."""


class Console(Inside):
    """Commands are children of the machine's first process. Nothing happens in it but while it answers."""

    patience: ClassVar[float] = 60.0

    def __init__(self, trail: Trail, setting: Setting) -> None:
        super().__init__(setting)
        self.trail = trail

    @property
    def chance(self) -> random.Random:
        """The machine's own: the same names and keys each time."""
        return self.trail.chance

    @trace.commands
    def run(
        self, argv: Argv, *, check: bool = True, timeout: float | None = 60.0, input: bytes | None = None
    ) -> Result:
        """Run a command to its end; ``elapsed`` and ``timeout`` are seconds of the machine's own."""
        argv = checked(argv)
        reply = self.trail.ask(Request("R", argv, input or b"", timeout or 0))
        if reply.number:
            raise HostError(f"{self.name}: {shorten(argv)} wrote more than 16 MiB")
        if reply.status == -1:
            raise CommandTimeout(f"{self.name}: {shorten(argv)} ran longer than {timeout:g} s")
        seconds = (reply.end - reply.begin) / 1e9
        result = Result(argv, _code(reply.status), reply.out, reply.err, seconds)
        return require_success(self.name, result) if check else result

    def exchange(self, order: bytes, folder: str, timeout: float | None) -> tuple[bytes, float]:
        """The machine's first process does it by itself: nothing has to be started."""
        reply = self.trail.ask(Request("X", (f"{folder}/in", f"{folder}/out"), order, timeout or 0))
        if reply.number:
            raise HostError(f"{self.name}: a command wrote more than 16 MiB")
        if reply.status:
            raise CommandTimeout(f"{self.name}: a command ran longer than {timeout:g} s")
        return reply.out, (reply.end - reply.begin) / 1e9

    @contextmanager
    def spawn(self, argv: Argv) -> Iterator[Process]:
        """Start a command; leaving the block ends its process group."""
        argv = checked(argv)
        reply = self.trail.ask(Request("S", argv))
        if reply.status < 0:
            raise HostError(f"{self.name}: {shorten(argv)} does not start: too many processes")
        process = _Child(self, argv, reply.status, reply.number)
        with trace.unseen_life(self.name, process, process.close):
            yield process

    def pause(self, seconds: float) -> None:
        """Let time pass in the machine."""
        self.trail.ask(Request("Z", seconds=seconds))

    def clock(self) -> float:
        """Seconds since power-on, by the machine's clock."""
        return self.trail.clock

    def date(self) -> datetime:
        """The time of day in the machine, whose every run begins on the same one."""
        return _POWER_ON + timedelta(seconds=self.trail.clock)

    def discard(self) -> None:
        """Switch the machine off."""
        self.trail.discard()


class _Child(Process):
    def __init__(self, host: Console, argv: tuple[str, ...], number: int, pid: int) -> None:
        self.argv, self.pid = argv, pid
        self._host, self._number = host, number

    def poll(self) -> int | None:
        return self._look()[0]

    def wait(self, timeout: float) -> int:
        if (code := self._look(timeout)[0]) is None:
            raise CommandTimeout(
                f"{self._host.name}: {shorten(self.argv)} is still running after {timeout:g} s"
            )
        return code

    def kill(self, sig: int = signal.SIGKILL) -> None:
        self._host.trail.ask(Request("K", child=self.pid, mode=int(sig)))

    def tail(self) -> str:
        with suppress(ConnectionLost):
            return self._look()[1].decode(errors="replace")
        return ""

    def close(self) -> None:
        """End the group, gently at first; a machine switched off took its processes along."""
        with suppress(ConnectionLost):
            self.kill(signal.SIGTERM)
            self._look(2.0)
            self.kill()
            self._look(5.0)
            self._host.trail.ask(Request("F", child=self._number))

    def _look(self, seconds: float = 0.0) -> tuple[int | None, bytes]:
        reply = self._host.trail.ask(Request("P", child=self._number, seconds=seconds))
        return (_code(reply.status) if reply.number else None), reply.out


def _code(status: int) -> int:
    """Exit code by the shell's convention."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
