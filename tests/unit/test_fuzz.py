"""Plans, workload files and bundles from strangers: whatever they hold, one clear error or none.

No traceback, no hang, nothing written outside the bundle's folder, nothing executed and nobody called, as the
interpreter's own audit events tell. ``VBENCH_FUZZ`` says how many files of each kind are made, each from a number of
its own, which a failure names; to make 10,000 of each: ``VBENCH_FUZZ=10000 pytest tests/unit/test_fuzz.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bundles import SCHEMA_1, invocations, planned
from typer.testing import CliRunner

import vbench
from vbench import paths
from vbench.bundle.journal import Journal, _seal
from vbench.bundle.store import Bundle
from vbench.bundle.verify import examine
from vbench.cli.main import app
from vbench.errors import VbenchError
from vbench.harness.plan import load_plan, schedule, with_baselines
from vbench.harness.progress import read_so_far
from vbench.harness.run import plan_of
from vbench.layers.roots import cpus_for
from vbench.workload import extract
from vbench.workload.library import load_workload, load_workloads

COUNT = int(os.environ.get("VBENCH_FUZZ", "150"))
PATIENCE_S = 30
LIBRARY = load_workloads()
SHIPPED = sorted(paths.workload_files().glob("*.toml"))


def fuzz(one: Callable[[random.Random], None], count: int = COUNT) -> None:
    """Try ``count`` files; the number of the first one that fails is told."""
    first = int(os.environ.get("VBENCH_FUZZ_FIRST", "0"))
    for number in range(first, first + count):
        try:
            one(random.Random(number))
        except BaseException as error:
            error.add_note(f"file {number}: VBENCH_FUZZ=1 VBENCH_FUZZ_FIRST={number}")
            raise


class Hang(BaseException):
    """It took too long; no handler of errors catches this."""


class Warden:
    """What is done while it watches: writing outside of ``allowed``, starting programs, calling others."""

    allowed: Path | None = None
    seen: list[str] = []  # noqa: RUF012 - there is one

    @classmethod
    def audit(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if cls.allowed is None:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                return
            cls.check(event, path, follow=not flags & os.O_NOFOLLOW)
        elif event in {"os.rename", "os.link", "os.symlink"}:
            cls.check(event, arguments[1], follow=False)
        elif event in {
            "os.remove",
            "os.mkdir",
            "os.rmdir",
            "os.truncate",
            "os.chmod",
            "os.chown",
            "shutil.rmtree",
        }:
            cls.check(event, arguments[0], follow=event in {"os.truncate", "os.chmod", "os.chown"})
        elif event in {
            "subprocess.Popen",
            "os.system",
            "os.exec",
            "os.posix_spawn",
            "os.fork",
            "socket.connect",
        }:
            cls.seen.append(f"{event} {arguments!r:.200}")

    @classmethod
    def check(cls, event: str, path: Any, *, follow: bool) -> None:
        text = os.fsdecode(path) if not isinstance(path, int) else ""
        real = (
            os.path.realpath(text) if follow else f"{os.path.realpath(Path(text).parent)}/{Path(text).name}"
        )
        assert cls.allowed is not None
        if text and text != os.devnull and not Path(real).is_relative_to(cls.allowed):
            cls.seen.append(f"{event} {text}")


sys.addaudithook(Warden.audit)
sys.dont_write_bytecode = True  # of modules that are imported in the midst, in a fresh clone


def alarm(*_: object) -> None:
    raise Hang


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """What is done in the block must end soon, with no error but a clear one, and leave all else alone."""
    outer = signal.getitimer(signal.ITIMER_REAL)[0]  # the whole test's time limit
    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S, 1)  # again: a callback of C code may swallow the first
    Warden.seen.clear()
    Warden.allowed = Path(os.path.realpath(folder))
    said = "nothing"
    try:
        yield
    except VbenchError as error:
        said = error.message
    finally:
        Warden.allowed = None
        signal.setitimer(signal.ITIMER_REAL, outer)
        signal.signal(signal.SIGALRM, before)
    assert said
    assert len(said) < 3000
    assert "Errno" not in said
    assert Warden.seen == []


# --- what strangers write

ODD = [
    *(
        "",
        "\0",
        "../../../../tmp/x",
        "/etc/passwd",
        "$(touch /tmp/x)",
        "`id`",
        "; id",
        "-rf",
        "--help",
        "\x1b]0;x\x07",
    ),
    *(
        "<script>alert(1)</script>",
        "{work}",
        "{{",
        "}",
        "{0}",
        "{a.b}",
        "@fio",
        "@../../bin/sh",
        "@@",
        "%s%n",
        "A'",
    ),
    *(
        "a" * 5000,
        "\u202egnp.exe",
        "\U0001f600",
        "\ud800",
        "local",
        "local/uml",
        "local/" * 40,
        "chroot/" * 300,
    ),
    *("x@y", "root@[::1]:22", "quick", "os-nullcall:", "mem-latency:kib=64", "mem-latency:kib=" + "9" * 5000),
    *(
        "mem-latency:kib=nan",
        "(a+)+$",
        "(" * 200,
        "(a{1,999}){1,999}",
        "[",
        "(?P<x>.)(?P=x)",
        r"\d{9999999999}",
    ),
    *("wall", "nan", "1e999", "null", "\r\n", "\u2028", "'" * 3, '"', "\\"),
]
NUMBERS = [
    0,
    1,
    -1,
    3,
    2**31,
    2**63,
    2**64,
    10**30,
    10**4000,
    -(10**400),
    0.5,
    1e308,
    -0.0,
    float("nan"),
    float("inf"),
]


def odd(chance: random.Random, depth: int = 0) -> Any:
    """Some value of a document."""
    kind = chance.randrange(10 if depth < 3 else 7)
    if kind < 3:
        return text(chance)
    if kind < 5:
        return chance.choice(NUMBERS)
    if kind < 7:
        return chance.choice([True, False, None, chance.randrange(-3, 30), chance.random()])
    if kind == 7:
        return [odd(chance, depth + 1)] * chance.choice([1, 300] if depth == 0 else [1, 3])
    if kind == 8:
        return [odd(chance, depth + 1) for _ in range(chance.randrange(5))]
    return {text(chance): odd(chance, depth + 1) for _ in range(chance.randrange(4))}


def text(chance: random.Random) -> str:
    """Some text."""
    if chance.random() < 0.7:
        return chance.choice(ODD)
    return "".join(
        chr(chance.choice([chance.randrange(32, 127), chance.randrange(0xD800)])) for _ in range(9)
    )


def toml(value: Any) -> str:
    """A value as TOML has it, or nearly so."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, int):
        return hex(value) if abs(value) > 10**100 else str(value)
    return str(value) if isinstance(value, float) else json.dumps(value)


def table(chance: random.Random, keys: list[str]) -> bytes:
    """A file of keys and values."""
    lines = []
    for _ in range(chance.randrange(8)):
        key = chance.choice(keys) if chance.random() < 0.8 else json.dumps(text(chance))
        match chance.randrange(12):
            case 0:
                lines.append(f"[{key}]")
            case 1:
                lines.append(f"[[{key}]]")
            case 2:
                lines.append(f"{key} = {chance.choice(['[', '[[1,', '{a=']) * chance.randrange(1500)}")
            case 3:
                lines.append(f"{'.'.join([key] * chance.randrange(1, 400))} = 1")
            case _:
                lines.append(f"{key} = {toml(odd(chance))}")
    return "\n".join(lines).encode(errors="replace")


def spoiled(origin: bytes, chance: random.Random) -> bytes:
    """Bytes in which something is changed, left out, doubled or moved."""
    data = bytearray(origin)
    for _ in range(chance.randrange(1, 4)):
        start, size = chance.randrange(len(data) + 1), chance.choice([1, 1, 2, 10, 200])
        part = data[start : start + size]
        match chance.randrange(5):
            case 0:
                del data[start : start + size]
            case 1:
                data[start:start] = part * chance.choice([1, 2, 50])
            case 2:
                data[start : start + size] = chance.randbytes(len(part))
            case 3:
                place = chance.randrange(len(data) + 1)
                data[place:place] = part
            case 4:
                odd = [
                    b"\0",
                    b"'",
                    b'"',
                    b"\n",
                    b"[",
                    b"{",
                    b"}",
                    b"9" * 400,
                    b"-",
                    b"1e400",
                    b"\xff",
                    b"null",
                    b"NaN",
                ]
                data[start:start] = chance.choice(odd)
    return bytes(data)


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    """A folder of folders, one a file."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


PLAN = b"""stacks = ["local/chroot", "local/uml", "local/uml/chroot"]
workloads = ["cpu-int", "os-nullcall"]
blocks = 12
seed = 7
vcpus = 1
memory_mib = 512

[[sweep]]
workload = "mem-latency"
kib = [16, 256]
"""
PLAN_KEYS = ["stacks", "workloads", "blocks", "seed", "vcpus", "memory_mib", "disk_mib", "sweep"]


def test_plans(work: Path) -> None:
    path = work / "plan.toml"

    def one(chance: random.Random) -> None:
        path.write_bytes(table(chance, PLAN_KEYS) if chance.random() < 0.5 else spoiled(PLAN, chance))
        with watched(work):
            plan = load_plan(path, LIBRARY)
            stacks = with_baselines(plan.stacks)
            bases = {base.path for stack in stacks if (base := stack.baseline())}
            schedule(plan, plan.workloads, [stack.path for stack in stacks], bases)
            cpus_for(plan.shape())

    fuzz(one)


WORKLOAD_KEYS = [
    *(
        "kind",
        "title",
        "about",
        "groups",
        "needs",
        "params",
        "setup",
        "teardown",
        "server",
        "command",
        "work",
        "ready",
    ),
    *(
        "timeout_s",
        "metrics",
        "guest_seconds",
        "name",
        "unit",
        "better",
        "json",
        "regex",
        "scale",
        "primary",
        "start",
    ),
    *("max", "sweeps", "optional"),
]
OUTPUTS = [
    *(
        b"",
        b"{}",
        b"a" * 40,
        b"\n" * 100_000,
        b" " * 100_000 + b"{",
        b'{"value": 1.5, "seconds": 0}',
        b"\xff\xfe",
    ),
    *(
        b'{"value":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b"{" * 100_000,
        b'{"a":' * 50_000,
        b"65536\n0\n-1\n",
    ),
]


def workload_file(chance: random.Random) -> bytes:
    origin = chance.choice(SHIPPED).read_bytes()
    match chance.randrange(3):
        case 0:
            return table(chance, WORKLOAD_KEYS)
        case 1:
            return spoiled(origin, chance)
        case _:
            line = f"{chance.choice(['regex', 'json', 'ready'])} = {json.dumps(text(chance))} # "
            return origin.replace(b"json = ", line.encode(errors="replace"))


def test_workload_files(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = work / "stranger.toml"
    monkeypatch.setattr(extract, "PATIENCE_S", 0.3)

    def one(chance: random.Random) -> None:
        path.write_bytes(workload_file(chance))
        output = chance.choice([*OUTPUTS, chance.randbytes(200)])
        with watched(work):
            workload = load_workload(path)
            assert len(workload.digest) == 64
            for _, argv, allowed in workload._templates():
                workload.render(argv, lambda name: [name], **dict.fromkeys(allowed, 1))
            for read in (workload.parse, workload.guest_s, workload.measured_s):
                with contextlib.suppress(VbenchError):
                    read(output)
            if workload.server:
                workload.server.port(output.decode(errors="replace"))

    fuzz(one)


# --- bundles


@pytest.fixture(scope="module")
def origins(work: Path) -> list[Path]:
    """Sound bundles: of an old schema, finished, and in progress."""
    planned(
        work / "done",
        invocations(),
        hosts={
            "local": {"kernel": "Linux"},
            "local/uml": {"work": {"null-call": 1000}, "took_s": {"null-call": 0.5}},
        },
    )
    planned(work / "begun", invocations()[:7], finish=False)
    return [SCHEMA_1, work / "done", work / "begun"]


def grow(value: Any, chance: random.Random) -> Any:
    """A JSON document in which one value, somewhere, is another, is gone or is new."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        if chance.random() < 0.1:
            return {name: each for name, each in value.items() if name != key}
        if chance.random() < 0.1:
            return {**value, text(chance): value[key]}
        return {**value, key: grow(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.85:
        index = chance.randrange(len(value))
        return [
            *value[:index],
            grow(value[index], chance),
            *value[index + chance.choice([0, 1, 1, 1]) :],
        ]
    return odd(chance)


def resealed(lines: list[bytes], chance: random.Random) -> bytes:
    """A journal in which values are changed by somebody who knows how lines are sealed."""
    seal, out = b"", []
    for line in lines:
        row = json.loads(line)
        row.pop("seal")
        if chance.random() < 0.2:
            row = grow(row, chance)
        body = (json.dumps(row)[:-1]).encode()
        seal = _seal(seal, body)
        out.append(body + b',"seal":"' + seal + b'"}\n')
    return b"".join(out)


def break_one(folder: Path, chance: random.Random) -> None:
    """Change something in a bundle."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    if not files:
        return
    mains = [path for path in files if path.name in {"run.json", "samples.jsonl"}]
    path = chance.choice([*mains, *mains, chance.choice(files)])
    match chance.randrange(8):
        case 0 | 1 | 2 if folder / "run.json" in files:
            with contextlib.suppress(ValueError):
                document = json.loads((folder / "run.json").read_bytes())
                for _ in range(chance.randrange(1, 3)):
                    document = grow(document, chance)
                (folder / "run.json").write_text(json.dumps(document))
        case 3 | 4 if len(mains) == 2:
            with contextlib.suppress(ValueError, KeyError, AttributeError, TypeError):
                lines = (folder / "samples.jsonl").read_bytes().splitlines()
                (folder / "samples.jsonl").write_bytes(resealed(lines, chance))
                document = json.loads((folder / "run.json").read_bytes())
                document["journal"] = None  # or nothing but the seal of the whole would be looked at
                (folder / "run.json").write_text(json.dumps(document))
        case 5:
            path.unlink()
            match chance.randrange(4):
                case 0:
                    path.symlink_to(
                        chance.choice(["/etc/passwd", "/dev/zero", str(folder.parent / "canary"), "nowhere"])
                    )
                case 1:
                    os.mkfifo(path)
                case 2:
                    path.mkdir()
        case _:
            path.write_bytes(spoiled(path.read_bytes(), chance))


def read(folder: Path) -> None:
    vbench.load(folder)


def compare(folder: Path) -> None:
    vbench.load(folder).overheads()


def check(folder: Path) -> None:
    for problem in examine(folder):
        assert str(problem)
        assert len(str(problem)) < 3000


def take_up(folder: Path) -> None:
    with Bundle.open(folder) as bundle:
        read_so_far(bundle)
        plan_of(bundle, LIBRARY)


@contextmanager
def copied(work: Path, origin: Path, chance: random.Random) -> Iterator[Path]:
    folder = work / "place/bundle"
    shutil.rmtree(folder.parent, ignore_errors=True)
    shutil.copytree(origin, folder)
    (folder.parent / "canary").write_text("mine")
    for _ in range(chance.randrange(1, 3)):
        break_one(folder, chance)
    yield folder
    assert (folder.parent / "canary").read_text() == "mine"
    assert {path.name for path in folder.parent.iterdir()} == {"bundle", "canary"}


def test_bundles(work: Path, origins: list[Path]) -> None:
    def one(chance: random.Random) -> None:
        todo = [compare if chance.random() < 0.02 else read, check, take_up]
        with copied(work, chance.choice(origins), chance) as folder:
            for target in todo:
                with watched(folder):
                    target(folder)

    fuzz(one)


def test_commands_on_bundles(work: Path, origins: list[Path]) -> None:
    shutil.copytree(origins[1], work / "place/first")
    CliRunner().invoke(app, ["report", str(work / "place/first")])  # matplotlib keeps a cache of its own

    def one(chance: random.Random) -> None:
        with copied(work, chance.choice(origins), chance) as folder:
            for command in (["report", str(folder)], ["verify", "--json", str(folder)]):
                with watched(folder):
                    done = CliRunner().invoke(app, command)
                    if isinstance(done.exception, VbenchError):
                        raise done.exception
                    if done.exception is not None and not isinstance(done.exception, SystemExit):
                        raise AssertionError(command) from done.exception
                assert "\x1b" not in done.output

    fuzz(one, max(5, COUNT // 100))


def test_the_warden_sees(tmp_path: Path) -> None:
    """What the others rely on: it can fail."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "out")
    for act in (
        lambda: (tmp_path / "out").write_text("x"),
        lambda: (tmp_path / "in/link").write_text("x"),
        (tmp_path / "in/../out").unlink,
        lambda: os.system("true"),
        lambda: Journal(tmp_path / "other"),
    ):
        with pytest.raises(AssertionError), watched(tmp_path / "in"):
            act()
    with watched(tmp_path / "in"):
        (tmp_path / "in/mine").write_text("x")
