"""A capsule of four programs, built once, for tests that need one but measure nothing; the command, called."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny

from vbench import paths
from vbench.cli.main import main

# A shell starts what it runs in the background with SIGINT ignored, and that is handed on: a command that a test
# interrupts would never notice.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its root tree in a tar archive."""
    return tiny.archive(tmp_path_factory.mktemp("tiny") / "rootfs.tar")


@pytest.fixture(scope="session")
def whole(archive: Path) -> Path:
    """A cache with the capsule in it."""
    home = archive.parent / "whole"
    argv = [sys.executable, tiny.__file__, str(archive), str(paths.workload_files() / "src"), "0"]
    subprocess.run(argv, check=True, env={**os.environ, "VBENCH_CACHE": str(home)}, stdout=subprocess.DEVNULL)
    return home


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Calls the command in this process, which saves half a second: exit code, output, error output."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*argv: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vbench", *map(str, argv)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capfd.readouterr()
        return int(caught.value.code or 0), out, err

    yield run
    signal.signal(signal.SIGTERM, before)
