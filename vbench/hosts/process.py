"""Child processes of the harness: none outlives it, and none is left behind."""

from __future__ import annotations

import _thread
import contextlib
import os
import queue
import resource
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

from vbench.errors import HostError
from vbench.hosts.base import Usage
from vbench.hosts.command import shorten

# The kernel's parent-death signal refers to the thread that forked, so one thread that lives as long as the
# harness starts every child: when the harness is killed outright, its children die with it.
# The queue and the locks are the ones implemented in C: Ctrl-C inside a Condition's Python code (Future and
# Event have one each) leaves it locked forever, with threads waiting for it.
_orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
_hiring = threading.Lock()
_hired: list[int] = []

PIPE = subprocess.PIPE

MARK = "VBENCH_OWNER"
"""Environment variable of whatever vbench starts on this machine: its owner, see :func:`owner`."""

# Children not yet reaped, for a run that is aborted while its threads wait for them.
_children: set[Child] = set()


def owner() -> str:
    """A unique name for this process: its PID, start time, and PID namespace."""
    pid = os.getpid()
    return f"{pid}.{_started(pid)}.{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116


def owner_lives(name: str) -> bool:
    """Whether the process with that name, in our own PID namespace, is still alive."""
    pid, started, _ = name.split(".")
    try:
        return _started(int(pid)) == int(started)
    except OSError:
        return False


def _started(pid: int) -> int:
    """Start time of a process, in clock ticks since boot; a zombie counts as ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return int(fields[19])


@cache
def deathsig() -> tuple[str, ...]:
    """The argv prefix that gets a command killed when the harness dies, if available."""
    return ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()


class Child:
    """A child process that leads its own session and process group.

    It is reaped only in :meth:`end`, after its group has been killed: until then its zombie keeps the PID
    from being reused, so no signal can hit the wrong process.
    """

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.popen = popen
        self.pid = popen.pid
        self.pidfd = os.pidfd_open(popen.pid)
        self.usage: Usage | None = None
        _children.add(self)

    def exited(self, timeout: float | None = 0) -> bool:
        """Whether the process has exited, waiting up to ``timeout`` seconds for that."""
        if self.usage is not None:
            return True
        with selectors.DefaultSelector() as selector:
            selector.register(self.pidfd, selectors.EVENT_READ)
            return bool(selector.select(timeout))

    def code(self) -> int:
        """Exit code of the process, which must have exited."""
        if self.popen.returncode is None:
            status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            assert status is not None  # noqa: S101 - only WNOHANG gives None
            return status.si_status + (0 if status.si_code == os.CLD_EXITED else 128)
        return self.popen.returncode if self.popen.returncode >= 0 else 128 - self.popen.returncode

    def signal(self, sig: int) -> None:
        """Signal the process group."""
        if self.usage is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, sig)

    def end(self, patience: float = 5.0) -> Usage:
        """Kill whatever is left of the group and reap the process."""
        if self.usage is None:
            self.signal(signal.SIGKILL)
            if not self.exited(patience):
                raise HostError(f"process {self.pid} ({shorten(self.popen.args)}) will not die")  # type: ignore[arg-type]
            _, status, used = os.wait4(self.pid, 0)
            self.popen.returncode = os.waitstatus_to_exitcode(status)
            os.close(self.pidfd)
            # A child inherits the peak RSS of the process that forked it, so a smaller one is unknown.
            peak = (
                used.ru_maxrss if used.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss else 0
            )
            self.usage = Usage(
                used.ru_utime + used.ru_stime,
                peak * 1024,
                used.ru_nvcsw + used.ru_nivcsw,
                used.ru_inblock * 512,  # in units of 512 bytes, whatever the block size: getrusage(2)
                used.ru_oublock * 512,
            )
            _children.discard(self)
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        return self.usage


def start(
    argv: tuple[str, ...], *, cpus: frozenset[int] | None = None, stdin: int, stderr: int = subprocess.PIPE
) -> Child:
    """Start a command in its own session, with its standard output piped, on the given CPUs."""
    _hire_spawner()
    order = _Order(argv, cpus, stdin, stderr)
    try:
        _orders.put(order.carry_out)
        order.done.acquire()
    except BaseException:
        # Interrupted: do not lose what is being started. The spawner handles orders one at a time.
        given_up = _locked()
        _orders.put(lambda: order.give_up(given_up))
        given_up.acquire(timeout=10)
        raise
    if order.error is not None:
        raise order.error
    assert order.child is not None  # noqa: S101
    return order.child


class _Order:
    """A command for the spawner to start; once ``done`` is released, ``child`` or ``error`` is set."""

    def __init__(self, argv: tuple[str, ...], cpus: frozenset[int] | None, stdin: int, stderr: int) -> None:
        self.argv, self.cpus, self.stdin, self.stderr = argv, cpus, stdin, stderr
        self.done = _locked()
        self.child: Child | None = None
        self.error: Exception | None = None

    def carry_out(self) -> None:
        """Runs in the spawner thread."""
        try:
            self.child = _popen(self.argv, self.cpus, self.stdin, self.stderr)
        except Exception as error:  # raised again where the order was given
            self.error = error
        self.done.release()

    def give_up(self, given_up: threading.Lock) -> None:
        """Runs in the spawner thread, after :meth:`carry_out` if that was queued at all."""
        with contextlib.suppress(HostError):
            if self.child is not None:
                self.child.end()
        given_up.release()


def _hire_spawner() -> None:
    """Start the spawner thread if there is none yet."""
    with _hiring:
        if not _hired:
            _hired.append(_thread.start_new_thread(_take_orders, ()))


def _take_orders() -> None:
    while True:
        _orders.get()()


def _locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def _popen(argv: tuple[str, ...], cpus: frozenset[int] | None, stdin: int, stderr: int) -> Child:
    """Start a command, in the spawner thread; a child inherits the thread's CPU affinity."""
    before = os.sched_getaffinity(0)
    try:
        if cpus is not None:
            os.sched_setaffinity(0, cpus)
        popen = subprocess.Popen(
            [*deathsig(), *argv],
            bufsize=0,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            env={**os.environ, MARK: owner()},
        )
        return Child(popen)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise HostError(f"{shorten(argv)} does not start: {error.strerror}") from error
    finally:
        if cpus is not None:
            os.sched_setaffinity(0, before)


def kill_all() -> None:
    """Kill every child at once; their owners notice and clean up."""
    for child in children():
        child.signal(signal.SIGKILL)


def children() -> frozenset[Child]:
    """The children not yet reaped."""
    return frozenset(_children)


def kill_but(others: Collection[Child], patience: float = 5.0) -> None:
    """Kill every child but those, and wait until its group is gone.

    An interrupt may come after a child was started and before the block begins that ends it.
    """
    lost = [child for child in children() if child not in others]
    for child in lost:
        child.signal(signal.SIGKILL)
    end = time.monotonic() + patience
    while any(living(child.pid) for child in lost) and time.monotonic() < end:
        time.sleep(0.01)


def living(group: int) -> list[int]:
    """The members of a process group that are not zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = entry.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                found.append(int(entry.parent.name))
    return sorted(found)
