"""Folders of working files: one a process, locked while in use, removed by whoever comes next."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vbench.errors import VbenchError
from vbench.stack import remove_stale, session

HOLD = """
import sys
from pathlib import Path
from vbench.stack import session
with session(Path(sys.argv[1])) as folder:
    (folder / "scratch").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""
# Many processes that come and go, each looking for what the others may have left.
CHURN = """
import sys
from pathlib import Path
from vbench.stack import session
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
