"""The shell scripts of this repository, under shellcheck, and how they reach hosts that have no such file."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

import vbench
from vbench.hosts.command import script
from vbench.hosts.ssh.wrapper import wrap

ROOT = Path(vbench.__file__).parents[1]
SCRIPTS = [*sorted((ROOT / "vbench").rglob("*.sh")), ROOT / "dev", ROOT / ".ci/run"]
# Part of the capsule: a changed byte in them makes another capsule, so what is only style stays.
BOOT = {
    ROOT / "vbench/capsule/initrd-init": "SC2086",  # a name from /dev or /proc
    ROOT / "vbench/capsule/rc": "SC1091",  # there is no seed before a guest is given one
}

needs_shellcheck = pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck here")


def complaints(text: str, *options: str) -> str:
    done = subprocess.run(
        ["shellcheck", "--shell=sh", *options, "-"], input=text, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


@needs_shellcheck
@pytest.mark.parametrize("path", [*SCRIPTS, *BOOT], ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_finds_nothing(path: Path) -> None:
    if path.exists() or path.name != "run":  # .ci comes with a clone only
        options = [f"--exclude={BOOT[path]}"] if path in BOOT else []
        assert complaints(path.read_text(), *options) == ""


@needs_shellcheck
@pytest.mark.parametrize("size", [0, 5])
def test_shellcheck_finds_nothing_in_what_wraps_a_command(size: int) -> None:
    assert complaints(f"#!/bin/sh\n{wrap(('a b', '$c'), 'token', size)}\n", "--exclude=SC2016,SC2034") == ""


def test_a_script_goes_without_its_comments(tmp_path: Path) -> None:
    (tmp_path / "x.sh").write_text("#!/bin/sh\n# why\necho '#1' # $1\n    # deeper\nexit 3\n")
    assert script(tmp_path / "x.sh") == "echo '#1' # $1\nexit 3\n"


def test_no_script_hides_in_a_string() -> None:
    """Where shellcheck would not see it. Docstrings are prose."""
    begins = {"set", "mount", "while", "for", "if", "exec", "trap", "echo"}
    for path in sorted((ROOT / "vbench").rglob("*.py")):
        tree = ast.parse(path.read_text())
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                lines = [line.split() for line in node.value.splitlines() if line.split()]
                assert len(lines) <= 3 or not begins & {words[0] for words in lines}, f"{path}: {lines[0]}"
