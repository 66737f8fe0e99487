"""The example distribution: a technique from outside, installed by pip, opened and measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vbench import load, paths

EXAMPLE = Path(__file__).parents[2] / "examples/vbench-layer-unshare"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the example in it, in which Python looks for packages, as long as the test runs."""
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(EXAMPLE, source)  # building writes into it
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    argv += ["--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(target), *sys.path]))
    return target


def test_a_technique_is_one_file_and_one_line(
    installed: Path,
    tmp_path: Path,
    vbench: Command,
    can: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    can("chroot")  # it needs the same
    assert "unshare" in vbench("layers").stdout
    (row,) = [row for row in json.loads(vbench("doctor", "--json").stdout) if row["layer"] == "unshare"]
    assert (row["available"], row["technique"]) == (True, "isolator")
    assert vbench("exec", "unshare", "--", "cat", "/etc/debian_version").stdout.startswith("12")

    folder = tmp_path / "out"
    ran = vbench("run", "--stack", "unshare", "--workload", "os-nullcall", "--blocks", "2", "--out", folder)
    assert ran.returncode == 0, ran.stderr
    run = load(folder)
    assert {*run.samples["stack"]} == {"local", "local/unshare"}
    assert run.info.techniques["local/unshare"] == "isolator"
    assert run.info.failures == []
    assert not [
        note for note in run.info.notes if "path" in note.text
    ]  # its disk and network are its parent's
    assert (run.overheads()["ratio"].between(0.5, 2)).all()

    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.chdir(paths.workload_files().parent)
    assert "unshare is neither a layer nor a machine" in vbench("exec", "unshare", "--", "true").stderr
    drawn = vbench("layers", "local/unshare", "--bundle", folder)  # where it is not installed
    assert "plain namespaces" in drawn.stdout, drawn.stderr
