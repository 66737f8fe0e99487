"""A machine at the far end of an SSH connection; ``vbench.hosts.ssh.connect`` makes the connections."""

from __future__ import annotations

import contextlib
import logging
import secrets
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vbench.errors import CommandTimeout, ConnectionLost, HostError
from vbench.hosts import accounting, trace
from vbench.hosts.base import Address, Argv, Connection, Host, Process, Result, Setting, Usage
from vbench.hosts.command import (
    OUTPUT_LIMIT,
    Capped,
    Ring,
    checked,
    not_started,
    require_success,
    script,
    shorten,
)
from vbench.hosts.ssh.channel import RemoteCommand, Transport
from vbench.hosts.ssh.wrapper import Leader, end_group, signal_group

log = logging.getLogger(__name__)

_SLOW = 600.0  # seconds that an emulated guest may take for one step of the protocol

_PUT = script(Path(__file__).parents[1] / "scripts/put.sh")


class SshHost(Host):
    """A machine at the far end of one SSH connection, which stays open.

    ``posix`` says that the user's login shell there is a POSIX shell, which saves starting one. ``leader`` is the
    program that runs commands there, see :func:`vbench.hosts.ssh.wrapper.wrap`; without one, nothing is known of what
    a command used.
    """

    def __init__(self, transport: Transport, setting: Setting, *, posix: bool = True) -> None:
        super().__init__(setting)
        self._transport = transport
        self._posix = posix
        self._gate = threading.Lock()
        self.leader: Leader | None = None

    @trace.commands
    def run(
        self, argv: Argv, *, check: bool = True, timeout: float | None = 60.0, input: bytes | None = None
    ) -> Result:
        """Run a command to completion."""
        end = None if timeout is None else time.monotonic() + timeout
        out, err = Capped(), Capped()
        command = self._start(checked(argv), out.feed, err.feed, input or b"")
        try:
            in_time = self._await(command, command.done, end, lambda: out.full or err.full)
        finally:
            self._kill(command)
            command.close()
        if out.full or err.full:
            raise HostError(f"{self.name}: {shorten(argv)} wrote more than {OUTPUT_LIMIT >> 20} MiB")
        if not in_time:
            raise CommandTimeout(f"{self.name}: {shorten(argv)} ran longer than {timeout:g} s")
        code = self._code(command, err.value)
        stderr = not_started(code, err.value(), "setsid")
        result = Result(command.argv, code, out.value(), stderr, command.elapsed, command.usage)
        return require_success(self.name, result) if check else result

    @contextmanager
    def spawn(self, argv: Argv) -> Iterator[Process]:
        """Start a command; leaving the block ends its process group."""
        ring = Ring()
        command = self._start(checked(argv), ring.feed, ring.feed, account=False)
        try:
            self._await(command, command.started, time.monotonic() + _SLOW, command.done.is_set)
            if command.pid is None:
                self._code(command, lambda: ring.text().encode())
                raise HostError(f"{self.name}: {shorten(argv)} does not start")
            process = _SshProcess(self, command, command.pid, ring)
            with trace.life(self.name, process, lambda: self._end(command, process.pid)):
                yield process
        finally:
            command.close()

    def put(self, data: bytes, path: str, mode: int = 0o644) -> None:
        """Write a file atomically."""
        path = _plain(path)
        draft = f"{path}.tmp-{secrets.token_hex(4)}"
        argv = ["sh", "-c", _PUT, "put", draft, path, str(len(data)), f"{mode:o}"]
        result = self.run(argv, check=False, timeout=_SLOW, input=data)
        if result.code:
            reason = result.stderr.decode(errors="replace").strip() or "it did not arrive complete"
            raise HostError(f"{self.name}: cannot write {path}: {reason}")
        log.debug("%s: put %d bytes into %s, mode %o", self.name, len(data), path, mode)

    def get(self, path: str) -> bytes:
        """Read a file."""
        result = self.run(["cat", _plain(path)], check=False, timeout=_SLOW)
        if result.code:
            reason = result.stderr.decode(errors="replace").strip()
            raise HostError(f"{self.name}: cannot read {path}: {reason}")
        return result.stdout

    def dial(self, address: Address, timeout: float = 10.0) -> Connection:
        """Connect to a TCP address as seen from this host."""
        if isinstance(address, str):
            raise HostError(f"{self.name}: cannot dial {address}: Unix sockets are not supported over SSH")
        try:
            return self._transport.open_channel("direct-tcpip", address, ("127.0.0.1", 0), timeout=timeout)
        except Exception as error:
            raise self._trouble(f"nothing answers at {address}", error) from error

    def session(self) -> Any:
        """A channel on which nothing has been asked for yet."""
        return self._transport.open_session(timeout=_SLOW)

    def terminal(self, kind: str, columns: int, lines: int) -> Any:
        """A channel with a login shell on its own terminal at the far end."""
        channel = self.session()
        channel.get_pty(kind, columns, lines)
        channel.invoke_shell()
        return channel

    def _start(
        self,
        argv: tuple[str, ...],
        out: Callable[[bytes], None],
        err: Callable[[bytes], None],
        data: bytes = b"",
        *,
        account: bool = True,
    ) -> RemoteCommand:
        return RemoteCommand(
            lambda: self._transport.open_session(timeout=_SLOW),
            argv,
            out,
            err,
            data=data,
            quote=str if self._posix else lambda line: f"exec sh -c {shlex.quote(line)}",
            gate=self._gate,
            ask=lambda pid: self._signal(pid, 0),
            leader=self.leader,
            account=account,
        )

    def _await(
        self,
        command: RemoteCommand,
        event: threading.Event,
        end: float | None,
        enough: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait for an event of a command, or until ``enough()`` is true; ``False`` if ``end`` comes first."""
        while not event.wait(0.5 if end is None else min(0.5, max(end - time.monotonic(), 0))):
            if enough():
                break
            if not self._transport.is_active() and not command.done.wait(2.0):
                raise ConnectionLost(f"{self.name}: the connection dropped while {shorten(command.argv)} ran")
            if end is not None and time.monotonic() >= end:
                return False
        return True

    def _code(self, command: RemoteCommand, stderr: Callable[[], bytes]) -> int:
        """Exit code of a command that is done; ``ConnectionLost`` if the connection ended first."""
        if command.code is not None:
            return command.code
        if not command.finished:
            self._transport.join(1.0)  # channels end a moment before the transport reports its own end
            if not self._transport.is_active():
                raise ConnectionLost(f"{self.name}: the connection dropped while {shorten(command.argv)} ran")
        if command.pid is None:
            said = stderr().decode(errors="replace").strip() or command.failure or "no shell answers"
            raise HostError(f"{self.name}: {shorten(command.argv)} does not start: {said}")
        return 128 + signal.SIGKILL  # the shell around it, which would have reported the code, was killed

    def _kill(self, command: RemoteCommand) -> None:
        """Kill what an abandoned command has started."""
        with contextlib.suppress(HostError):
            if self._transport.is_active() and not command.done.is_set() and command.started.wait(10.0):
                assert command.pid is not None  # noqa: S101
                self._signal(command.pid, signal.SIGKILL)
                command.done.wait(10.0)

    def _end(self, command: RemoteCommand, pid: int) -> None:
        """End a process group, with TERM and then KILL; if the environment is gone, so are its processes."""
        try:
            result = self.run(end_group(pid), check=False, timeout=_SLOW)
        except ConnectionLost:
            return
        if result.code:
            raise HostError(
                f"{self.name}: {shorten(command.argv)} left processes that will not die: group {pid}"
            )
        command.done.wait(5.0)

    def _signal(self, pid: int, sig: int) -> None:
        """Signal a process group, which may be gone; does not wait forever."""
        command = self._start(signal_group(pid, sig), _ignore, _ignore)
        try:
            if self._await(command, command.done, time.monotonic() + 60.0):
                self._code(command, bytes)
        finally:
            command.close()

    def _trouble(self, what: str, error: Exception) -> HostError:
        if not self._transport.is_active():
            return ConnectionLost(f"{self.name}: {what}: the connection dropped")
        return HostError(f"{self.name}: {what}: {error}")


class _SshProcess(Process):
    def __init__(self, host: SshHost, command: RemoteCommand, pid: int, ring: Ring) -> None:
        self.argv = command.argv
        self.pid = pid
        self._host = host
        self._command = command
        self._ring = ring
        self._used: Usage | None = None

    def poll(self) -> int | None:
        return self._host._code(self._command, bytes) if self._command.done.is_set() else None

    def wait(self, timeout: float) -> int:
        if not self._host._await(self._command, self._command.done, time.monotonic() + timeout):
            raise CommandTimeout(
                f"{self._host.name}: {shorten(self.argv)} is still running after {timeout:g} s"
            )
        return self._host._code(self._command, bytes)

    def kill(self, sig: int = signal.SIGKILL) -> None:
        if not self._command.done.is_set():
            self._host._signal(self.pid, sig)

    def tail(self) -> str:
        return self._ring.text()

    def usage(self) -> Usage | None:
        said = self._host.run(accounting.argv(self.pid), check=False, timeout=_SLOW).text
        if (found := accounting.usage(said, self._host.payload)) is not None:
            self._used = found
        return self._used  # for a process that has ended, the last value seen


def _ignore(_: bytes) -> None: ...


def _plain(path: str) -> str:
    """A path that no tool can mistake for an option."""
    return path if path.startswith("/") else f"./{path}"
