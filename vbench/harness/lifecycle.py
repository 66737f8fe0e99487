"""The life of an environment that is opened for the purpose: how soon it answers, ends, and comes back.

It is opened on the same parent as the one that is measured otherwise, beside it. Where there is no layer -
the bare machine - the environment is an idle process, the least that there is to start and to end.
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
    """Where and how an environment of a stack is opened once more.

    ``counted`` says that the parent's clock is not that of the harness, and is to be read.
    """

    parent: Host
    open: Callable[[], AbstractContextManager[Host]]
    counted: bool

    @classmethod
    def bare(cls, host: Host, counted: bool) -> Opener:
        """That of a machine itself, where the environment is an idle process of its own."""

        @contextmanager
        def start() -> Iterator[Host]:
            with host.spawn([*host.program("busybox"), "sleep", "86400"]) as process:
                yield host.but(process=process)

        return cls(host, start, counted)

    def now(self) -> float:
        """Seconds by the clock that the environment's parent lives by."""
        if not self.counted:
            return time.monotonic()
        return float(self.parent.run(["date", "+%s.%N"]).text)


def start(opener: Opener, command: Sequence[str]) -> dict[str, float]:
    """Seconds from asking for an environment to its first command's end, and to take it away."""
    begin = opener.now()
    with opener.open() as host:
        host.run(command)
        up = opener.now()
    return {"start": up - begin, "stop": opener.now() - up}


def restart(opener: Opener, command: Sequence[str]) -> dict[str, float]:
    """Seconds from killing an environment to the end of the first command in the one that replaces it."""
    killed = ExitStack()
    host = killed.enter_context(opener.open())
    try:
        host.run(command)
        process = _process(host)
        begin = opener.now()
        process.kill()
        process.wait(60)
    finally:
        with contextlib.suppress(VbenchError):  # what it was carried by has gone: that is the point
            killed.close()
    with opener.open() as host:
        host.run(command)
        return {"restart": opener.now() - begin}


def idle(opener: Opener, command: Sequence[str], seconds: float) -> dict[str, float]:
    """What an environment that does nothing takes of its parent.

    ``pss``: MiB of memory, shared pages in proportion; ``disk``: MiB that its own files take; ``cpu``: CPU
    milliseconds a second, over ``seconds``. What the parent does not tell is missing.
    """
    before = _folders(opener.parent)
    with opener.open() as host:
        host.run(command)
        process = _process(host)
        time.sleep(1.0)  # let what follows a start come to its end
        begin, first = opener.now(), _tree(opener.parent, process)
        time.sleep(seconds)
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
