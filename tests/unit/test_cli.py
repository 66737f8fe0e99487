"""The command line as a user meets it: every bad input is one line, every command explains itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from vbench import __version__, paths
from vbench.hosts.process import owner
from vbench.layers.base import layer_classes
from vbench.workload.library import load_workloads


@dataclass(frozen=True)
class Done:
    """What a call of the command gave."""

    returncode: int
    stdout: str
    stderr: str


Vbench = Callable[..., Done]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty folder to call the command in."""
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def vbench(
    here: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., tuple[int, str, str]]
) -> Vbench:
    """Calls the command, with the tiny capsule in its cache; in this process, which saves half a second."""
    monkeypatch.chdir(here)
    monkeypatch.setenv("VBENCH_CACHE", str(whole))
    return lambda *argv: Done(*call(*argv))


@pytest.fixture
def own_cache(whole: Path, tmp_path: Path, vbench: Vbench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that the test may change."""
    shutil.copytree(whole, tmp_path / "cache", symlinks=True)
    monkeypatch.setenv("VBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


VBENCH = [sys.executable, "-m", "vbench.cli.main"]


WORKLOAD = (paths.workload_files() / "os-nullcall.toml").read_text()
PLAN = 'stacks = ["local"]\n'


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Inputs of every kind, most of them bad."""
    folder = tmp_path / "files"
    for name, text in {
        "plan.toml": PLAN,
        "broken.toml": "stacks = [",
        "key.toml": PLAN + "block = 3\n",
        "vcpus.toml": PLAN + "vcpus = 4096\n",
        "unknown-key/one.toml": WORKLOAD.replace("title =", 'titel = ""\ntitle =', 1),
        "unknown-inner/one.toml": WORKLOAD.replace("unit =", 'unitt = ""\nunit =', 1),
        "malformed/one.toml": WORKLOAD.replace("[work]", "[work", 1),
        "twice/os-nullcall.toml": WORKLOAD,
        "not-a-bundle/other": "",
        "damaged/run.json": "{",
        "damaged/samples.jsonl": "",
        "binary.toml": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "binary.toml").write_bytes(b"\xff\xfe")
    return folder


BAD = {
    "layer": (["exec", "local/nosuch", "--", "true"], "there is no layer 'nosuch'"),
    "layer-near": (["exec", "local/quemu", "--", "true"], "hint: did you mean qemu?"),
    "layer-run": (["run", "--stack", "nosuch"], "nosuch is neither a layer nor a machine"),
    "layer-doctor": (["doctor", "kmv"], "hint: did you mean kvm?"),
    "path": (["run", "--stack", "local//uml"], "is not a stack path"),
    "remote": (["exec", "alice@lab7.invalid", "--", "true"], "cannot connect to alice@lab7.invalid"),
    "workload": (["run", "-s", "local", "-w", "cpu-imt"], "did you mean cpu-int?"),
    "workload-mix": (
        ["run", "-s", "local", "-w", "web"],
        "hint: try app-nginx, or one of each kind: -w net-",
    ),
    "workload-row": (["run", "-s", "local", "-w", "cpu-int,os-nulcall"], "did you mean os-nullcall?"),
    "stack-row": (["run", "-s", "local,nosuch"], "nosuch is neither a layer nor a machine"),
    "workload-page": (["workloads", "nosuch"], "unknown workload 'nosuch'"),
    "workload-key": (["workloads", "--workloads", "unknown-key"], "one.toml: unknown key 'titel'"),
    "workload-inner": (["workloads", "--workloads", "unknown-inner"], "did you mean work.unit?"),
    "workload-malformed": (["run", "-s", "local", "--workloads", "malformed"], "malformed/one.toml: "),
    "workload-twice": (["workloads", "--workloads", "twice"], "os-nullcall is defined by both"),
    "workload-folder": (["workloads", "--workloads", "none"], "is not a directory of workloads"),
    "plan-missing": (["run", "none.toml"], "No such file"),
    "plan-malformed": (["run", "broken.toml"], "broken.toml: "),
    "plan-key": (["run", "key.toml"], "known keys: stacks"),
    "plan-bytes": (["run", "binary.toml"], "binary.toml: "),
    "plan-none": (["run"], "no stack to measure"),
    "plan-folder": (["run", "not-a-bundle"], "not-a-bundle is not a result bundle"),
    "vcpus": (["run", "vcpus.toml"], "4096 vCPUs requested"),
    "blocks": (
        ["run", "-s", "local", "--blocks", "-3"],
        "blocks: Input should be greater than or equal to 1",
    ),
    "blocks-zero": (["run", "-s", "local", "--blocks", "0"], "not 0"),
    "blocks-word": (["run", "-s", "local", "--blocks", "many"], "Invalid value for '--blocks'"),
    "blocks-quickstart": (["quickstart", "--blocks", "-1"], "Invalid value for '--blocks'"),
    "seed": (["run", "-s", "local", "--seed", "-1"], "seed: "),
    "out-below-file": (["run", "-s", "local", "--out", "plan.toml/below"], "Not a directory"),
    "out-file": (["run", "-s", "local", "--out", "plan.toml"], "plan.toml"),
    "out-taken": (["run", "-s", "local", "--out", "damaged"], "already holds a result bundle"),
    "out-read-only": (["run", "-s", "local", "--out", "/proc/self/here"], "cannot create /proc/self/here"),
    "report-missing": (["report", "none"], "none is not a result bundle"),
    "report-other": (["report", "not-a-bundle"], "it has no run.json"),
    "report-damaged": (["report", "damaged"], "run.json"),
    "verify-missing": (["verify", "none"], "none is not a result bundle"),
    "blocks-missing": (["blocks", "none"], "none is not a result bundle"),
    "blocks-within": (["blocks", "none", "--within", "2"], "'2' is not a share; write 2%"),
    "resume-missing": (["resume", "none"], "none is not a result bundle"),
    "plot-missing": (["plot", "none", "-o", "x.png"], "none is not a result bundle"),
    "plot-kind": (["plot", "none", "-o", "x.jpeg"], "is a .png, .svg or .pdf file"),
    "import-missing": (["capsule", "import", "none"], "is not an exported capsule: No such file"),
    "import-other": (["capsule", "import", "plan.toml"], "plan.toml is not an exported capsule"),
    "export-below-file": (["capsule", "export", "plan.toml/below"], "cannot write"),
    "shell": (["shell", "local"], "a shell needs a terminal"),
    "command": (["nosuch"], "No such command 'nosuch'"),
    "option": (["layers", "--nosuch"], "No such option: --nosuch"),
    "exec-nothing": (["exec", "local"], "Missing argument"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(vbench: Vbench, files: Path, here: Path, case: str) -> None:
    argv, says = BAD[case]
    inputs = {str(path.relative_to(files)) for path in files.rglob("*")}
    given = [str(files / word) if word in inputs or word.startswith("plan.toml/") else word for word in argv]
    done = vbench(*given)
    assert done.returncode in {1, 2}
    assert done.stdout == ""
    first, *more = done.stderr.splitlines()
    assert first.startswith("vbench: ")
    assert not more or (len(more) == 1 and more[0].startswith("  hint: "))
    assert says in done.stderr
    assert list(here.iterdir()) == []


def test_bad_input_to_a_real_process(here: Path) -> None:
    argv = [*VBENCH, "exec", "local/nosuch", "--", "true"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("vbench: there is no layer 'nosuch'\n  hint: known layers: ")
    assert done.stderr.count("\n") == 2


PLAIN = {
    "asked for": {"PYTHONIOENCODING": "ascii"},
    "the locale's": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
NO_LAYER = {
    "asked for": "vbench: lecal is neither a layer nor a machine",
    "the locale's": "vbench: there is no layer 'l",  # that locale cannot read it as a name of a machine
}
BUSY = str(Path(__file__).parents[2] / "notebooks/busy-machine")


@pytest.mark.parametrize("why", PLAIN)
@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["catalog", "--fr"], "annees              noyau invite"),
        (["catalog", "coLinux"], "2004 - 2011"),
        (["layers", "local/uml", "--bundle", BUSY], "User Mode Linux    x119 |"),
        (["run", "-s", "l\N{LATIN SMALL LETTER E WITH GRAVE}cal"], NO_LAYER),
    ],
)
def test_an_output_without_accents_is_no_trouble(
    here: Path, why: str, argv: list[str], says: str | dict[str, str]
) -> None:
    keep = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))
    }
    env = {**keep, **PLAIN[why], "COLUMNS": "150"}
    done = subprocess.run([*VBENCH, *argv], capture_output=True, env=env, cwd=here, check=False)
    out, err = done.stdout.decode("ascii"), done.stderr.decode("ascii")
    assert "Traceback" not in err
    assert done.returncode == (2 if argv[0] == "run" else 0)
    assert (says if isinstance(says, str) else says[why]) in out + err


def test_no_capsule(vbench: Vbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VBENCH_CACHE", str(tmp_path / "other"))
    for argv in (["exec", "local", "--", "true"], ["run", "-s", "local"], ["capsule", "show"]):
        done = vbench(*argv)
        assert done.returncode == 1
        assert done.stderr.splitlines()[0].startswith("vbench: no capsule has been built here")
        assert "  hint: build one with: vbench capsule build" in done.stderr
    rows = json.loads(vbench("doctor", "--json").stdout)
    assert {row["hint"] for row in rows} == {"vbench capsule build"}


def test_cache_that_cannot_be_written(
    vbench: Vbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VBENCH_CACHE", f"{tmp_path}/file/below")
    done = vbench("capsule", "import", tmp_path / "file")
    assert done.returncode == 1
    assert done.stderr.startswith(f"vbench: cannot write to {tmp_path}/file/below")


COMMANDS = (
    "doctor layers workloads run resume report plot verify exec shell capsule clean quickstart".split()  # noqa: SIM905
)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["capsule", "build"]])
def test_help(vbench: Vbench, command: list[str]) -> None:
    done = vbench(*command, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "Usage:" in done.stdout
    if not command:
        assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_version(vbench: Vbench) -> None:
    assert vbench("--version").stdout == f"vbench {__version__}\n"


def test_json(vbench: Vbench) -> None:
    layers = json.loads(vbench("layers", "--json").stdout)
    assert [row["layer"] for row in layers] == list(layer_classes())
    known = load_workloads()
    assert [row["workload"] for row in json.loads(vbench("workloads", "--json").stdout)] == list(known)
    (page,) = json.loads(vbench("workloads", "os-nullcall", "--json").stdout)
    assert page["digest"] == known["os-nullcall"].digest
    shown = json.loads(vbench("capsule", "show", "--json").stdout)
    assert set(shown["programs"]) == {"sha256sum", "true", "env", "mke2fs"}
    doctor = vbench("doctor", "--json")
    rows = json.loads(doctor.stdout)
    assert doctor.returncode == 0
    assert [row["layer"] for row in rows] == list(layer_classes())
    assert all(row["available"] or row["detail"].startswith("because ") for row in rows)


def test_tables(vbench: Vbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for command in ("layers", "workloads", "doctor"):
        done = vbench(command)
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) > 3
    assert all(f"\n{name} " in vbench("layers").stdout for name in layer_classes())


# --- exec on the bare host, which needs neither root nor a guest


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_exec_gives_the_command_s_exit_code(own_cache: Path, script: str, code: int) -> None:
    argv = [*VBENCH, "exec", "local", "--", "sh", "-c", f"echo out; echo err >&2; {script}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (code, "out\n", "err\n")


def test_exec_of_nothing_known(own_cache: Path, vbench: Vbench) -> None:
    done = vbench("exec", "local", "nosuch-program")
    assert done.returncode == 127
    assert "nosuch-program" in done.stderr


def test_exec_hands_input_on(own_cache: Path) -> None:
    argv = [*VBENCH, "exec", "local", "--", "cat"]
    data = bytes(range(256)) * 1000
    assert subprocess.run(argv, input=data, capture_output=True, check=True).stdout == data
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", *argv]
    done = subprocess.run(closed, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_exec(own_cache: Path, tmp_path: Path, sig: signal.Signals) -> None:
    pid = tmp_path / "pid"
    argv = ["exec", "local", "--", "sh", "-c", 'echo $$ > "$1"; exec sleep 1000', "sh", str(pid)]
    process = subprocess.Popen([*VBENCH, *argv], stderr=subprocess.PIPE, text=True)
    with process:
        while not pid.exists() or not pid.read_text().endswith("\n"):
            assert process.poll() is None
        process.send_signal(sig)
        try:
            _, stderr = process.communicate(timeout=20)
        finally:
            process.kill()  # or leaving the block would wait for it
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
    assert list((own_cache / "sessions").glob("s*")) == []


def test_clean(own_cache: Path, vbench: Vbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vbench("clean").stdout == "nothing to remove\n"
    stale = [own_cache / "sessions/s01234567", own_cache / "capsules/.build-1"]
    for folder in stale:
        folder.mkdir(parents=True)
    assert vbench("clean").stdout.splitlines() == [f"removed {folder}" for folder in stale]
    pid, started, namespace = owner().split(".")
    memory = tmp_path / f"vbench-{pid}.{int(started) - 1}.{namespace}-abcdefgh"
    memory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert vbench("clean").stdout == f"removed {memory}\n"
    (built,) = (own_cache / "capsules").glob("[!.]*")
    assert vbench("clean", "--capsules").stdout == f"removed {built}\n"
    assert "no capsule has been built" in vbench("capsule", "show").stderr
