"""A Dask cluster as the place for units whose clock counts instructions: it does not matter where these run.

Each unit is one task. The process that takes it up says who it is, and is told what is left to do; so when Dask gives
the unit of a worker that died to another, that one does the rest. Both directions are queues at the scheduler, and an
event is acknowledged there before the next one.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import re
import secrets
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Any, Self

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, Queue, Security

import vbench
from vbench.capsule import transfer
from vbench.capsule.capsule import Capsule
from vbench.errors import UsageError, VbenchError
from vbench.harness.events import Event, Failed, Measured, Settled, read_event
from vbench.harness.places import here
from vbench.harness.plan import Step
from vbench.harness.task import carry_out, source
from vbench.harness.units import Size, WorkUnit
from vbench.hosts.workspace import session

log = logging.getLogger(__name__)

HERE = "local"
"""In place of a scheduler's address: a cluster on this machine, for this run."""
RESOURCE = "testbed"
"""What a worker has as many of as it may carry out units at a time."""
PIECE = 8 << 20
"""Bytes of the capsule that are sent at once."""
_ADDRESS = re.compile(r"(?:(tcp|tls)://)?(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):\d{1,5}")
_LOOK_S, _CHECK_S, _START_S = 0.2, 30.0, 180
_DOCS = "docs/machines.md says how to start scheduler and workers"


class Cluster:
    """A place for units over the cluster of the scheduler at ``address``; those by the wall clock are carried out here.

    To be entered as a context; leaving it ends whatever still runs. A cluster on this machine is started when the first
    unit is handed out, so that it disturbs no wall clock before. ``say`` is told the dashboard's link and what takes
    long.

    Raises ``UsageError`` if that is no address, or one on which what is sent could be changed on the way, and
    ``VbenchError`` if no scheduler with workers answers there.
    """

    def __init__(self, address: str, built: Capsule, say: Callable[[str], None]) -> None:
        check(address)
        self._address, self._capsule, self._say = address, built, say
        self._here = here(built)
        self._opened, self._lock, self._ended = ExitStack(), threading.RLock(), threading.Event()
        self._client: Client | None = None
        self._packed: IO[bytes] | None = None
        self._told: set[str] = set()
        self.lanes = len(os.sched_getaffinity(0))

    def __enter__(self) -> Self:
        if self._address != HERE:
            self._connect(self._address, Security())
            self.lanes = self._room()
            if not self.lanes:
                self._opened.close()
                raise VbenchError(
                    f"{self._address}: no worker has the resource {RESOURCE!r}",
                    f'dask worker {self._address} --nthreads N --resources "{RESOURCE}=N"; {_DOCS}',
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._opened.close()

    def end(self) -> None:
        """End at once all that is being carried out there."""
        self._ended.set()

    def __call__(self, unit: WorkUnit) -> Iterator[Event]:
        """Carry a unit out, on whichever worker has room; leaving the iterator ends it there."""
        return self._here(unit) if unit.clock == "wall" else self._there(unit)

    def _there(self, unit: WorkUnit) -> Iterator[Event]:
        client, name = self._connected(), f"vbench-{secrets.token_hex(8)}"
        messages, where, current = Queue(name, client=client), "the cluster", ""
        task = client.submit(
            carry_out,
            name,
            unit.capsule,
            self._address != HERE,
            key=f"{unit.name} {name}",
            pure=False,
            resources={RESOURCE: 1},
        )
        try:
            over, checked = False, time.monotonic()
            while not over and not self._ended.wait(_LOOK_S):
                over = task.done()  # asked first: what was told before the end is there then
                if time.monotonic() > checked + _CHECK_S:
                    checked = time.monotonic()
                    if not self._room():
                        self._once("no worker is left in the cluster; what is left of the run waits for one")
                for sender, kind, what in messages.get(batch=True):
                    if kind == "hello":
                        where, current = what["at"], sender
                        _same_version(what)
                        log.info("%s takes up %s, %d steps", where, unit.name, len(unit.steps))
                        self._answer(name, sender, unit.model_dump_json(by_alias=True).encode())
                    elif sender != current:  # one that was taken for dead
                        continue
                    elif kind == "piece":
                        self._answer(name, sender, self._piece(what, where))
                    elif kind == "waits":
                        self._once(f"{unit.name} waits: {where}: {what}")
                    else:
                        event = read_event(what)
                        unit = rest(unit, event)
                        yield event
            if over:
                _raise_failure(task, unit, where)
        except OSError as error:
            raise VbenchError(f"{self._address}: the scheduler does not answer: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                task.cancel()
                messages.close()

    def _room(self) -> int:
        """How many units the cluster's workers can carry out at a time."""
        workers = self._connected().scheduler_info()["workers"].values()
        return sum(int(each["resources"].get(RESOURCE, 0)) for each in workers)

    def _answer(self, name: str, sender: str, data: bytes) -> None:
        answers = Queue(f"{name}-{sender}", client=self._connected())
        answers.put(data)
        answers.close()

    def _piece(self, at: int, where: str) -> bytes:
        """The exported capsule from there on, compressed; nothing at its end."""
        with self._lock:
            if self._packed is None:
                packed = tempfile.TemporaryFile(dir=self._capsule.directory.parent)  # noqa: SIM115
                self._packed = self._opened.enter_context(packed)
                transfer.write(self._capsule, self._packed)
                self._packed.flush()
            data = os.pread(self._packed.fileno(), PIECE, at)
        if not at:
            self._say(f"sending the capsule to {where}")
        return zlib.compress(data, 1) if data else b""

    def _once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._say(text)

    def _connected(self) -> Client:
        with self._lock:
            if self._client is None:
                # One process each, as many as processors: a unit runs in a process of its own anyhow, and a worker
                # that is killed takes only one with it.
                # Its processes start beside emulators that take all processors, and so take long; so do those that
                # take the place of some that died.
                settings = {
                    "distributed.comm.timeouts.connect": f"{_START_S}s",
                    # It looks at all threads a hundred times a second, on processors that emulators need.
                    "distributed.worker.profile.enabled": False,
                    "temporary-directory": str(self._opened.enter_context(session())),
                }
                self._opened.enter_context(dask.config.set(settings))
                cluster = LocalCluster(
                    n_workers=self.lanes,
                    threads_per_worker=1,
                    resources={RESOURCE: 1},
                    security=Security.temporary(),
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    memory_limit=0,
                    silence_logs=logging.CRITICAL,
                )
                self._opened.callback(cluster.close)
                self._connect(cluster.scheduler_address, cluster.security)
            assert self._client is not None  # noqa: S101
            return self._client

    def _connect(self, address: str, security: Security) -> None:
        why = f"{address}: no Dask scheduler answers"
        certificate = security.get_connection_args("client").get("ssl_context")
        if address.startswith("tls:") and certificate is None:  # a client's own end would print a traceback
            raise VbenchError(f"{why}: Dask's configuration names no certificate for TLS", _DOCS)
        try:
            client = Client(address, security=security, set_as_default=False, name="vbench")
        except (
            OSError,
            TypeError,
            ValueError,
            RuntimeError,
        ) as error:  # Dask tells the wrong keys in all of these
            raise VbenchError(f"{why}: {error}", _DOCS) from error
        self._client = client
        self._opened.callback(client.close)
        self._say(f"dashboard: {client.dashboard_link}")


def check(address: str) -> None:
    """Raises ``UsageError`` unless that is ``local``, or an address to which units, which carry programs, may be sent:
    by TLS, on loopback, or anywhere if Dask's configuration says that it need not be encrypted.
    """
    if address == HERE:
        return
    if (match := _ADDRESS.fullmatch(address)) is None:
        raise UsageError(f"--scheduler {address!r:.80} is no address", "tls://host:8786, or local")
    host = match[2].strip("[]")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    plain = (match[1] or dask.config.get("distributed.comm.default-scheme", "tcp")) != "tls"
    if plain and not loopback and dask.config.get("distributed.comm.require-encryption", None) is not False:
        raise UsageError(
            f"--scheduler {address}: not encrypted, and units carry programs to run",
            "use tls://; or set distributed.comm.require-encryption to false in Dask's configuration",
        )


def rest(unit: WorkUnit, event: Event) -> WorkUnit:
    """What is left of a unit after an event: without the steps that it settles, with the size that it tells."""

    def left(step: Step) -> bool:
        match event:
            case Measured(warmup=False):
                told = (event.stack, event.workload, event.block, event.arm)
                return (step.stack, step.workload, step.block, step.arm) != told
            case Failed():
                return step.stack != event.stack or event.workload not in (None, step.workload)
        return True

    changed: dict[str, Any] = {"steps": tuple(step for step in unit.steps if left(step))}
    if isinstance(event, Settled) and event.work is not None:
        others = [size for size in unit.sizes if (size.stack, size.workload) != (event.stack, event.workload)]
        changed["sizes"] = (*others, Size(stack=event.stack, workload=event.workload, work=event.work))
    return unit.model_copy(update=changed)


def _same_version(hello: dict[str, str]) -> None:
    if hello["source"] != source():
        ours, theirs = (
            f"{version} ({digest[:12]})"
            for version, digest in ((vbench.__version__, source()), (hello["version"], hello["source"]))
        )
        raise VbenchError(
            f"{hello['at']} has another vbench: {theirs}, here is {ours}", "install the same on both"
        )


def _raise_failure(task: Future[None], unit: WorkUnit, where: str) -> None:
    """Raise what has become of a task, unless it was carried out."""
    if task.status == "finished":
        return
    error = task.exception(timeout=10) if task.status == "error" else None
    if isinstance(error, VbenchError):
        raise VbenchError(f"{where}: {error.message}", error.hint) from error
    if isinstance(error, KilledWorker):
        text = f"{unit.name} is given up: every worker that took it up died, the last was {where}"
        raise VbenchError(text, "look there for why; vbench resume goes on")
    if isinstance(error, ImportError):
        raise VbenchError(
            f"a worker has no vbench of this version: {error}", "install the same on both"
        ) from error
    reason = f"{type(error).__name__}: {error}" if error else "the connection to the scheduler was lost"
    raise VbenchError(f"{unit.name} was not carried out: {reason}", "vbench resume goes on") from error
