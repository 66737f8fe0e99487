"""One invocation of one workload in one environment, and what it cost on both sides."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from vbench.errors import HostError
from vbench.host import Host, Result, Usage
from vbench.stack import Stack
from vbench.workload import Metric, Workload, calibrate


@dataclass
class Environment:
    """An open stack. ``peer`` is the host where the other end of network workloads runs.

    ``work`` and ``expected`` hold, by workload, the frozen work size and the seconds one invocation takes.
    ``dead`` says why nothing more can be measured here.
    """

    stack: Stack
    host: Host
    peer: Host
    work: dict[str, int | None] = field(default_factory=dict)
    expected: dict[str, float] = field(default_factory=dict)
    dead: str | None = None

    @property
    def slowdown(self) -> float:
        """How much longer than on hardware things may take here before they count as hung."""
        return float(self.host.traits.get("slowdown", "1"))

    def patience(self, workload: Workload) -> float:
        """Seconds after which an invocation counts as hung: far beyond what it took before."""
        limit = workload.timeout_s * self.slowdown
        known = self.expected.get(workload.name)
        return limit if known is None else min(limit, 30 + 20 * known)


@dataclass(frozen=True)
class Invocation:
    """What one invocation gave: values by metric, elapsed seconds by both clocks, cost on the parent."""

    values: list[tuple[Metric, float]]
    guest_s: float | None
    parent_s: float
    host_cpu_s: float | None
    rss_mib: float | None
    start: str
    stdout: bytes
    wall_s: float


def invoke(env: Environment, workload: Workload, work: int | None) -> Invocation:
    """Run a workload once.

    Raises ``CommandFailed``, ``CommandTimeout`` or ``ConnectionLost`` as ``Host.run`` does, and
    ``VbenchError`` when the output lacks a metric.
    """
    begin = time.monotonic()
    result, before, after, start = _run(env, workload, work)
    cpu, rss = _cost(result, before, after)
    return Invocation(
        values=workload.parse(result.stdout),
        guest_s=workload.guest_s(result.stdout),
        parent_s=result.elapsed,
        host_cpu_s=cpu,
        rss_mib=rss,
        start=start,
        stdout=result.stdout,
        wall_s=time.monotonic() - begin,
    )


def _run(
    env: Environment, workload: Workload, work: int | None
) -> tuple[Result, Usage | None, Usage | None, str]:
    host = env.host
    values: dict[str, str | int] = {"scratch": host.scratch, "peer": host.peer}
    if work is not None:
        values["work"] = work
    with _server(env, workload) as port:
        if port is not None:
            values["port"] = port
        argv = workload.render(workload.command, host.program, **values)
        start = datetime.now(UTC).isoformat(timespec="milliseconds")
        before = host.usage()
        result = host.run(argv, timeout=env.patience(workload))
        return result, before, host.usage(), start


def _cost(result: Result, before: Usage | None, after: Usage | None) -> tuple[float | None, float | None]:
    """CPU seconds and resident MiB: of the whole environment where it has a process, else of the command."""
    if before is not None and after is not None:
        return max(0.0, after.cpu_s - before.cpu_s), after.rss_bytes / 2**20
    if result.usage is not None:
        # Kernels count resident pages in batches and say 0 of a very small process: that is not a figure.
        return result.usage.cpu_s, result.usage.rss_bytes / 2**20 or None
    return None, None


@contextmanager
def _server(env: Environment, workload: Workload) -> Iterator[int | None]:
    """The workload's other end on the peer, if it has one: yields its port once it is ready."""
    server = workload.server
    if server is None:
        yield None
        return
    # A port that the harness picks is free with near certainty; a server that cannot have it says so.
    chosen = random.randrange(32000, 32768)  # noqa: S311
    argv = workload.render(server.command, env.peer.program, listen=env.host.bind, port=chosen)
    with env.peer.spawn(argv) as process:
        end = time.monotonic() + server.timeout_s * env.slowdown
        while (port := server.port(process.tail())) is None:
            if (code := process.poll()) is not None:
                last = process.tail().strip().splitlines()[-1:]
                said = last[0] if last else "no output"
                raise HostError(f"the server of {workload.name} ended with exit code {code}: {said}")
            if time.monotonic() > end:
                raise HostError(f"the server of {workload.name} was not ready in {server.timeout_s:g} s")
            time.sleep(0.005)
        yield port or chosen


def prepare(env: Environment, workload: Workload, work: int | None = None) -> Invocation:
    """Set a workload up in an environment, settle its work size, and warm it up with that size.

    ``work`` is a size settled earlier (a resumed run keeps it). Returns the warm-up's invocation.
    """
    if workload.setup is not None:
        argv = workload.render(workload.setup.command, env.host.program, scratch=env.host.scratch)
        env.host.run(argv, timeout=workload.setup.timeout_s * env.slowdown)
    if work is None and workload.work is not None:
        work = calibrate(lambda size: _measured(env, workload, size), workload.work)
    env.work[workload.name] = work
    warm = invoke(env, workload, work)
    env.expected[workload.name] = warm.wall_s
    return warm


def _measured(env: Environment, workload: Workload, size: int) -> float:
    result, *_ = _run(env, workload, size)
    inside = workload.measured_s(result.stdout)
    return result.elapsed if inside is None else inside
