"""Where a unit is carried out: in this process, or in a process of its own."""

from __future__ import annotations

import os
import selectors
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator

from vbench.capsule.capsule import Capsule
from vbench.errors import VbenchError
from vbench.harness.dispatch import Place
from vbench.harness.events import Event, read_event
from vbench.harness.exact import worker_for
from vbench.harness.units import WorkUnit
from vbench.hosts.process import PIPE, Child, start

PATIENCE_S = 30.0
"""Seconds that a process has to close what it opened after it is told to stop."""

COMMAND = (sys.executable, "-m", "vbench.cli.main", "work")


def here(capsule: Capsule) -> Place:
    """Carry units out in this process, on the thread that asks for the events."""
    return lambda unit: worker_for(unit, capsule).run()


def in_a_process(
    unit: WorkUnit, command: tuple[str, ...] = COMMAND, wanted: Callable[[], bool] = lambda: True
) -> Iterator[Event]:
    """Carry a unit out in a process of its own, which reads the unit as JSON and writes one JSON event per line.

    Leaving the iterator stops the process, which closes what it opened, and so does ``wanted``, asked once a second,
    when it says that nobody waits for the unit any more. If the process fails, raises ``VbenchError`` with its message.
    """
    with tempfile.TemporaryFile() as complaints:
        child = start(command, stdin=PIPE, stderr=complaints.fileno())
        try:
            assert child.popen.stdin is not None  # noqa: S101
            with child.popen.stdin as to:
                to.write(unit.model_dump_json(by_alias=True).encode())
            for line in _lines(child, wanted):
                yield read_event(line)
            if not wanted():
                return
            child.exited(PATIENCE_S)
            if code := child.code():
                complaints.seek(0)
                said = complaints.read().decode(errors="replace").strip() or f"exit code {code}"
                message, _, hint = said.removeprefix("vbench: ").partition("\n")
                raise VbenchError(f"the worker of {unit.name} failed: {message}", hint.strip() or None)
        finally:
            if not child.exited():
                child.signal(signal.SIGTERM)
                child.exited(PATIENCE_S)
            child.end()


def _lines(child: Child, wanted: Callable[[], bool]) -> Iterator[bytes]:
    """What a process writes, line by line, as long as it is wanted."""
    assert child.popen.stdout is not None  # noqa: S101
    rest, output = b"", child.popen.stdout.fileno()
    with selectors.DefaultSelector() as ready:
        ready.register(output, selectors.EVENT_READ)
        while wanted():
            if ready.select(1.0):
                if not (piece := os.read(output, 1 << 20)):
                    return
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
