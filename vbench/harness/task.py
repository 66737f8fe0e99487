"""What a worker of a Dask cluster does with a unit: it asks for what is left of it, and tells each event."""

from __future__ import annotations

import hashlib
import secrets
import socket
import time
import zlib
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from distributed import Queue, Reschedule, get_worker

import vbench
from vbench.capsule import capsule, transfer
from vbench.errors import UsageError, VbenchError
from vbench.harness.places import in_a_process
from vbench.harness.units import WorkUnit
from vbench.hosts.workspace import measuring

_TURN_S = 10.0


@cache
def source() -> str:
    """SHA-256 over vbench's programs, wherever it is installed."""
    root, digest = Path(vbench.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.*")):
        inside = path.relative_to(root)
        # What is in these folders lies elsewhere in a checkout, and a unit or the capsule brings what matters of it.
        if path.suffix in {".py", ".sh", ".c"} and inside.parts[0] not in {
            "workloads",
            "notebooks",
            "reference",
        }:
            digest.update(f"{inside} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def carry_out(name: str, digest: str, turn: bool) -> None:
    """The task, on a worker: carry out what the client, who listens to the queue ``name``, says is left of a unit.

    ``digest`` is that of the capsule, which is asked for if it is not here; ``turn``: wait for a wall-clock run here to
    end, because the client has not claimed this machine.
    """
    client = _Listener(name)
    hello = {"at": f"{socket.gethostname()} ({client.worker.address})", "source": source()}
    unit = WorkUnit.model_validate_json(client.ask("hello", {**hello, "version": vbench.__version__}))
    if capsule.find(digest) is None:
        transfer.receive(
            digest, lambda at: zlib.decompress(data) if (data := client.ask("piece", at)) else b""
        )
    with ExitStack() as claimed:
        if turn:
            try:
                claimed.enter_context(measuring(alone=False))
            except UsageError as error:
                client.tell("waits", error.message)
                time.sleep(_TURN_S)
                raise Reschedule from error
        for event in in_a_process(unit, wanted=client.listens):
            client.tell("event", event.model_dump_json().encode())


class _Listener:
    """The client of a task, as its worker sees it."""

    def __init__(self, name: str) -> None:
        self.worker = get_worker()
        self._key = self.worker.get_current_task()
        self._sender = secrets.token_hex(8)
        self._messages, self._answers = Queue(name), Queue(f"{name}-{self._sender}")

    def listens(self) -> bool:
        """Whether it still waits for this task: Dask cannot end one that runs, but marks it."""
        task = self.worker.state.tasks.get(self._key)
        return task is not None and task.state != "cancelled"

    def tell(self, kind: str, what: Any) -> None:
        """Tell it something; returns once the scheduler has it."""
        if self.listens():
            self._messages.put([self._sender, kind, what])

    def ask(self, kind: str, what: Any) -> bytes:
        """Ask it for something."""
        self.tell(kind, what)
        while self.listens():
            for answer in self._answers.get(batch=True):
                return bytes(answer)
            time.sleep(0.05)
        raise VbenchError("nobody waits for this unit any more")
