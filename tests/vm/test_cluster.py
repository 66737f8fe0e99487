"""Counted units on a Dask cluster: the bundle is the one that this machine alone makes, whatever happens to workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from vbench.bundle.verify import examine
from vbench.capsule.capsule import Capsule

from .conftest import Running, rows

pytest.importorskip("distributed", reason="of the extra 'cluster'")

Start = Callable[..., Running]
PLAN = ("-s", "testbed/chroot", "-s", "testbed/bubblewrap", "-w", "cpu-int,os-nullcall", "--blocks", "2")
ALONE = {"run", "seal"}
"""What is a run's own in a row."""


@pytest.fixture(scope="module")
def alone(built: Capsule, can: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plan on this machine; it leaves its snapshots in the cache."""
    can("testbed")
    folder = tmp_path_factory.mktemp("alone") / "run"
    done = Running("run", *PLAN, "--out", folder).end(590)
    assert done.returncode == 0, done.stderr
    return folder


def cells(folder: Path) -> list[str]:
    """All that a journal says of each sample, in the order of the cells; twice what is there twice."""
    return sorted(
        json.dumps({key: value for key, value in row.items() if key not in ALONE}, sort_keys=True)
        for row in rows(folder)
    )


def workers(running: Running) -> dict[int, psutil.Process]:
    """The processes that carry out units, by the Dask worker that each belongs to."""
    found = {}
    for process in psutil.Process(running.popen.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline()[-3:] == ["-m", "vbench.cli.main", "work"]:
                found[process.ppid()] = process
    return found


def test_the_bundle_is_that_of_one_machine(alone: Path, start: Start, tmp_path: Path) -> None:
    done = start("run", *PLAN, "--scheduler", "local", "--out", tmp_path / "run").end(500)
    assert done.returncode == 0, done.stderr
    assert "dashboard: http://127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr
    assert examine(tmp_path / "run") == []
    assert cells(tmp_path / "run") == cells(alone)


def test_a_killed_worker_s_unit_is_taken_over(alone: Path, start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    running = start("run", *PLAN, "--scheduler", "local", "--out", folder)
    running.wait_for(lambda: rows(folder) and workers(running), 400)
    # Each that is at work, so that one of them has measured something.
    for worker, unit in workers(running).items():
        machines = unit.children(recursive=True)
        os.kill(worker, signal.SIGKILL)
        gone, left = psutil.wait_procs([unit, *machines], timeout=5)
        assert gone
        assert not [each for each in left if each.status() != psutil.STATUS_ZOMBIE]
    assert len(rows(folder)) < len(rows(alone))
    done = running.end(500)
    assert done.returncode == 0, done.stderr
    assert examine(folder) == []
    assert cells(folder) == cells(alone)


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGKILL])
def test_the_client_s_end_is_everything_s_end(
    alone: Path, start: Start, tmp_path: Path, sig: signal.Signals
) -> None:
    """Nothing is left; what was measured is kept, and the rest measured later, on a cluster or here."""
    folder = tmp_path / "run"
    running = start("run", *PLAN, "--scheduler", "local", "--out", folder)
    running.wait_for(lambda: rows(folder) and workers(running), 400)
    family = psutil.Process(running.popen.pid).children(recursive=True)
    running.popen.send_signal(sig)
    done = running.end(60)
    assert done.returncode == (130 if sig == signal.SIGINT else -sig)
    assert "Traceback" not in done.stderr
    _, left = psutil.wait_procs(family, timeout=10)
    assert not [each for each in left if each.status() != psutil.STATUS_ZOMBIE]
    again = start("resume", folder, "--scheduler", "local").end(500)
    assert again.returncode == 0, again.stderr
    assert cells(folder) == cells(alone)


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Callable[[Path, str], str]]:
    """Starts a scheduler on loopback with one worker, which has a cache and so many of a resource; its address."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(cache: Path, resources: str) -> str:
        told = tmp_path / "scheduler.json"
        dask = [sys.executable, "-m", "dask"]
        argv = [
            [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
            [*dask, "worker", "--nthreads", "1", "--no-dashboard", "--resources", resources],
        ]
        for each in argv:
            with (tmp_path / "dask.log").open("ab") as log:
                started.append(
                    subprocess.Popen(
                        [*each, "--scheduler-file", told],
                        env={
                            **os.environ,
                            "VBENCH_CACHE": str(cache),
                            "DASK_TEMPORARY_DIRECTORY": str(tmp_path),
                        },
                        stdout=log,
                        stderr=log,
                    )
                )
            Running.all.append(started[-1])  # type: ignore[arg-type]  # reaped by us
            end = time.monotonic() + 60
            while not told.exists() or (each is argv[-1] and b"Registered to" not in log_of(tmp_path)):
                assert time.monotonic() < end, log_of(tmp_path)
                time.sleep(0.1)
        known: dict[str, Any] = json.loads(told.read_text())
        return str(known["address"])

    yield begin
    for popen in reversed(started):
        popen.terminate()
        popen.wait(30)
        Running.all.remove(popen)  # type: ignore[arg-type]


def log_of(folder: Path) -> bytes:
    return (folder / "dask.log").read_bytes()


def test_a_worker_without_the_capsule_is_given_it(
    alone: Path,
    built: Capsule,
    start: Start,
    scheduler: Callable[[Path, str], str],
    tmp_path: Path,
) -> None:
    address = scheduler(tmp_path / "cache", "testbed=1")
    plan = ("-s", "testbed", "-w", "os-nullcall", "--blocks", "1")
    done = start("run", *plan, "--scheduler", address, "--out", tmp_path / "run").end(560)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("sending the capsule to ") == 1
    (told,) = (tmp_path / "cache/capsules").glob("[!.a]*/capsule.json")
    assert json.loads(told.read_bytes())["digest"] == built.digest
    assert cells(tmp_path / "run")
    assert {*cells(tmp_path / "run")} <= {*cells(alone)}


def test_a_cluster_without_the_resource_is_refused(
    start: Start, scheduler: Callable[[Path, str], str], tmp_path: Path
) -> None:
    address = scheduler(tmp_path / "cache", "other=1")
    done = start("run", *PLAN, "--scheduler", address, "--out", tmp_path / "run").end()
    assert done.returncode == 1
    assert f"vbench: {address}: no worker has the resource 'testbed'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_scheduler_that_does_not_answer_is_said(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "3s")  # 30 by default
    asked = {
        address: start("run", *PLAN, "--scheduler", address, "--out", tmp_path / address[:3])
        for address in ("tls://127.0.0.1:9", "tcp://127.0.0.1:9")
    }
    for address, running in asked.items():
        done = running.end()
        assert done.returncode == 1
        assert f"vbench: {address}: no Dask scheduler answers: " in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / address[:3]).exists()
