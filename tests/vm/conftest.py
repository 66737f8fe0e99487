"""Real layers. Whatever a test does, the machine afterwards holds what it held before."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
import pytest
from lab import Lab, make_root, rows_of, three

from vbench.capsule import add_on, capsule
from vbench.capsule.capsule import Capsule
from vbench.hosts.base import Host
from vbench.hosts.local import LocalHost
from vbench.layers.base import Shape, Unavailable, make_layer, needed
from vbench.layers.stack import Stack, open_layers

# A shell starts what it runs in the background with SIGINT ignored, and that is handed on: a command that a test
# interrupts would never notice.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ISOLATORS = (
    "chroot",
    "bubblewrap",
    "oci",
    "oci:runc,seccomp=podman,users=own",
    "nspawn",
    "lxc",
    "podman",
    "docker",
)
"""What shares its parent's kernel."""
LAYERS = (*ISOLATORS, "gvisor", "uml", "qemu")
GUEST = {
    "chroot": "/usr/sbin/dropbear",
    "bubblewrap": "/usr/bin/bwrap",
    "oci": "/usr/bin/crun",
    "oci:runc,seccomp=podman,users=own": "/usr/bin/runc",
    "nspawn": "/usr/bin/systemd-nspawn",
    "lxc": "/usr/bin/lxc-start",
    "podman": "/mnt/rootfs",
    "docker": "/usr/sbin/dropbear",
    "gvisor": "/usr/bin/runsc",
    "uml": "/usr/bin/linux.uml",
    "qemu": "/usr/bin/qemu-system-x86_64",
}
"""What the command line of an environment's own process names."""


def a_guest() -> str:
    """A layer with a kernel of its own that opens here: User Mode Linux, or QEMU where that does not run."""
    built = capsule.find()
    host = LocalHost(payload=built.payload()) if built else None
    return "uml" if host is None or not isinstance(make_layer("uml").probe(host), Unavailable) else "qemu"


SHAPE = Shape(memory_mib=256, disk_mib=128)
_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Snapshot:
    """What is on the machine that an environment could have left."""

    processes: frozenset[tuple[int, str]]
    mounts: frozenset[str]
    links: frozenset[str]
    groups: frozenset[str]
    namespaces: frozenset[str]
    files: frozenset[str]


def _processes() -> Iterator[tuple[int, str]]:
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                if process.ppid() == os.getpid() and process.pid not in _known_to_subprocess():
                    os.waitpid(process.pid, os.WNOHANG)  # an orphan that came to us
                continue
            # gVisor makes these as its tasks need them, and keeps them; each traces another, which is its child. They
            # are left behind if it has ended, and then are no longer below it.
            if not any(parent.cmdline()[:1] == ["runsc-sandbox"] for parent in process.parents()):
                yield process.pid, " ".join(process.cmdline())[:120]
        except (psutil.NoSuchProcess, ChildProcessError):
            continue


def _known_to_subprocess() -> set[int]:
    return {popen.pid for popen in Running.all}


_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
"""Our name, if other workers open environments on this machine at the same time."""


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        theirs = _WORKER and "/popen-" in line and f"/popen-{_WORKER}/" not in line
        if not theirs:
            yield " ".join(line.split()[2:5])


def _links() -> frozenset[str]:
    return frozenset(path.name for path in Path("/sys/class/net").iterdir())


def _groups() -> frozenset[str]:
    """Control groups of environments."""
    home = Path("/sys/fs/cgroup")
    return frozenset(str(path) for glob in ("vbench-*", "*/vbench-*") for path in home.glob(glob))


_before = _links() | _groups()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Whose a link or a control group is cannot be seen: those of several workers are counted when all have ended."""
    if _WORKER:
        return
    end = time.monotonic() + 5
    while (changed := (_links() | _groups()) ^ _before) and time.monotonic() < end:
        time.sleep(0.1)  # the last of them may be going just now
    if changed and not _foreign_guests():
        warnings.warn(f"links or control groups came or went: {sorted(changed)}", stacklevel=1)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def snapshot() -> Snapshot:
    """Our processes, and the machine's mounts, links, named network namespaces, and files that vbench may leave."""
    cache, temp = Path(os.environ["VBENCH_CACHE"]), Path(os.environ["TMPDIR"])
    named = Path("/run/netns")
    return Snapshot(
        frozenset(_processes()),
        frozenset(_mounts()),
        _links(),
        _groups(),
        frozenset(path.name for path in named.iterdir()) if named.is_dir() else frozenset(),
        frozenset(
            str(path)
            for folder, glob in (
                (cache / "sessions", "s*"),
                (cache / "capsules", ".build-*"),
                (temp, "*"),
            )
            for path in folder.glob(glob)
        ),
    )


def _foreign_guests() -> bool:
    """Whether somebody else's guests run here, whose links come and go."""
    ours = {pid for pid, _ in _processes()}
    return any(
        process.pid not in ours
        and re.search(r"linux\.uml|qemu-system|bwrap", " ".join(process.info["cmdline"] or []))
        for process in psutil.process_iter(["cmdline"])
    )


def left_behind(before: Snapshot, patience: float = 5.0) -> dict[str, list[object]]:
    """What has come or gone since; the kernel takes a moment to clear namespaces away."""
    end = time.monotonic() + patience
    while True:
        old, new = asdict(before), asdict(snapshot())
        changes = {key: sorted(old[key] ^ new[key]) for key in old if old[key] != new[key]}
        if _WORKER:
            changes = {key: changes[key] for key in changes.keys() - {"links", "groups"}}
        elif "links" in changes and _foreign_guests():
            warnings.warn(
                f"links not compared, as others' guests run here: {changes.pop('links')}", stacklevel=2
            )
        if not changes or time.monotonic() > end:
            return changes
        time.sleep(0.05)


@pytest.fixture(scope="session")
def built() -> Capsule:
    """The capsule of this version."""
    found = capsule.find()
    if found is None:
        pytest.skip("no capsule has been built here: vbench capsule build")
    return found


@pytest.fixture(scope="module", autouse=True)
def parent_of_orphans() -> Iterator[None]:
    """What a killed harness leaves behind is then found among our children.

    For these tests only: others expect their orphans to be reaped, which nobody does here.
    """
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def of_all_workers(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of these tests share."""
    return factory.getbasetemp().parent if _WORKER else factory.getbasetemp()


@pytest.fixture(scope="session", autouse=True)
def cache(built: Capsule, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of our own for sessions, with the user's capsules in it; and a folder for temporary files.

    Snapshots are those of all workers, so that each stack of the testbed boots once.
    """
    home = tmp_path_factory.mktemp("cache")
    (home / "capsules").symlink_to(built.directory.parent)
    shared = of_all_workers(tmp_path_factory) / "snapshots"
    shared.mkdir(exist_ok=True)
    (home / "snapshots").symlink_to(shared)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VBENCH_CACHE", str(home))
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temp")))
        yield home


@pytest.fixture(scope="module")
def own_snapshots(cache: Path) -> Iterator[Path]:
    """An empty folder of snapshots for the tests of a file, which may damage and delete them."""
    home = cache / "snapshots"
    shared = home.readlink()
    home.unlink()
    home.mkdir()
    yield home
    shutil.rmtree(home)
    home.symlink_to(shared)


@pytest.fixture(scope="module", autouse=True)
def nothing_left_by_module(cache: Path) -> Iterator[None]:
    """What tests share is gone, too, when the last of them is done."""
    before = snapshot()
    yield
    assert left_behind(before) == {}


@pytest.fixture(autouse=True)
def nothing_left(nothing_left_by_module: None) -> Iterator[None]:
    """Every test leaves the machine as it was."""
    before = snapshot()
    yield
    assert left_behind(before) == {}


@pytest.fixture(scope="session")
def machine(built: Capsule) -> LocalHost:
    """This machine, with the capsule and the add-ons that have been built."""
    return LocalHost(payload=replace(built.payload(), add_ons=add_on.parts(needed())))


@pytest.fixture(scope="session")
def can(machine: LocalHost) -> Callable[[str], None]:
    """Skips the test, with the layer's own reason, where a layer cannot open on this machine."""
    layers = {
        name: make_layer(name) for name in [*LAYERS, "testbed", "testbed-vt", "testbed-power", "testbed-z"]
    }
    answers = {name: layer.lacks(machine) or layer.probe(machine) for name, layer in layers.items()}

    def check(name: str) -> None:
        answer = answers[name]
        if isinstance(answer, Unavailable):
            pytest.skip(f"{name}: {answer.reason}")

    return check


Opener = Callable[[str], AbstractContextManager[Host]]
Climber = Callable[[str], AbstractContextManager[list[Host]]]


@pytest.fixture(scope="session")
def climber(built: Capsule, machine: LocalHost, can: Callable[[str], None]) -> Climber:
    """Opens a stack of the small shape, for all its hosts.

    Skips where its lowest layer is not available, or an add-on has not been built.
    """

    def opens(path: str) -> AbstractContextManager[list[Host]]:
        stack = Stack.parse(path)
        for name in stack.layers[:1]:
            can(name)
        for name in stack.layers:
            if answer := make_layer(name).lacks(machine):
                pytest.skip(answer.reason)
        return open_layers(stack, built, SHAPE)

    return opens


@pytest.fixture(scope="session")
def opener(climber: Climber) -> Opener:
    """The same, for its uppermost host."""

    @contextlib.contextmanager
    def opens(path: str) -> Iterator[Host]:
        with climber(path) as hosts:
            yield hosts[-1]

    return opens


def guest_process(layer: str, root: int | None = None) -> psutil.Process:
    """The process that is a layer's environment, among the descendants of ``root`` (default: this process)."""
    for process in psutil.Process(root).children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.NoSuchProcess:
            continue
        if any(word.endswith(GUEST[layer]) for word in words) and "unshare" not in words[0]:
            return process
    raise AssertionError(f"no process of {layer}")


class Running:
    """A vbench command in a process of its own."""

    all: list[subprocess.Popen[str]] = []  # noqa: RUF012 - shared on purpose

    def __init__(
        self, *argv: str | Path, module: str = "vbench.cli.main", through: Sequence[str] = ()
    ) -> None:
        self.popen = subprocess.Popen(
            [*through, sys.executable, "-m", module, *map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.all.append(self.popen)

    def wait_for(self, ready: Callable[[], object], seconds: float = 60) -> None:
        """Wait until something is so; fails when the command ends before."""
        end = time.monotonic() + seconds
        while not ready():
            assert self.popen.poll() is None, self.popen.communicate()
            assert time.monotonic() < end, "it did not come"
            time.sleep(0.02)

    def end(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        try:
            out, err = self.popen.communicate(timeout=timeout)
        finally:
            self.kill()
        return subprocess.CompletedProcess(self.popen.args, self.popen.returncode, out, err)

    def stop(self) -> None:
        """End it as a user would, so that a test that failed leaves nothing for those after it; then make sure."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.communicate(timeout=20)
        self.kill()

    def kill(self) -> None:
        """Make sure that it has ended."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGKILL)
        with self.popen:
            pass
        if self.popen in self.all:
            self.all.remove(self.popen)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Starts vbench commands, and ends them with the test."""
    started: list[Running] = []

    def begin(*argv: str | Path, through: Sequence[str] = ()) -> Running:
        started.append(Running(*argv, through=through))
        return started[-1]

    yield begin
    for running in started:
        running.stop()


@pytest.fixture
def vbench(start: Callable[..., Running]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a vbench command to its end."""
    return lambda *argv: start(*argv).end()


class Silent:
    """Told of a run's progress, and does nothing with it."""

    def say(self, text: str) -> None: ...

    def doing(self, *args: object) -> None: ...


def rows(folder: Path) -> list[dict[str, object]]:
    """The workloads' samples in the whole lines of a bundle's journal, which may be growing."""
    return [row for row in rows_of(folder) if row["side"] == "workload"]


@pytest.fixture(scope="session")
def lab_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Debian root with an SSH server and without Python."""
    if os.geteuid() != 0 or not shutil.which("mmdebstrap") or not shutil.which("ssh-keygen"):
        pytest.skip("needs root, mmdebstrap and ssh-keygen")
    shared = of_all_workers(tmp_path_factory)
    root, draft = shared / "lab-root", shared / "lab-root.draft"
    with (shared / "lab-root.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            shutil.rmtree(draft, ignore_errors=True)
            make_root(draft)
            draft.rename(root)
    return root


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, lab_root: Path) -> Iterator[Lab]:
    """Machines ``bare``, ``jump``, and ``inner`` behind it."""
    folder = tmp_path_factory.mktemp("lab")
    with contextmanager(three)(folder, lab_root) as made:
        cache = made.home / ".cache/vbench"
        cache.mkdir(parents=True)
        (cache / "capsules").symlink_to(capsule.home())
        yield made
