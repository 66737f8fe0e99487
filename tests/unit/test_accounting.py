"""What a process tree uses, as a shell reads it, against what psutil reads."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from vbench.hosts.accounting import SCRIPT, TICKS, totals, usage
from vbench.hosts.base import Payload

if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
    pytest.skip("this kernel does not tell children", allow_module_level=True)

BURN = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done"


def read(pid: int, *more: str) -> str:
    argv = ["sh", "-c", SCRIPT, "procs", str(pid), *more]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@contextmanager
def family() -> Iterator[psutil.Process]:
    """A shell that has reaped one busy child, and has another one and a grandchild, all asleep."""
    script = f"sh -c '{BURN}'; sh -c 'sleep 60; :' & echo ready; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as shell:
        try:
            assert shell.stdout is not None
            shell.stdout.readline()
            process = psutil.Process(shell.pid)
            end = time.monotonic() + 10
            while len(process.children(recursive=True)) < 2 and time.monotonic() < end:
                time.sleep(0.01)
            yield process
        finally:
            os.killpg(shell.pid, 9)


def test_it_reads_what_psutil_reads() -> None:
    with family() as process:
        everyone = [process, *process.children(recursive=True)]
        found = totals(read(process.pid, "pss"))
        cpu = sum(sum(each.cpu_times()[:4]) for each in everyone)
        assert len(everyone) == 3
        assert os.sysconf("SC_CLK_TCK") == TICKS
        assert found["ticks"] / TICKS == pytest.approx(cpu, abs=0.05)
        assert cpu > 0.02
        resident = sum(each.memory_info().rss for each in everyone)
        assert found["rss"] * 4096 == pytest.approx(resident, rel=0.2)  # kernels count in batches
        assert found["switches"] == sum(sum(each.num_ctx_switches()) for each in everyone)
        assert found["read"] == sum(each.io_counters().read_bytes for each in everyone)
        assert found["pss"] * 1024 == pytest.approx(
            sum(each.memory_full_info().pss for each in everyone), rel=0.2
        )
        assert found["ran"] > 0


def test_memory_shared_in_proportion_is_read_only_when_asked_for() -> None:
    assert "pss" not in totals(read(os.getpid()))
    assert "pss" in totals(read(os.getpid(), "pss"))


def test_a_process_that_has_gone_uses_nothing_known() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert read(gone.pid) == ""
    assert usage("") is None


def test_usage_leaves_out_what_is_not_told() -> None:
    found = usage("ticks 250\nrss 3\n")
    assert found is not None
    assert (found.cpu_s, found.rss_bytes, found.switches) == (2.5, 3 * 4096, None)


def test_memory_is_told_in_the_host_s_pages() -> None:
    found = usage("ticks 250\nrss 3\n", Payload("/capsule", "d" * 64, {}, {}, page=65536))
    assert found is not None
    assert found.rss_bytes == 3 * 65536
