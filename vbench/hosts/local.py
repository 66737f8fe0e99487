"""The machine that vbench itself runs on."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from vbench.errors import CommandTimeout, HostError
from vbench.hosts import trace
from vbench.hosts.base import Address, Argv, Host, Payload, Process, Result, Setting, Usage
from vbench.hosts.command import OUTPUT_LIMIT, Capped, Ring, checked, not_started, require_success, shorten
from vbench.hosts.placement import Placement
from vbench.hosts.process import Child, living, start

log = logging.getLogger(__name__)

_CHUNK = 1 << 18


class LocalHost(Host):
    """This machine. ``cpus``, if given, are the only CPUs that commands run on."""

    def __init__(
        self,
        name: str = "local",
        payload: Payload | None = None,
        scratch: str = "/var/tmp",  # noqa: S108 - on disk; /tmp is often in memory
        cpus: frozenset[int] | None = None,
        placement: Placement | None = None,
        seed: int = 1,
    ) -> None:
        super().__init__(Setting(name, payload, scratch, placement=placement or Placement(), seed=seed))
        self.cpus = cpus

    @trace.commands
    def run(
        self, argv: Argv, *, check: bool = True, timeout: float | None = 60.0, input: bytes | None = None
    ) -> Result:
        """Run a command to completion."""
        argv = checked(argv)
        begin = time.monotonic()
        streams = (Capped(), Capped())
        usage = None
        try:
            child = start(argv, cpus=self.cpus, stdin=subprocess.PIPE if input else subprocess.DEVNULL)
        except FileNotFoundError as error:  # only without setpriv, which reports this by its exit code
            code, end = 127, time.monotonic()
            streams[1].feed(f"{argv[0]}: {error.strerror}\n".encode())
        except PermissionError as error:
            code, end = 126, time.monotonic()
            streams[1].feed(f"{argv[0]}: {error.strerror}\n".encode())
        else:
            try:
                done = _converse(child, input or b"", streams, None if timeout is None else begin + timeout)
                end = time.monotonic()
                child.signal(signal.SIGKILL)
                if done:
                    _drain(child, streams)
            finally:
                usage = child.end()
            if any(stream.full for stream in streams):
                raise HostError(f"{self.name}: {shorten(argv)} wrote more than {OUTPUT_LIMIT >> 20} MiB")
            if not done:
                raise CommandTimeout(f"{self.name}: {shorten(argv)} ran longer than {timeout:g} s")
            code = child.code()
        stderr = not_started(code, streams[1].value(), "setpriv")
        result = Result(argv, code, streams[0].value(), stderr, end - begin, usage)
        return require_success(self.name, result) if check else result

    @contextmanager
    def spawn(self, argv: Argv) -> Iterator[Process]:
        """Start a command; leaving the block ends its process group."""
        argv = checked(argv)
        try:
            child = start(argv, cpus=self.cpus, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        except OSError as error:
            raise HostError(f"{self.name}: {shorten(argv)} does not start: {error.strerror}") from error
        process = _LocalProcess(self.name, argv, child)
        with trace.life(self.name, process, process.close):
            yield process

    def put(self, data: bytes, path: str, mode: int = 0o644) -> None:
        """Write a file atomically."""
        draft = f"{path}.tmp-{secrets.token_hex(4)}"
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(draft, path)  # noqa: PTH104 - a Path would normalize the name
            log.debug("%s: put %d bytes into %s, mode %o", self.name, len(data), path, mode)
        except OSError as error:
            raise HostError(f"{self.name}: cannot write {path}: {error.strerror}") from error
        finally:
            Path(draft).unlink(missing_ok=True)

    def get(self, path: str) -> bytes:
        """Read a file."""
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise HostError(f"{self.name}: cannot read {path}: {error.strerror}") from error

    def dial(self, address: Address, timeout: float = 10.0) -> socket.socket:
        """Connect to an address as seen from this machine."""
        try:
            if not isinstance(address, str):
                return socket.create_connection(address, timeout)
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(timeout)
                connection.connect(address)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            raise HostError(f"{self.name}: nothing answers at {address}: {error}") from error
        return connection


def _converse(child: Child, data: bytes, streams: tuple[Capped, Capped], deadline: float | None) -> bool:
    """Feed and drain a child until it exits or exceeds the limit; ``False`` if the deadline came first."""
    rest = memoryview(data)
    pipes = dict(zip((child.popen.stdout, child.popen.stderr), streams, strict=True))
    with selectors.DefaultSelector() as selector:
        selector.register(child.pidfd, selectors.EVENT_READ)
        for pipe, stream in pipes.items():
            assert pipe is not None  # noqa: S101
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, stream)
        if (stdin := child.popen.stdin) is not None:
            os.set_blocking(stdin.fileno(), False)
            selector.register(stdin, selectors.EVENT_WRITE)
        while not any(stream.full for stream in streams):
            left = None if deadline is None else deadline - time.monotonic()
            ready = selector.select(None if left is None else max(left, 0))
            for key, _ in ready:
                if key.fileobj is stdin:
                    assert stdin is not None  # noqa: S101
                    try:
                        rest = rest[os.write(key.fd, rest[:_CHUNK]) :]
                    except BrokenPipeError:
                        rest = rest[:0]
                    if not rest:
                        selector.unregister(stdin)
                        stdin.close()
                elif key.data is not None:
                    if piece := os.read(key.fd, _CHUNK):
                        key.data.feed(piece)
                    else:
                        selector.unregister(key.fileobj)
            if any(key.fd == child.pidfd for key, _ in ready):
                return True
            if left is not None and left <= 0:
                return False
    return True


def _drain(child: Child, streams: tuple[Capped, Capped]) -> None:
    """Read what is in the pipes, without waiting for processes that may still hold the other ends open."""
    for pipe, stream in zip((child.popen.stdout, child.popen.stderr), streams, strict=True):
        assert pipe is not None  # noqa: S101
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(pipe.fileno(), _CHUNK):
                stream.feed(piece)


def _activity(pids: list[int]) -> tuple[int | None, int | None, int | None]:
    """Context switches of all threads of the processes, and bytes read from and written to storage."""
    totals: dict[str, int] = {}
    for pid in pids:
        for path in (*Path(f"/proc/{pid}/task").glob("*/status"), Path(f"/proc/{pid}/io")):
            with contextlib.suppress(OSError):  # it has ended meanwhile, or belongs to another user
                for line in path.read_text().splitlines():
                    name, _, value = line.partition(":")
                    if name in _COUNTED:
                        totals[_COUNTED[name]] = totals.get(_COUNTED[name], 0) + int(value)
    return totals.get("switches"), totals.get("read"), totals.get("written")


_COUNTED = {
    "voluntary_ctxt_switches": "switches",
    "nonvoluntary_ctxt_switches": "switches",
    "read_bytes": "read",
    "write_bytes": "written",
}


class _LocalProcess(Process):
    def __init__(self, host: str, argv: tuple[str, ...], child: Child) -> None:
        self.argv = argv
        self.pid = child.pid
        self._host = host
        self._child = child
        self._ring = Ring()
        self._lock = threading.Lock()
        self._used = Usage(0.0, 0)
        self._tree = psutil.Process(child.pid)
        assert child.popen.stdout is not None  # noqa: S101
        self._output = child.popen.stdout.fileno()
        os.set_blocking(self._output, False)
        self._stop = os.eventfd(0)
        self._drainer = threading.Thread(target=self._keep_draining, name=f"drain-{self.pid}", daemon=True)
        self._drainer.start()

    def poll(self) -> int | None:
        return self._child.code() if self._child.exited() else None

    def wait(self, timeout: float) -> int:
        if not self._child.exited(timeout):
            raise CommandTimeout(f"{self._host}: {shorten(self.argv)} is still running after {timeout:g} s")
        return self._child.code()

    def kill(self, sig: int = signal.SIGKILL) -> None:
        self._child.signal(sig)

    def tail(self) -> str:
        self._drain()
        return self._ring.text()

    def usage(self) -> Usage:
        cpu, rss = 0.0, 0
        gone = (psutil.NoSuchProcess, psutil.AccessDenied)
        family = [self._tree]
        with contextlib.suppress(*gone):
            family += self._tree.children(recursive=True)
        for process in family:
            with contextlib.suppress(*gone):
                cpu += sum(process.cpu_times()[:4])  # user, system, and the same of reaped children
                rss += process.memory_info().rss
        if self._child.usage is not None:
            cpu = max(cpu, self._child.usage.cpu_s)
        # A child that ends meanwhile is missed once; the CPU time that it used still counts.
        self._used = Usage(max(cpu, self._used.cpu_s), rss, *_activity([each.pid for each in family]))
        return self._used

    def close(self) -> None:
        """End the group, with TERM and then KILL, and make sure that it is gone."""
        try:
            self.kill(signal.SIGTERM)
            self._gone(2.0)
        finally:
            self.kill()
            left = self._gone(5.0)
            os.eventfd_write(self._stop, 1)
            self._drainer.join()
            self._drain()
            os.close(self._stop)
            self._output = -1
            self._child.end()
        if left:
            raise HostError(f"{self._host}: {shorten(self.argv)} left processes that will not die: {left}")

    def _gone(self, patience: float) -> list[int]:
        """Wait for the group to end; returns the members that are still alive."""
        end = time.monotonic() + patience
        self._child.exited(patience)
        while (left := living(self.pid)) and time.monotonic() < end:
            time.sleep(0.01)
        return left

    def _keep_draining(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            selector.register(self._stop, selectors.EVENT_READ)
            while all(key.fd != self._stop for key, _ in selector.select()) and self._drain():
                pass

    def _drain(self) -> bool:
        """Read what has been written so far; ``False`` when no more can come."""
        with self._lock, contextlib.suppress(BlockingIOError):
            while self._output >= 0 and (piece := os.read(self._output, _CHUNK)):
                self._ring.feed(piece)
            return False
        return True
