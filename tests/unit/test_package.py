"""What a user installs: the base alone reads bundles, and says in one line which extra a command needs."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from vbench import __version__, notebook
from vbench.cli import capsule
from vbench.cli import main as cli
from vbench.errors import EXTRAS

CHECKOUT = Path(cli.__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())

HARNESS = [
    ["why", "testbed/kvm", "os-nullcall"],
    ["quickstart", "--blocks", "1"],
    ["run", "--stack", "local", "--workload", "cpu-int"],
    ["resume", "small"],
    ["replay", "small"],
    ["doctor"],
    ["layers"],
    ["layers", "local/uml"],
    ["exec", "local", "--", "true"],
    ["shell", "local"],
    ["identify", "local"],
    ["work"],
]
"""Commands that open layers, or look at them."""
BASE = [
    ["report", "small"],
    ["plot", "small", "--list"],
    ["plot", "small", "-o", "figure.png"],
    ["compare", "small", "small"],
    ["blocks", "small"],
    ["verify", "small"],
    ["advise", "small", "--workload-mix", "cpu-int=1"],
    ["catalog", "KVM"],
    ["layers", "local/uml", "chroot", "--bundle", "small"],
    ["layers", "local/uml", "chroot", "--together", "--bundle", "small"],
    ["workloads"],
    ["notebook", "--list"],
    ["clean"],
]
"""Commands that work without."""
OTHERS = {
    "capsule build": (["capsule", "build"], "mmdebstrap"),
    "capsule show": (["capsule", "show"], "no capsule has been built"),
    "capsule export": (["capsule", "export", "file"], "no capsule has been built"),
    "capsule import": (["capsule", "import", "file"], "is not an exported capsule"),
    "no bundle": (["layers", "local/qemu", "--bundle", "small"], "local/qemu was not measured"),
    "pdf": (["report", "small", "--pdf"], "vbench-layers[pdf]"),
    "pair": (["pair", "small", "small"], "none of these bundles declares a machine with a baseline"),
    "notebook": (["notebook", "1"], "this needs the extra 'notebook' (jupyterlab is not installed): "),
}
"""Commands that have something else to say here, or need another extra."""

# Every command in one process: modules of the extras are not found there, as if nobody had installed them.
SCRIPT = """
import contextlib, io, json, sys, traceback
from importlib.machinery import PathFinder

class Installed:
    find_distributions = PathFinder.find_distributions

    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in absent else PathFinder.find_spec(name, path, target)

class Terminal(io.StringIO):
    def isatty(self):
        return True

absent, commands = json.load(sys.stdin)
sys.meta_path[:] = [Installed if each is PathFinder else each for each in sys.meta_path]
from vbench.cli.main import main

done = []
for argv in commands:
    out, err, code = io.StringIO(), io.StringIO(), None
    sys.argv, sys.stdin = ["vbench", *argv], Terminal()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
    done.append([code, out.getvalue(), err.getvalue()])
json.dump(done, sys.stdout)
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int | None, str, str]]:
    """What each command did in an install without extras: exit code, output, error output."""
    here = tmp_path_factory.mktemp("base")
    shutil.copytree(notebook.busy_machine(), here / "small")
    commands = [*HARNESS, *BASE, *(argv for argv, _ in OTHERS.values())]
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([[name for names in EXTRAS.values() for name in names], commands]),
        env={"VBENCH_CACHE": f"{here}/cache", "HOME": str(here), "PATH": f"{here}/none", "COLUMNS": "100"},
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert not (here / "vbench-notebooks").exists()
    return {" ".join(argv): each for argv, each in zip(commands, json.loads(ran.stdout), strict=True)}


def names(app: Any) -> set[str]:
    """Commands and groups of commands of an application, and of those without a name of their own."""
    found = {each.name or each.callback.__name__ for each in app.registered_commands}
    for group in app.registered_groups:
        found |= {group.name} if isinstance(group.name, str) else names(group.typer_instance)
    return found


def test_every_command_is_tried() -> None:
    tried = [*HARNESS, *BASE, *(argv for argv, _ in OTHERS.values())]
    assert {argv[0] for argv in tried} == names(cli.app)
    assert {argv[1] for argv in tried if argv[0] == "capsule"} == names(capsule.app)


@pytest.mark.parametrize("argv", HARNESS, ids=" ".join)
def test_a_command_that_opens_layers_names_the_extra(done: dict[str, Any], argv: list[str]) -> None:
    code, out, err = done[" ".join(argv)]
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert re.fullmatch(
        r"vbench: this needs the extra 'harness' \((psutil|cryptography|paramiko) is not installed\): "
        r"pip install 'vbench-layers\[harness\]', or '\.\[harness\]' in a checkout",
        line,
    )


@pytest.mark.parametrize("argv", BASE, ids=" ".join)
def test_a_command_that_reads_works_without_extras(done: dict[str, Any], argv: list[str]) -> None:
    code, out, err = done[" ".join(argv)]
    assert (code, err) == (0, "")
    assert out


@pytest.mark.parametrize("case", OTHERS)
def test_other_commands_say_what_is_wrong(done: dict[str, Any], case: str) -> None:
    argv, says = OTHERS[case]
    code, _, err = done[" ".join(argv)]
    assert code in {1, 2}
    first, *more = err.splitlines()
    assert first.startswith("vbench: ")
    assert not more or (len(more) == 1 and more[0].startswith("  hint: "))
    assert says in err


@pytest.mark.parametrize("name", ["numpy", "vbench.nosuch", "paramiko.nosuch", None])
def test_any_other_missing_module_is_a_fault_and_seen(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise ModuleNotFoundError("no such module", name=name)

    monkeypatch.setattr(cli, "app", broken)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(ModuleNotFoundError, match="no such module"):
        cli.main()


def test_extras_are_those_of_the_package() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        assert [re.split(r"[<>=]", each)[0] for each in extras[extra]] == [*modules]


def test_the_licence_comes_with_the_package() -> None:
    assert PROJECT["project"]["license"] == "MIT"
    assert PROJECT["project"]["license-files"] == ["LICENSE"]
    (setuptools,) = PROJECT["build-system"]["requires"]
    assert int(setuptools.removeprefix("setuptools>=")) >= 77  # older ones do not know these keys
    assert (
        (CHECKOUT / "LICENSE")
        .read_text()
        .startswith("MIT License\n\nCopyright (c) 2026 The vbench authors\n")
    )


def test_the_citation_is_of_this_version() -> None:
    lines = (CHECKOUT / "CITATION.cff").read_text().splitlines()
    facts = dict(line.split(": ", 1) for line in lines if re.match(r"[a-z-]+: \S", line))
    assert facts["cff-version"] == "1.2.0"
    assert facts["version"] == __version__ == PROJECT["project"]["version"]
    assert facts["license"] == PROJECT["project"]["license"]
    assert {"message", "title", "abstract"} <= {*facts}
    assert "  - name: The vbench authors" in lines
