"""A capsule of four programs, built once, for tests that need one but measure nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from vbench import paths


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
