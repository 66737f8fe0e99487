"""Folders of working files: one a process, locked while in use, removed by whoever comes next."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from vbench.cli.main import app
from vbench.errors import UsageError, VbenchError
from vbench.hosts.process import living, start
from vbench.hosts.workspace import end_orphans, measuring, remove_stale, session

HOLD = """
import sys
from pathlib import Path
from vbench.hosts.workspace import session
with session(Path(sys.argv[1])) as folder:
    (folder / "scratch").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""
# Many processes that come and go, each looking for what the others may have left.
CHURN = """
import sys
from pathlib import Path
from vbench.hosts.workspace import session
for _ in range(60):
    with session(Path(sys.argv[1])) as folder:
        (folder / "scratch").mkdir()
        (folder / "scratch/file").write_text("x")
        assert (folder / "lock").exists()
"""


def python(script: str, base: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, base],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_gone_at_its_end(tmp_path: Path) -> None:
    with session(tmp_path) as folder:
        (folder / "scratch").mkdir()
        assert remove_stale(tmp_path / "sessions") == []
        assert (folder / "scratch").is_dir()
        with session(tmp_path) as other:
            assert other != folder
    assert list((tmp_path / "sessions").glob("s*")) == []
    with pytest.raises(ZeroDivisionError), session(tmp_path) as folder:
        raise ZeroDivisionError
    assert not folder.exists()


def test_a_child_that_nothing_else_ends_is_ended_with_the_last_session(tmp_path: Path) -> None:
    """As after an interrupt between its start and the block that ends it; a killed shell makes no folder anew."""
    before = start(("sleep", "100"), stdin=subprocess.DEVNULL)
    with session(tmp_path) as folder:
        again = f'while :; do mkdir -p "{folder}/scratch/x"; done'
        with session(tmp_path):
            lost = start(("sh", "-c", again), stdin=subprocess.DEVNULL)
            while not (folder / "scratch/x").exists():
                time.sleep(0.01)
        assert living(lost.pid)
    try:
        assert not folder.exists()
        assert not living(lost.pid)
        assert living(before.pid)  # started by somebody else in this process
    finally:
        before.end()
        lost.end()


def test_of_a_killed_process(tmp_path: Path) -> None:
    process = python(HOLD, tmp_path)
    assert process.stdout is not None
    with process:
        folder = Path(process.stdout.readline().strip())
        assert remove_stale(tmp_path / "sessions") == []
        process.send_signal(signal.SIGKILL)
    assert folder.is_dir()
    with session(tmp_path):
        assert not folder.exists()


def test_of_a_process_that_is_still_dying_when_the_next_begins(tmp_path: Path) -> None:
    """It holds its lock until it is gone, so the next one takes it for one in use, and looks again at its own end."""
    stale = tmp_path / "sessions/s12345678"
    stale.mkdir(parents=True)
    (stale / "seed").write_text("x")
    with contextlib.ExitStack() as dying:
        lock = dying.enter_context((stale / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        with session(tmp_path):
            assert stale.exists()
            dying.close()
        assert not stale.exists()


def test_what_is_written_while_it_is_removed_goes_too(tmp_path: Path) -> None:
    """By a process that is just being killed."""

    def write(into: Path) -> None:
        end, number = time.monotonic() + 0.3, 0
        with contextlib.suppress(FileNotFoundError):
            while time.monotonic() < end:
                (into / f"{threading.get_ident()}-{number}").touch()
                number += 1

    with session(tmp_path) as folder:
        (folder / "scratch").mkdir()
        for number in range(3000):
            (folder / "scratch" / str(number)).touch()
        writers = [threading.Thread(target=write, args=[folder / "scratch"]) for _ in range(2)]
        for writer in writers:
            writer.start()
    assert not folder.exists()
    for writer in writers:
        writer.join()


def test_killed_while_it_removes_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whatever file of it that is, the next session removes the rest."""
    unlink = os.unlink
    left = 0
    folder = tmp_path

    def killed(path: str, *, dir_fd: int | None = None) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        unlink(path, dir_fd=dir_fd)

    def leave() -> None:
        nonlocal folder
        with monkeypatch.context() as patch, session(tmp_path) as folder:
            (folder / "sub").mkdir()
            for name in ("a", "z", "sub/file"):
                (folder / name).touch()
            patch.setattr(os, "unlink", killed)

    for files in range(4):
        left = files
        with pytest.raises(KeyboardInterrupt):
            leave()
        assert folder.is_dir()
        with session(tmp_path):
            assert not folder.exists(), files


def test_none_yet(tmp_path: Path) -> None:
    assert remove_stale(tmp_path / "sessions") == []
    assert list(tmp_path.iterdir()) == []


def test_many_at_once(tmp_path: Path) -> None:
    processes = [python(CHURN, tmp_path) for _ in range(6)]
    errors = [process.communicate()[1] for process in processes]
    assert errors == [""] * 6
    assert list((tmp_path / "sessions").glob("s*")) == []


def test_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(VbenchError, match=r"cannot write to .*: Not a directory") as caught,
        session(tmp_path / "file"),
    ):
        pytest.fail("it was made")
    assert "VBENCH_CACHE" in (caught.value.hint or "")


# --- what killed processes leave, and whose turn it is

ORPHAN = """
import sys
from vbench.hosts.local import LocalHost
with LocalHost().spawn(["sh", "-c", "sleep 1000 & echo $!; wait"]) as process:
    while not process.tail().strip():
        pass
    print(process.tail().strip(), flush=True)
    sys.stdin.read()
"""
TURN = """
import sys
from vbench.hosts.workspace import measuring
with measuring(alone=sys.argv[1] == "alone"):
    print("turn", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(script: str, *argv: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", script, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_grandchildren_of_a_killed_harness_are_ended_and_nobody_else(tmp_path: Path) -> None:
    """The kernel ends children with the harness; theirs are found by their mark."""
    mine = subprocess.Popen(["sleep", "1000"])
    with holding(ORPHAN) as harness, holding(ORPHAN) as other:
        assert harness.stdout is not None
        assert other.stdout is not None
        orphan, theirs = int(harness.stdout.readline()), int(other.stdout.readline())
        assert end_orphans() == []  # both harnesses live
        harness.kill()
        harness.wait()
        assert alive(orphan)
        with session(tmp_path):
            pass
        end = time.monotonic() + 5
        while alive(orphan):
            assert time.monotonic() < end
        assert alive(theirs)
        assert alive(mine.pid)
    mine.kill()
    mine.wait()
    end_orphans()


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "sessions"
    (home / "stuff").mkdir(parents=True)
    (home / "stuff/file").write_text("mine")
    (home / "s-notes").write_text("mine")
    (home / "slinkedto").symlink_to(home / "stuff")
    (home / "sabcdefgh").mkdir()
    (home / "sabcdefgh/file").write_text("mine: no lock in it, so no session made it")
    (home / "sempty000").mkdir()  # its process was killed before it could lock it
    assert remove_stale(home) == [home / "sempty000"]
    assert (home / "stuff/file").read_text() == "mine"
    assert (home / "slinkedto").is_symlink()
    assert (home / "sabcdefgh/file").exists()
    assert not (home / "stuff/lock").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_what_is_mounted_in_a_stale_folder_is_not_removed(tmp_path: Path) -> None:
    process = python(HOLD, tmp_path)
    assert process.stdout is not None
    with process:
        folder = Path(process.stdout.readline().strip())
        process.kill()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    (folder / "mnt").mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "precious", folder / "mnt"], check=True)
    try:
        assert remove_stale(tmp_path / "sessions") == []
        assert (tmp_path / "precious/file").exists()
    finally:
        subprocess.run(["umount", folder / "mnt"], check=True)
    assert remove_stale(tmp_path / "sessions") == [folder]


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [("alone", True, False), ("alone", False, False), ("shared", True, False), ("shared", False, True)],
)
def test_one_run_by_the_wall_clock_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: bool, both: bool
) -> None:
    monkeypatch.setenv("VBENCH_CACHE", str(tmp_path))
    with holding(TURN, first) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "turn\n"
        if both:
            with measuring(alone=second):
                pass
        else:
            with (
                pytest.raises(UsageError, match=f"another run is measuring.*process {other.pid} "),
                measuring(alone=second),
            ):
                pytest.fail("both measure")
    with measuring(alone=True):  # however the other one ended
        pass


def test_nothing_is_removed_under_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VBENCH_CACHE", str(tmp_path))
    capsules = tmp_path / "capsules"
    (capsules / "0123").mkdir(parents=True)
    with session():
        done = CliRunner().invoke(app, ["clean", "--capsules"])
        assert isinstance(done.exception, UsageError)
        assert f"vbench is in use: process {os.getpid()} " in done.exception.message
        assert (capsules / "0123").is_dir()
        assert CliRunner().invoke(app, ["clean"]).exit_code == 0
    assert CliRunner().invoke(app, ["clean", "--capsules"]).exit_code == 0
    assert not (capsules / "0123").exists()


def test_a_complete_run_is_resumed_without_a_session_and_tidies_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A harness that is killed when all is measured leaves its folder, and nothing to measure."""
    monkeypatch.setenv("VBENCH_CACHE", str(tmp_path))
    stale = tmp_path / "sessions/s12345678"
    stale.mkdir(parents=True)
    (stale / "lock").touch()
    bundle = shutil.copytree(Path(__file__).parents[2] / "notebooks/busy-machine", tmp_path / "bundle")
    done = CliRunner().invoke(app, ["resume", str(bundle)])
    assert "is already complete" in done.output
    assert not stale.exists()
