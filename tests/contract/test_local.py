"""What only the local host does."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from vbench.hosts.base import Usage
from vbench.hosts.local import LocalHost

ROOT = Path(__file__).parents[2]


def running(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(LocalHost().run(["setpriv", "--version"], check=False).code != 0, reason="no setpriv")
def test_children_die_with_the_harness() -> None:
    script = (
        "from vbench.hosts.local import LocalHost\n"
        "with LocalHost().spawn(['sleep', '1000']) as p: print(p.pid, flush=True); input()"
    )
    harness = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert harness.stdout is not None
    with harness:
        child = psutil.Process(int(harness.stdout.readline()))
        time.sleep(0.5)
        assert child.name() == "sleep"
        harness.kill()
    end = time.monotonic() + 5
    while running(child.pid):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_processors() -> None:
    mine = os.sched_getaffinity(0)
    for cpu in mine:
        host = LocalHost(cpus=frozenset({cpu}))
        assert host.run(["sh", "-c", "grep Cpus_allowed_list /proc/self/status"]).text.split()[1] == str(cpu)
    assert LocalHost().run(["nproc"]).text == str(len(mine))
    assert os.sched_getaffinity(0) == mine


def test_usage_counts_children() -> None:
    spin = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done"
    used = LocalHost().run(["sh", "-c", f"sh -c '{spin}'; :"]).usage
    assert isinstance(used, Usage)
    assert used.cpu_s > 0.05


def test_usage_of_memory() -> None:
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10  # after some other tests, over 400 MiB
    size = max(400 << 20, ours + (50 << 20))
    script = f"x = bytearray({size})\nfor i in range(0, len(x), 4096): x[i] = 1"
    used = LocalHost().run([sys.executable, "-c", script]).usage
    assert used is not None
    assert size < used.rss_bytes < size + (100 << 20)
    small = LocalHost().run(["true"]).usage
    assert small is not None
    assert small.rss_bytes == 0  # less than our own peak: the kernel cannot tell


def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with LocalHost().dial(path) as connection:
            connection.send(b"hello")
            assert listener.accept()[0].recv(5) == b"hello"


def test_no_descriptor_is_left() -> None:
    host = LocalHost()

    def use() -> int:
        host.run(["cat"], input=b"x")
        host.run(["sh", "-c", "kill -9 $$"], check=False)
        with host.spawn(["sleep", "9"]):
            pass
        return psutil.Process().num_fds()

    assert use() == use() == use()
    assert not [child for child in psutil.Process().children() if child.name() == "sleep"]


INTERRUPTIONS = """
import random, signal, time
import psutil
from vbench.hosts.process import start
start(("true",), stdin=-3).end()
signal.signal(signal.SIGALRM, signal.default_int_handler)
random.seed(1)
interrupted = 0
for _ in range(1000):
    child = None
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 4e-3))
        child = start(("sleep", "1000"), stdin=-3)
        time.sleep(0.01)
    except KeyboardInterrupt:
        interrupted += child is None
    if child:
        child.end()
print(interrupted, len(psutil.Process().children()))
"""


def test_interrupted_start_loses_no_child() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTIONS], capture_output=True, timeout=60, check=True, text=True
    )
    interrupted, left = map(int, done.stdout.split())
    assert interrupted > 50
    assert left == 0


def test_interpreter_exits_with_a_child_running() -> None:
    script = "from vbench.hosts.process import start; print(start(('sleep', '1000'), stdin=-3).pid)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        timeout=20,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    end = time.monotonic() + 5
    while running(int(done.stdout)):
        if time.monotonic() > end:
            os.kill(int(done.stdout), signal.SIGKILL)
            pytest.fail("the child outlived the harness")
        time.sleep(0.02)
