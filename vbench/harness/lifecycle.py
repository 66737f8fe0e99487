"""The life cycle of an environment: how long it takes to start, stop and restart, and what it uses when idle.

The environment is opened for this purpose, on the same parent as the one that runs the other workloads and beside
it. On the bare machine, which has no layer, it is an idle process: the least that can be started and stopped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from vbench.errors import HostError, VbenchError
from vbench.hosts import accounting
from vbench.hosts.base import Host, Process


@dataclass(frozen=True)
class Opener:
    """How another environment of a stack is opened, and on which parent.

    ``counted``: the parent's clock is not the harness's own, so it has to be read on the parent.
    """

    parent: Host
    open: Callable[[], AbstractContextManager[Host]]
    counted: bool

    @classmethod
    def bare(cls, host: Host, counted: bool) -> Opener:
        """The opener for a bare machine, whose environment is an idle process."""

        @contextmanager
        def start() -> Iterator[Host]:
            with host.spawn([*host.program("busybox"), "sleep", "86400"]) as process:
                yield host.but(process=process)

        return cls(host, start, counted)

    def now(self) -> float:
        """Seconds by the clock of the environment's parent."""
        if not self.counted:
            return time.monotonic()
        return float(self.parent.run(["date", "+%s.%N"]).text)


def start(opener: Opener, command: Sequence[str]) -> dict[str, float]:
    """``start``: seconds from opening an environment to the end of its first command; ``stop``: seconds to close it."""
    begin = opener.now()
    with opener.open() as host:
        host.run(command)
        up = opener.now()
    return {"start": up - begin, "stop": opener.now() - up}


def restart(opener: Opener, command: Sequence[str]) -> dict[str, float]:
    """``restart``: seconds from killing an environment to the end of the first command in its replacement."""
    killed = ExitStack()
    host = killed.enter_context(opener.open())
    try:
        host.run(command)
        process = _process(host)
        begin = opener.now()
        process.kill()
        process.wait(60)
    finally:
        with contextlib.suppress(VbenchError):  # its process is gone: that is the point
            killed.close()
    with opener.open() as host:
        host.run(command)
        return {"restart": opener.now() - begin}


def idle(opener: Opener, command: Sequence[str], seconds: float) -> dict[str, float]:
    """What an idle environment uses on its parent.

    ``pss``: memory in MiB, each shared page divided among its users; ``disk``: MiB taken by its own files; ``cpu``:
    CPU milliseconds per second, over ``seconds``. Figures that the parent does not report are left out.
    """
    before = _folders(opener.parent)
    with opener.open() as host:
        host.run(command)
        process = _process(host)
        opener.parent.pause(1.0)  # let the work that follows a start finish
        begin, first = opener.now(), _tree(opener.parent, process)
        opener.parent.pause(seconds)
        end, last = opener.now(), _tree(opener.parent, process)
        found = {}
        if "pss" in last:
            found["pss"] = last["pss"] / 1024
        if "ran" in first and "ran" in last:
            found["cpu"] = (last["ran"] - first["ran"]) / 1e6 / (end - begin)
        if made := sorted(_folders(opener.parent) - before):
            paths = [f"{opener.parent.scratch}/{name}" for name in made]
            lines = opener.parent.run(["du", "-skx", *paths], check=False).text.splitlines()
            found["disk"] = sum(int(line.split()[0]) for line in lines) / 1024
    return found


def _process(host: Host) -> Process:
    if host.process is None:
        raise HostError(f"{host.name} is not carried by a process of its parent")
    return host.process


def _tree(parent: Host, process: Process) -> dict[str, int]:
    if (held := process.holds()) is not None:
        return held
    return accounting.totals(parent.run(accounting.argv(process.pid, pss=True)).text)


def _folders(parent: Host) -> set[str]:
    return set(parent.run(["ls", parent.scratch]).text.splitlines())
