"""One invocation of one workload in one environment, and what it cost inside and on the parent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from vbench.errors import HostError
from vbench.harness import lifecycle
from vbench.hosts.base import Host, Result, Usage
from vbench.layers.stack import Stack
from vbench.workload.calibration import calibrate
from vbench.workload.model import Metric, Workload


@dataclass
class Environment:
    """An open stack. ``peer`` is the host where the other end of network workloads runs.

    ``work`` and ``expected`` hold, by workload, the frozen work size and the seconds that one invocation takes.
    ``opener`` opens another environment like this one; it is ``None`` for a machine of its own, whose start no
    clock that measures a stack can time. ``quiet``: the hosts, innermost first, that flush their caches to disk
    before each invocation that uses storage; where a clock counts instructions, the kernel's own write-back half a
    minute later would run alongside a measurement and double its cost. ``leave``: to be called when all has been
    measured that is wanted of an invocation; what still runs then need not be ended. ``steals``: its kernel has
    counted stolen time. ``failed``: workloads that were given up. ``dead`` says why nothing more can be measured here.
    """

    stack: Stack
    host: Host
    peer: Host
    opener: lifecycle.Opener | None = None
    quiet: tuple[Host, ...] = ()
    leave: Callable[[], None] | None = None
    work: dict[str, int | None] = field(default_factory=dict)
    expected: dict[str, float] = field(default_factory=dict)
    steals: bool = True
    failed: set[str] = field(default_factory=set)
    dead: str | None = None

    @property
    def slowdown(self) -> float:
        """How many times longer than on hardware things may take here before they count as hung."""
        return self.host.placement.slowdown

    def patience(self, workload: Workload) -> float:
        """Seconds after which an invocation counts as hung: far beyond what it took before."""
        limit = workload.timeout_s * self.slowdown
        known = self.expected.get(workload.name)
        return limit if known is None else min(limit, 30 + 20 * known)


@dataclass(frozen=True)
class Cost:
    """What an invocation cost the parent, named as in ``bundle.samples.COSTS``; ``None`` means not known."""

    host_cpu_s: float | None = None
    rss_mib: float | None = None
    host_switches: float | None = None
    host_read_mib: float | None = None
    host_written_mib: float | None = None
    steal_s: float | None = None


@dataclass(frozen=True)
class Invocation:
    """The result of one invocation: values by metric, elapsed seconds by both clocks, cost on the parent."""

    values: list[tuple[Metric, float]]
    guest_s: float | None
    parent_s: float
    cost: Cost
    start: str
    stdout: bytes
    wall_s: float


def invoke(env: Environment, workload: Workload, work: int | None) -> Invocation:
    """Run a workload once.

    Raises ``CommandFailed``, ``CommandTimeout`` or ``ConnectionLost`` as ``Host.run`` does, and
    ``VbenchError`` if a metric is missing from the output.
    """
    begin = time.monotonic()
    if workload.cycle is not None:
        return _live(env, workload)
    stolen = _steal(env)
    result, before, after, start = _run(env, workload, work)
    cost = _cost(result, before, after)
    if stolen is not None and (now := _steal(env)) is not None:
        cost = replace(cost, steal_s=now - stolen)
    return Invocation(
        values=workload.parse(result.stdout),
        guest_s=workload.guest_s(result.stdout),
        parent_s=result.elapsed,
        cost=cost,
        start=start,
        stdout=result.stdout,
        wall_s=time.monotonic() - begin,
    )


def _run(
    env: Environment, workload: Workload, work: int | None
) -> tuple[Result, Usage | None, Usage | None, str]:
    host = env.host
    for each in env.quiet if workload.stores else ():
        each.run(["sync"], timeout=120 * env.slowdown)
    with _ready(env, workload, work) as argv:
        start = host.date().isoformat(timespec="milliseconds")
        before = host.usage()
        result = host.run(argv, timeout=env.patience(workload))
        after = host.usage()
        if env.leave is not None:
            env.leave()
        return result, before, after, start


@contextmanager
def _ready(env: Environment, workload: Workload, work: int | None) -> Iterator[list[str]]:
    """A workload's command, while its server runs."""
    inside = workload.server is not None and workload.server.inside
    values: dict[str, str | int] = {**places(env.host), "peer": "127.0.0.1" if inside else env.host.peer}
    if work is not None:
        values["work"] = work
    with _server(env, workload) as port:
        if port is not None:
            values["port"] = port
        yield workload.render(workload.command, env.host.program, **values)


def rehearse(env: Environment, workload: Workload, work: int | None) -> None:
    """Run a workload's command without looking at what it costs, so that nothing of it is read for the first time."""
    with _ready(env, workload, work) as argv:
        env.host.run(argv, timeout=env.patience(workload))


def places(host: Host) -> dict[str, str | int]:
    """The places in an environment that a template may name: its scratch storage and the capsule's tree."""
    return {"scratch": host.scratch, "tree": host.payload.tree if host.payload else ""}


def _live(env: Environment, workload: Workload) -> Invocation:
    """The figures of a life-cycle workload, as if a tool had printed them."""
    cycle, opener = workload.cycle, env.opener
    assert cycle is not None  # noqa: S101 - the caller has looked
    if opener is None:
        raise HostError(f"{env.stack.path} is a machine of its own, whose start no clock in it can time")
    command = workload.render(workload.command, env.host.program, **places(env.host))
    start, begin = env.host.date().isoformat(timespec="milliseconds"), env.host.clock()
    match cycle.do:
        case "start":
            found = lifecycle.start(opener, command)
        case "restart":
            found = lifecycle.restart(opener, command)
        case "idle":
            found = lifecycle.idle(opener, command, cycle.seconds)
    seconds = env.host.clock() - begin
    stdout = json.dumps(found).encode()
    return Invocation(workload.parse(stdout), None, seconds, Cost(), start, stdout, seconds)


def _cost(result: Result, before: Usage | None, after: Usage | None) -> Cost:
    """The cost of the whole environment if it has a process, otherwise that of the command."""
    if before is not None and after is not None:
        return Cost(
            max(0.0, after.cpu_s - before.cpu_s),
            after.rss_bytes / 2**20,
            _grown(before.switches, after.switches),
            _grown(before.read_bytes, after.read_bytes, 2**20),
            _grown(before.written_bytes, after.written_bytes, 2**20),
        )
    if (used := result.usage) is not None:
        return Cost(
            used.cpu_s,
            # Kernels count resident pages in batches and report 0 for a very small process: that is not a figure.
            used.rss_bytes / 2**20 or None,
            _grown(0, used.switches),
            _grown(0, used.read_bytes, 2**20),
            _grown(0, used.written_bytes, 2**20),
        )
    return Cost()


def _grown(before: int | None, after: int | None, unit: int = 1) -> float | None:
    """The growth of a counter, or ``None`` if it shrank: a thread that ended took its share of the count with it."""
    return (after - before) / unit if before is not None and after is not None and after >= before else None


def _steal(env: Environment) -> float | None:
    """Seconds that the environment's processors spent waiting for its host's, if its kernel counts them.

    On Linux: the eighth number in the first line of /proc/stat, in hundredths of a second (proc(5)).
    """
    if not env.steals:
        return None
    first = env.host.run(["head", "-n1", "/proc/stat"], check=False).text.split()
    return int(first[8]) / 100 if len(first) > 8 else None


@contextmanager
def _server(env: Environment, workload: Workload) -> Iterator[int | None]:
    """Run the workload's server, if it has one; yields its port once it is ready."""
    server = workload.server
    if server is None:
        yield None
        return
    # The port picked here is almost certainly free; a server that cannot have it says so.
    chosen = env.host.chance.randrange(32000, 32768)
    where, listen = (env.host, "127.0.0.1") if server.inside else (env.peer, env.host.bind)
    argv = workload.render(server.command, where.program, listen=listen, port=chosen, **places(where))
    with where.spawn(argv) as process:
        end = where.clock() + server.timeout_s * env.slowdown
        while (port := server.port(process.tail())) is None:
            if (code := process.poll()) is not None:
                last = process.tail().strip().splitlines()[-1:]
                said = last[0] if last else "no output"
                raise HostError(f"the server of {workload.name} ended with exit code {code}: {said}")
            if where.clock() > end:
                raise HostError(f"the server of {workload.name} was not ready in {server.timeout_s:g} s")
            where.pause(0.005)
        yield port or chosen


def set_up(env: Environment, workload: Workload) -> None:
    """Run a workload's set-up, if it has one."""
    if workload.setup is not None:
        argv = workload.render(workload.setup.command, env.host.program, **places(env.host))
        env.host.run(argv, timeout=workload.setup.timeout_s * env.slowdown)


def prepare(env: Environment, workload: Workload, work: int | None = None) -> Invocation:
    """Set a workload up in an environment, settle its work size, and warm it up at that size.

    ``work`` is a size that was settled earlier (a resumed run keeps it). Returns the warm-up's invocation.
    """
    if env.steals:
        env.steals = bool(_steal(env))  # a guest that sees steal has waited at least once by now
    set_up(env, workload)
    if work is None and workload.work is not None:
        counted = env.stack.clock() == "instructions"
        work = calibrate(lambda size: run_command(env, workload, size), workload.work, counted=counted)
    env.work[workload.name] = work
    warm = invoke(env, workload, work)
    env.expected[workload.name] = warm.wall_s
    return warm


def run_command(env: Environment, workload: Workload, size: int | None) -> float:
    """Run a workload's command, for nothing but its time: seconds."""
    result, *_ = _run(env, workload, size)
    inside = workload.measured_s(result.stdout)
    return result.elapsed if inside is None else inside
