"""Units of a run in processes of their own: what they tell is what one process would have recorded."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from vbench.capsule.capsule import Capsule
from vbench.errors import VbenchError
from vbench.harness.events import Began, Measured, Opened
from vbench.harness.places import here, in_a_process
from vbench.harness.plan import Plan, load_plan
from vbench.harness.run import new_run, units_for
from vbench.harness.units import WorkUnit
from vbench.workload.library import load_workloads

from .conftest import GUEST, a_guest

KNOWN = load_workloads()


def plan(*stacks: str, workloads: tuple[str, ...] = ("os-nullcall", "cpu-int"), blocks: int = 2) -> Plan:
    return load_plan(None, KNOWN, stacks=[*stacks], workloads=[*workloads], blocks=blocks, seed=7)


def unit_of(folder: Path, built: Capsule, asked: Plan) -> WorkUnit:
    return units_for(new_run(asked, KNOWN, built), asked, KNOWN, results=folder)[0]


def guests(kernel: str, before: set[int]) -> list[list[str]]:
    """The command lines of a layer's processes that have come since; orphans come to us."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.pid not in before and any(word.endswith(GUEST[kernel]) for word in process.cmdline()):
                found.append(process.cmdline())
    return found


def test_leaving_the_events_ends_everything(
    built: Capsule, can: Callable[[str], None], tmp_path: Path
) -> None:
    kernel = a_guest()
    can(kernel)
    unit = unit_of(tmp_path / "run", built, plan(kernel))
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    for place in (here(built), in_a_process):
        events = place(unit)
        opened = [next(event for event in events if isinstance(event, Opened)) for _ in unit.stacks]
        assert [each.stack for each in opened] == ["local", f"local/{kernel}"]
        assert guests(kernel, before)
        events.close()  # type: ignore[attr-defined]
        end = time.monotonic() + 5
        while left := guests(kernel, before):
            assert time.monotonic() < end, left


def test_what_is_warm_already_waits_for_its_turn(
    built: Capsule, can: Callable[[str], None], tmp_path: Path
) -> None:
    """A resumed run measures its first sample before it has warmed everything up."""
    can("chroot")
    unit = unit_of(tmp_path / "run", built, plan("chroot", blocks=1))
    sizes = [
        {"stack": stack, "workload": each.name, "work": 4096}
        for stack in unit.stacks
        for each in unit.workloads
    ]
    resumed = WorkUnit.model_validate({**unit.model_dump(by_alias=True), "sizes": sizes})
    events = [event for event in here(built)(resumed) if isinstance(event, Began | Measured)]
    kinds = [event.stage if isinstance(event, Began) else "measured" for event in events]
    first = kinds.index("measured")
    assert kinds[:first].count("calibrating") == 1
    assert kinds.count("calibrating") == 4
    measured = [event for event in events if isinstance(event, Measured)]
    assert not any(event.warmup for event in measured)
    assert {event.work for event in measured} == {4096}


def test_a_worker_that_fails_says_so(tmp_path: Path, built: Capsule) -> None:
    unit = unit_of(tmp_path / "run", built, plan("local"))
    other = unit.model_copy(update={"capsule": "0" * 16})
    with pytest.raises(
        VbenchError,
        match="the worker of wall clock of local failed: the unit wall clock of local is for capsule 0000",
    ):
        list(in_a_process(other))
    done = subprocess.run(
        [sys.executable, "-m", "vbench.cli.main", "work"],
        input=b"{}",
        capture_output=True,
        env={**os.environ},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"vbench: standard input is no unit of a run: root: Field required")
