"""What one vbench process has on the machine it runs on: a folder of working files, child processes, its turn.

If the process is killed, the next one recognizes what it left and removes it: the folder by its lock, the
child processes by a mark in their environment. Nothing else is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vbench import paths
from vbench.errors import UsageError, VbenchError
from vbench.files import holders
from vbench.hosts.process import MARK, Child, children, kill_but, owner, owner_lives

_FOLDER = re.compile(r"s[a-z0-9_]{8}")
_MEMORY = re.compile(r"vbench-(\d+\.\d+\.\d+)-[a-z0-9_]{8}")
_DYING = 2.0
_SHARED = Path("/dev/shm")  # noqa: S108 - memory is what it is for
_counting = threading.Lock()
_sessions: list[None] = []
_before: list[Child] = []
_OWNED = re.compile(rf"(?:^|\0){MARK}=(\d+\.\d+\.\d+)(?:\0|$)".encode())


@contextmanager
def session(base: Path | None = None) -> Iterator[Path]:
    """A folder for the working files of one vbench process, removed at the end.

    It is locked while in use, so that the next process recognizes and removes what a killed one left behind. Before it
    is removed, children are killed that would write to it. Raises ``VbenchError`` if it cannot be created.
    """
    home = (base or paths.cache()) / "sessions"
    try:
        home.mkdir(parents=True, exist_ok=True)
        tidy(home)
        with _alone(home):
            folder = Path(tempfile.mkdtemp(prefix="s", dir=home))
            lock = (folder / "lock").open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise VbenchError(
            f"cannot write to {home}: {error.strerror}", "set VBENCH_CACHE to a folder"
        ) from error
    with lock:
        try:
            with _no_child_left():
                yield folder
        finally:
            _remove(folder)
            with contextlib.suppress(OSError):
                remove_stale(home)  # of one that was still dying when this session began


@contextmanager
def _no_child_left() -> Iterator[None]:
    """Children that were started since this process's first session began end with its last at the latest."""
    with _counting:
        if not _sessions:
            _before[:] = children()
        _sessions.append(None)
    try:
        yield
    finally:
        with _counting:
            _sessions.pop()
            if not _sessions:
                kill_but(_before)
                _before.clear()


def tidy(home: Path | None = None) -> tuple[list[int], list[Path]]:
    """End and remove what killed processes left; ``home`` is the folder of sessions, if not the cache's.

    Returns the PIDs ended and the folders removed. Raises ``OSError`` if ``home`` cannot be written to.
    """
    return end_orphans(), _remove_orphaned_memory() + remove_stale(home or paths.cache() / "sessions")


@contextmanager
def memory() -> Iterator[Path]:
    """A folder in memory for large files of this process, removed at the end.

    It carries the name of its process, so that the next session removes what a killed one left. Where there is no
    /dev/shm to write to, it is on disk.
    """
    base = _SHARED if os.access(_SHARED, os.W_OK) else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix=f"vbench-{owner()}-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_orphaned_memory() -> list[Path]:
    space = owner().rpartition(".")[2]
    gone = []
    for base in {_SHARED, Path(tempfile.gettempdir())}:
        for folder in base.glob("vbench-*"):
            match = _MEMORY.fullmatch(folder.name)
            with contextlib.suppress(OSError):
                ours = match and folder.stat().st_uid == os.geteuid() and match[1].endswith(f".{space}")
                if match and ours and not owner_lives(match[1]):
                    shutil.rmtree(folder, ignore_errors=True)
                    gone.append(folder)
    return gone


def remove_stale(home: Path) -> list[Path]:
    """Remove the folders of sessions that have ended, from the folder of sessions ``home``; returns them."""
    if not home.is_dir():
        return []
    with _alone(home):
        return _remove_unlocked(home)


@contextmanager
def nobody_else(what: str) -> Iterator[None]:
    """No other vbench process uses this cache, and none starts, while ``what`` is done.

    Raises ``UsageError`` naming the processes that use it.
    """
    home = paths.cache() / "sessions"
    if not home.is_dir():
        yield
        return
    with _alone(home):
        _remove_unlocked(home)
        left = _folders(home)
        if left:
            there = {who for folder in left for who in holders(folder / "lock")} or {*map(str, left)}
            raise UsageError(
                f"vbench is in use: {'; '.join(sorted(there))}", f"wait for it to end before {what}"
            )
        yield


@contextmanager
def measuring(*, alone: bool) -> Iterator[None]:
    """This run's turn to measure on this machine with this cache; released at the end, however the run ends.

    A wall-clock run is ``alone``: anything running beside it would affect its results. Runs whose clock
    counts instructions do not disturb each other. Raises ``UsageError`` naming the run that is in the way.
    """
    path = paths.cache() / "measuring.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a")
    except OSError as error:
        raise VbenchError(f"cannot write {path}: {error.strerror}", "set VBENCH_CACHE to a folder") from error
    with lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another run is measuring on this machine: {'; '.join(holders(path)) or 'just started'}",
                "wait for it to end: two runs at once would disturb each other's results",
            ) from None
        yield


def end_orphans() -> list[int]:
    """Kill this user's processes whose vbench was killed before it could end them; returns their PIDs.

    Such a process carries the mark of its vbench in its environment. Processes started by a vbench in another
    PID namespace are left alone.
    """
    space = owner().rpartition(".")[2]
    ended = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if entry.stat().st_uid != os.geteuid() or not _is_orphan(entry, space):
                continue
            number = os.pidfd_open(int(entry.name))
            try:
                if _is_orphan(entry, space):  # still the same process
                    signal.pidfd_send_signal(number, signal.SIGKILL)
                    ended.append(int(entry.name))
            finally:
                os.close(number)
    return ended


def _is_orphan(entry: Path, space: str) -> bool:
    match = _OWNED.search((entry / "environ").read_bytes())
    return (
        match is not None and match[1].decode().endswith(f".{space}") and not owner_lives(match[1].decode())
    )


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep other processes from creating or removing session folders: one not yet locked looks abandoned."""
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _folders(home: Path) -> list[Path]:
    """The folders created by sessions; anything else there is not ours."""
    return sorted(path for path in home.glob("s*") if _FOLDER.fullmatch(path.name) and not path.is_symlink())


def _remove_unlocked(home: Path) -> list[Path]:
    mounts = _mounts()
    gone = []
    for folder in _folders(home):
        if any(mount.is_relative_to(folder.resolve()) for mount in mounts):
            continue  # what is mounted there is not ours to remove
        try:
            with (folder / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(folder)
                gone.append(folder)
        except FileNotFoundError:
            with contextlib.suppress(
                OSError
            ):  # its owner has just removed it, or was killed before it locked it
                folder.rmdir()
                gone.append(folder)
        except BlockingIOError:
            continue  # in use
    return gone


def _remove(folder: Path) -> None:
    """Remove a session's folder, its lock last: one killed meanwhile is recognized by it as any other.

    What a process that is just being killed writes there meanwhile is waited for, up to ``_DYING`` seconds.
    """
    end = time.monotonic() + _DYING
    while True:
        others = [path for path in folder.glob("*") if path.name != "lock"]
        for path in others:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
        if not any(map(os.path.lexists, others)):
            shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists() or time.monotonic() > end:
            return
        time.sleep(0.05)


def _mounts() -> list[Path]:
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
        return [
            Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split()[4])) for line in lines
        ]
    return []
