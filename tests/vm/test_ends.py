"""However an environment ends, its user is told and the machine is as before: the fixtures compare."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from vbench.capsule.capsule import Capsule
from vbench.errors import BootError, ConnectionLost
from vbench.hosts.local import LocalHost
from vbench.layers.base import make_layer
from vbench.layers.guest import out_of_memory

from .conftest import ISOLATORS, LAYERS, SHAPE, Opener, Running, a_guest, guest_process

Start = Callable[..., Running]


@pytest.mark.parametrize("layer", LAYERS)
def test_after_an_error_in_the_block(opener: Opener, layer: str) -> None:
    raised = []

    def fail() -> None:
        raised.append(time.monotonic())
        raise ZeroDivisionError

    # Nothing waits for the 2 s after which KILL follows TERM; a busy machine may take as long once, not each time.
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), opener(layer) as host, host.spawn(["sleep", "1000"]):
            fail()
        if time.monotonic() - raised[-1] < 1.8:
            return
    raise AssertionError("each end took 2 s or longer")


@pytest.mark.parametrize("layer", LAYERS)
def test_after_the_guest_s_death(opener: Opener, layer: str) -> None:
    with opener(layer) as host:
        guest_process(layer).kill()
        for _ in range(2):
            begin = time.monotonic()
            with pytest.raises(ConnectionLost, match=f"local/{layer}"):
                host.run(["sleep", "1000"], timeout=30)
            assert time.monotonic() - begin < 6
        begin = time.monotonic()
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("layer", LAYERS)
def test_after_the_guest_s_death_under_a_command(opener: Opener, layer: str) -> None:
    with (
        opener(layer) as host,
        LocalHost().spawn(["sh", "-c", f"sleep 1; kill -9 {guest_process(layer).pid}"]),
    ):
        begin = time.monotonic()
        with pytest.raises(ConnectionLost):
            host.run(["sleep", "1000"], timeout=30)
        assert time.monotonic() - begin < 8


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_after_an_interrupt(
    can: Callable[[str], None], start: Start, layer: str, sig: signal.Signals
) -> None:
    can(layer)
    running = start("exec", layer, "--", "sleep", "1000")
    running.wait_for(lambda: any(b"sleep" in line for line in _inside(layer, running)))
    running.popen.send_signal(sig)
    done = running.end(20)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def _inside(layer: str, running: Running) -> Iterator[bytes]:
    """Command lines of what runs in an environment; a guest's own are not seen, so its CPU time has to do."""
    # What is found may have ended by the time it is looked at: a layer's check of its tool, for one.
    with contextlib.suppress(AssertionError, psutil.NoSuchProcess, OSError):
        process = guest_process(layer, running.popen.pid)
        if layer in ISOLATORS:
            for child in process.children(recursive=True):
                yield Path(f"/proc/{child.pid}/cmdline").read_bytes()
        elif layer == "gvisor":  # whose tasks are processes without a command line
            if not all(child.cmdline() for child in process.children(recursive=True)):
                yield b"sleep, or still starting"
        elif sum(process.cpu_times()[:2]) > 0.5:
            yield b"sleep, or still starting"


def _gone(process: psutil.Process) -> bool:
    """Whether a process has ended, or only waits for its parent to take notice."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


HARNESS = """
import sys
from contextlib import ExitStack
from vbench.capsule.capsule import require
from vbench.layers.base import Shape, make_layer
from vbench.layers.roots import open_root
shape = Shape(memory_mib=256, disk_mib=128)
with ExitStack() as opened:
    root = opened.enter_context(open_root("local", require(), shape))
    hosts = [opened.enter_context(make_layer(name).open(root, shape)) for name in sys.argv[1:]]
    for host in hosts:
        opened.enter_context(host.spawn(["sleep", "1000"]))
    print("open", flush=True)
    sys.stdin.read()
"""


def _opens(can: Callable[[str], None], layer: str) -> bool:
    try:
        can(layer)
    except pytest.skip.Exception:
        return False
    return True


def test_after_the_harness_was_killed(can: Callable[[str], None], cache: Path) -> None:
    """Its children die with it; its working files go at the next start."""
    those = [layer for layer in LAYERS if _opens(can, layer)]
    assert len(those) > 2
    harness = subprocess.Popen(
        [sys.executable, "-c", HARNESS, *those], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert harness.stdout is not None
        assert harness.stdout.readline() == "open\n"
        family = psutil.Process(harness.pid).children(recursive=True)
        assert len(family) > 8
        (folder,) = (cache / "sessions").glob("s*")
    finally:
        harness.kill()
        harness.communicate()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert [process for process in alive if not _gone(process)] == []
    assert folder.is_dir()
    with Running("exec", "local", "--", "true").popen as following:
        following.communicate()
    assert following.returncode == 0
    assert not folder.exists()


# --- environments that do not come up


@contextmanager
def changed(
    built: Capsule, folder: Path, *, image: bytes | None = None, tree: bool = True
) -> Iterator[LocalHost]:
    """This machine with a capsule that has another image, or nothing in its tree."""
    payload = built.payload()
    (folder / "tree").mkdir()
    (folder / "image").write_bytes(image or b"")
    if tree:
        subprocess.run(["mount", "--rbind", payload.tree, folder / "tree"], check=True)
    try:
        yield LocalHost(payload=replace(payload, directory=str(folder)), scratch=os.environ["TMPDIR"])
    finally:
        if tree:
            subprocess.run(["umount", "-R", folder / "tree"], check=True)


@pytest.mark.parametrize("layer", ["uml", "qemu"])
def test_console_of_a_guest_that_does_not_boot(
    built: Capsule, tmp_path: Path, can: Callable[[str], None], layer: str
) -> None:
    can(layer)
    with changed(built, tmp_path, image=b"garbage " * 2**17) as parent:
        begin = time.monotonic()
        with pytest.raises(BootError) as caught, make_layer(layer).open(parent, SHAPE):
            pytest.fail("it came up")
        assert time.monotonic() - begin < 40
    assert "ended while starting" in caught.value.message
    assert re.search(
        r"^    \| .*vbench: cannot mount the image on /dev/\w+", caught.value.message, re.MULTILINE
    )
    assert "vbench: cannot mount the image" in caught.value.console


def test_console_of_a_chroot_that_does_not_start(
    built: Capsule, tmp_path: Path, can: Callable[[str], None]
) -> None:
    can("chroot")
    with (
        changed(built, tmp_path, tree=False) as parent,
        pytest.raises(BootError) as caught,
        make_layer("chroot").open(parent, SHAPE),
    ):
        pytest.fail("it came up")
    assert caught.value.message.startswith("local/chroot ended while starting, with exit code 32")
    assert "mount point does not exist" in caught.value.console


def test_a_guest_without_memory_is_told_as_the_cause(opener: Opener) -> None:
    """Of what does not open in a guest, the guest's kernel may know why."""
    with opener(a_guest()) as host:
        assert out_of_memory(host) == ""
        grow = "for i in 1 2 3; do dd if=/dev/zero of=/dev/null bs=120M count=20 & done; wait"
        host.run([*host.program("busybox"), "sh", "-c", grow])
        assert "Killed process" in out_of_memory(host)
    assert out_of_memory(LocalHost()) == ""
