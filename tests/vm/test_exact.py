"""The testbed, exact: the same cell from other restores, rebuilt snapshots and other processes, to the last byte."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vbench import load
from vbench.capsule import capsule
from vbench.capsule.capsule import Capsule
from vbench.exact.machine import Machine
from vbench.exact.opening import console, trail_of
from vbench.hosts.base import Setting, System
from vbench.layers.base import Shape
from vbench.layers.roots import open_root
from vbench.layers.testbed import Testbed
from vbench.layers.xen import DOM0_MIB, _under_xen

from .conftest import Opener, Running, guest_process

Vbench = Callable[..., "subprocess.CompletedProcess[str]"]


def snapshots() -> list[Path]:
    return sorted(path.parent for path in Path(os.environ["VBENCH_CACHE"]).glob("snapshots/*/ram.z"))


def machines() -> set[Path]:
    """What machines have in memory."""
    return set(Path("/dev/shm").glob("vbench-*"))


def abandoned() -> set[Path]:
    """The same of processes that have ended; somebody else's may run here."""
    return {path for path in machines() if not Path("/proc", path.name.split("-")[1].split(".")[0]).exists()}


@pytest.fixture(scope="module")
def bundle(own_snapshots: Path, can: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the testbed, which leaves its snapshots in the cache."""
    can("testbed")
    folder = tmp_path_factory.mktemp("exact") / "run"
    argv = ["-s", "testbed/chroot", "-w", "os-nullcall,disk-rand-read", "--blocks", "2"]
    argv += ["--starts", "2"]
    done = Running("run", *argv, "--out", folder).end(300)
    assert done.returncode == 0, done.stderr
    return folder


def test_cells_come_out_exactly(bundle: Path, vbench: Vbench) -> None:
    before = snapshots()
    assert len(before) >= 2  # the testbed, and chroot on it
    done = vbench("verify", bundle, "--spot", "3")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 cells came out exactly" in done.stdout
    assert snapshots() == before


def test_how_long_it_took_by_our_clock_is_kept(bundle: Path) -> None:
    """Samples tell the machine's own time only: a forecast needs ours."""
    for known in load(bundle).facts.values():
        assert known["took_s"].keys() == {"os-nullcall", "disk-rand-read"}
        assert all(0.01 < seconds < 300 for seconds in known["took_s"].values())


def test_starts_in_one_boot_differ(bundle: Path) -> None:
    """Process numbers, pages and timers are moved, for the baseline's second measurement as well."""
    samples = load(bundle).samples
    assert set(samples["boot"]) == {0}
    values = samples[(samples["metric"] == "latency") & (samples["stack"] == "local/testbed")]
    times = values.groupby("workload")["parent_s"].nunique()
    assert (times == 4).all()


def test_and_so_they_do_from_power_on(bundle: Path, start: Callable[..., Running]) -> None:
    """Snapshots deleted are made anew, as states of the same names."""
    names = [path.name for path in snapshots()]
    shutil.rmtree(Path(os.environ["VBENCH_CACHE"]) / "snapshots")
    done = start("verify", bundle, "--spot", "12").end(400)
    assert done.returncode == 0, done.stderr
    assert "12 of 12 cells came out exactly" in done.stdout
    assert [path.name for path in snapshots()] == names


def test_xen_does_not_see_where_the_capsule_lies(
    built: Capsule, can: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told the names of what it boots, and reads them: a longer path took it 3 microseconds more."""
    can("testbed")
    begun = []
    for name in ("short", "with-a-much-longer-name"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "capsules").symlink_to(built.directory.parent)
        monkeypatch.setenv("VBENCH_CACHE", str(tmp_path / name))
        with open_root("local", capsule.require(), Shape()) as root:
            testbed = Testbed(System("xen", DOM0_MIB, _under_xen))
            run, made_of = testbed._machine(root, testbed.require(root))
            with console(run, made_of, Setting("dom0")) as led:
                led.run(["true"])
                begun.append((made_of, led.trail._path))
    assert begun[0] == begun[1]


def test_a_changed_figure_is_found(bundle: Path, vbench: Vbench, tmp_path: Path) -> None:
    """It breaks the seal, too: so only what is derived anew is asked about."""
    from vbench.harness.events import Measured
    from vbench.harness.invoke import Cost
    from vbench.harness.spot import _difference, choose

    cell = choose(bundle, 1)[0]
    row = next(iter(cell.rows.values()))
    event = Measured(
        stack=cell.step.stack,
        baseline=row["baseline"],
        workload=cell.step.workload,
        params=row["params"],
        block=cell.step.block,
        order=cell.step.order,
        arm=cell.step.arm,
        warmup=False,
        work=cell.work,
        clock="instructions",
        values=(),
        guest_s=row["guest_s"],
        parent_s=row["parent_s"],
        cost=Cost(),
        start=row["start"],
        stdout=b"other",
    )
    assert "its output from character 0 is 'other', not '" in _difference(bundle, cell, event)


def test_a_fork_goes_on_as_the_machine_itself_would(bundle: Path, opener: Opener) -> None:
    """Forks of one machine, side by side with one that is restored: the same nanosecond of the same answer."""
    ask = ["sh", "-c", "cat /proc/interrupts /proc/uptime; dd if=/dev/urandom bs=64 count=1 status=none | od"]
    said = []
    with opener("testbed") as host:
        trail = trail_of(host)
        assert trail is not None
        mark = trail.state
        for park in (False, True, True):
            trail.back_to(mark)
            host.run(["true"])
            if park:
                trail.park()
            result = host.run(ask)
            said.append((result.text, result.elapsed, trail.state))
    assert len(set(said)) == 1


def test_a_machine_rests_to_the_nanosecond_whoever_wakes_its_emulator(
    bundle: Path, opener: Opener, tmp_path: Path
) -> None:
    """While it sleeps often, QEMU's main loop is kept busy, which moves the clock of a machine that is idle.

    Without the plugin ``rest`` its answers are nanoseconds apart, in most runs of three.
    """
    program = tmp_path / "naps"
    source = Path(__file__).with_name("naps.c")
    subprocess.run(["gcc", "-O1", "-static", "-o", program, source], check=True)
    ends = set()
    with opener("testbed") as host:
        trail = trail_of(host)
        assert trail is not None
        mark = trail.state
        for _ in range(3):
            trail.back_to(mark)
            host.put(program.read_bytes(), "/tmp/naps", 0o755)
            assert trail._machine is not None
            with keeping_busy(trail._machine):
                host.run(["/tmp/naps", "200000"])
            ends.add(trail.clock)
    assert len(ends) == 1


@contextmanager
def keeping_busy(machine: Machine) -> Iterator[None]:
    """Ask QEMU's monitor something all the time."""
    over, monitor = threading.Event(), machine._monitor
    assert monitor is not None

    def ask() -> None:
        while not over.is_set():
            monitor.ask("query-status")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()


def test_a_damaged_snapshot_is_made_anew(bundle: Path, vbench: Vbench) -> None:
    for folder in snapshots():
        data = (folder / "ram.z").read_bytes()
        (folder / "ram.z").write_bytes(data[:-100] + bytes(100))
    done = vbench("-v", "exec", "testbed", "--", "echo", "here")
    assert (done.returncode, done.stdout) == (0, "here\n")
    assert "is damaged and will be made anew" in done.stderr
    assert "Traceback" not in done.stderr


def test_opens_at_once_from_its_snapshot(bundle: Path, vbench: Vbench) -> None:
    vbench("exec", "testbed", "--", "true")
    begin = time.monotonic()
    assert vbench("exec", "testbed", "--", "uname", "-n").stdout == "testbed\n"
    assert time.monotonic() - begin < 10  # seven times as long from power-on


def with_a_machine(start: Callable[..., Running]) -> Running:
    """A command on the testbed that has a machine by now, and would take a day."""
    before = machines()
    running = start("exec", "testbed", "--", "sleep", "100000")
    running.wait_for(lambda: any(next(path.glob("w*/gate"), None) for path in machines() - before))
    return running


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_harness_leaves_nothing(
    bundle: Path, start: Callable[..., Running], vbench: Vbench, sig: signal.Signals
) -> None:
    running = with_a_machine(start)
    running.popen.send_signal(sig)
    running.end(20)
    assert vbench("exec", "local", "--", "true").returncode == 0  # the next one tidies up
    assert abandoned() == set()


def test_a_killed_machine_is_said_in_one_line(bundle: Path, start: Callable[..., Running]) -> None:
    """As the kernel kills it for want of memory."""
    running = with_a_machine(start)
    guest_process("qemu", running.popen.pid).kill()
    done = running.end(20)
    assert done.returncode == 1
    assert "it was killed, as the kernel does when this machine has no memory left" in done.stderr
    assert done.stderr.count("\n") == 1
    assert abandoned() == set()


def in_little_memory(start: Callable[..., Running]) -> subprocess.CompletedProcess[str]:
    """A command on the testbed, with room for 200 MiB where its memory lies."""
    if os.geteuid() != 0:
        pytest.skip("needs root: /dev/shm is made small in a mount namespace")
    small = 'mount -t tmpfs -o size=200m tmpfs /dev/shm && exec "$@"'
    return start(
        "exec", "testbed", "--", "true", through=["unshare", "--mount", "sh", "-c", small, "sh"]
    ).end()


def test_no_room_for_a_snapshot_is_said_in_one_line(
    bundle: Path, vbench: Vbench, start: Callable[..., Running]
) -> None:
    vbench("exec", "testbed", "--", "true")
    found = snapshots()
    done = in_little_memory(start)
    assert done.returncode == 1
    assert done.stderr.startswith("vbench: no room in /dev/shm/vbench-")
    assert "Traceback" not in done.stderr
    assert snapshots() == found


def test_clean_removes_snapshots(bundle: Path, vbench: Vbench) -> None:
    vbench("exec", "testbed", "--", "true")
    found = snapshots()
    done = vbench("clean", "--snapshots")
    assert found
    assert all(str(folder) in done.stdout for folder in found)
    assert snapshots() == []


def test_no_room_for_a_machine_is_said_in_one_line(bundle: Path, start: Callable[..., Running]) -> None:
    """From power-on, as there is no snapshot any more: the emulator dies of it while the machine boots."""
    done = in_little_memory(start)
    assert done.returncode == 1
    assert "there is no room left for its memory" in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr
    assert snapshots() == []
