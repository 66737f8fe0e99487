"""The probe, compiled here: what each subcommand prints, and whether its figures can be trusted."""

from __future__ import annotations

import json
import math
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vbench.paths import workload_files

if shutil.which("gcc") is None:
    pytest.skip("gcc is not installed, so the probe cannot be compiled", allow_module_level=True)

FIXED = {"name", "unit", "work", "batches", "seconds", "value", "timer", "elapsed"}

# Every subcommand that needs no server: arguments that take milliseconds, and the fields it adds.
QUICK: dict[str, tuple[str, set[str]]] = {
    "int": ("--work 20000", {"checksum"}),
    "float": ("--work 20", {"checksum"}),
    "clock": ("--work 5000", set()),
    "sleep": ("--work 3 --usec 500", {"usec"}),
    "membw": ("--work 1 --mib 1", {"copy", "scale", "add", "triad", "mib"}),
    "memlat": ("--work 5000 --kib 64 --stride 128", {"kib", "stride"}),
    "alloc": ("--work 2000", set()),
    "mmap": ("--work 100", {"kib"}),
    "pagefault": ("--work 2500", set()),
    "protfault": ("--work 100", set()),
    "nullcall": ("--work 2000", set()),
    "read1": ("--work 2000", set()),
    "write1": ("--work 2000", set()),
    "stat": ("--work 500 --dir {dir}", set()),
    "openclose": ("--work 500 --dir {dir}", set()),
    "select": ("--work 200 --fds 100", set()),
    "siginstall": ("--work 1000", set()),
    "sigdeliver": ("--work 200", set()),
    "create": ("--work 20 --dir {dir} --kib 10", {"delete", "kib"}),
    "forkexit": ("--work 5", set()),
    "forkexec": ("--work 5", set()),
    "exec": ("--work 5 --dir {dir} -- /bin/sh -c :", set()),
    "ctxsw": ("--work 500 --procs 8 --kib 16", {"hop", "overhead", "procs", "kib", "pinned"}),
    "pipelat": ("--work 200", {"pinned"}),
    "unixlat": ("--work 200", {"pinned"}),
    "tcplat": ("--work 200", {"pinned"}),
    "pipebw": ("--work 2", {"pinned"}),
    "unixbw": ("--work 2", {"pinned"}),
    "tcpbw": ("--work 2", {"pinned"}),
}


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> str:
    binary = tmp_path_factory.mktemp("probe") / "vbench-probe"
    sources = sorted(map(str, (workload_files() / "src").glob("*.c")))
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static"]
    # It carries its own source, which the assembler takes from where it runs.
    build = ["gcc", *flags, "-o", str(binary), *sources, "-lm"]
    subprocess.run(build, cwd=workload_files() / "src", check=True, timeout=120)
    return str(binary)


@pytest.fixture
def port(probe: str) -> Iterator[int]:
    argv = [probe, "tcpserver", "--listen", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        ready = json.loads(server.stdout.readline())
        assert ready["ready"] is True
        yield ready["port"]
        server.kill()


def run(*argv: str) -> dict[str, Any]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def check_fixed(answer: dict[str, Any], name: str, work: int) -> None:
    assert set(answer) >= FIXED
    assert answer["name"] == name
    assert answer["work"] == work
    assert len(answer["batches"]) == 5
    assert all(math.isfinite(x) and x >= 0 for x in answer["batches"])
    assert 0 < answer["seconds"] <= answer["elapsed"]
    assert answer["value"] > 0


@pytest.mark.parametrize("name", QUICK)
def test_prints_its_fields_and_leaves_nothing_behind(probe: str, tmp_path: Path, name: str) -> None:
    options, added = QUICK[name]
    argv = options.format(dir=tmp_path).split()
    answer = run(probe, name, *argv)
    check_fixed(answer, name, int(argv[1]))
    assert set(answer) - FIXED == added
    assert answer["unit"] == ("MiB/s" if name in {"membw", "pipebw", "unixbw", "tcpbw"} else "s")
    assert not list(tmp_path.iterdir())


def test_every_subcommand_is_tried(probe: str) -> None:
    listed = subprocess.run([probe, "--help"], capture_output=True, text=True, check=True).stdout
    names = {line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "}
    assert names == set(QUICK) | {"tcprr", "tcpsmall", "tcpbulk", "tcpserver", "source"}


def test_round_trips_have_ordered_percentiles(probe: str, port: int) -> None:
    answer = run(probe, "tcprr", "--work", "100", "--connect", "127.0.0.1", str(port))
    check_fixed(answer, "tcprr", 100)
    assert answer["samples"] == 500
    assert 0 < answer["p50"] <= answer["p90"] <= answer["p99"] <= answer["p99.9"]
    batches = 1e6 * sum(answer["batches"]) / 5
    assert answer["mean"] == pytest.approx(batches, rel=0.05)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_bulk_transfer(probe: str, port: int, direction: str) -> None:
    argv = ("--work", "4", "--connect", "127.0.0.1", str(port), "--direction", direction)
    answer = run(probe, "tcpbulk", *argv)
    check_fixed(answer, "tcpbulk", 4)
    assert answer["value"] == pytest.approx(1 / sorted(answer["batches"])[2], rel=1e-6)


@pytest.mark.parametrize("window", [1, 16, 1024])
def test_small_messages(probe: str, port: int, window: int) -> None:
    argv = ("--work", "300", "--connect", "127.0.0.1", str(port), "--window", str(window))
    answer = run(probe, "tcpsmall", *argv)
    check_fixed(answer, "tcpsmall", 300)
    assert answer["window"] == window
    assert answer["value"] == pytest.approx(1 / sorted(answer["batches"])[2], rel=1e-6)


def test_messages_on_their_way_overlap(probe: str, port: int) -> None:
    """Many at once are faster than one after another; a busy machine gets five chances to show it."""

    def best(window: int) -> float:
        argv = ("--work", "3000", "--connect", "127.0.0.1", str(port), "--window", str(window))
        return float(min(run(probe, "tcpsmall", *argv)["batches"]))

    assert any(best(64) < 0.8 * best(1) for _ in range(5))


def test_a_program_takes_as_long_as_it_takes(probe: str, tmp_path: Path) -> None:
    """In the folder named, with nothing to read, and what it prints dropped."""
    script = "sleep 0.05; echo lost; cat; pwd >>where"
    answer = run(
        probe, "exec", "--work", "2", "--batches", "5", "--dir", str(tmp_path), "--", "/bin/sh", "-c", script
    )
    assert 0.05 <= min(answer["batches"]) < 1
    assert set((tmp_path / "where").read_text().split()) == {str(tmp_path)}
    argv = [
        probe,
        "exec",
        "--work",
        "1",
        "--dir",
        str(tmp_path),
        "--",
        "/bin/sh",
        "-c",
        "echo why >&2; exit 3",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("why\n")


def test_it_carries_its_own_source(probe: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [probe, "source", "--dir", str(tmp_path)], capture_output=True, timeout=60, check=True
    )
    assert done.stdout == b""
    whole = {path.name: path.read_bytes() for path in (workload_files() / "src").iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole


def test_a_server_that_has_gone_is_an_error(probe: str) -> None:
    argv = [probe, "tcprr", "--work", "1", "--connect", "127.0.0.1", "1"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Connection refused" in done.stderr


MASK = 2**64 - 1


def integer_mix(work: int) -> int:
    """The probe's integer computation, written again."""
    x, total = 88172645463325252, 1
    for _ in range(work):
        x ^= x << 13 & MASK
        x ^= x >> 7
        x ^= x << 17 & MASK
        total = (total * 6364136223846793005 + x) & MASK if x & 0x400 else total ^ (x >> 3)
        total = (total << 5 | total >> 59) & MASK
    return total


def solve(seed: int, order: int = 48) -> int:
    """The probe's linear system, written again: IEEE doubles give the same bits here."""
    x = (seed * 2862933555777941757 + 3037000493) & MASK
    a: list[list[float]] = []
    b = [0.0] * order
    for i in range(order):
        a.append([])
        for _ in range(order):
            x = (x * 6364136223846793005 + 1442695040888963407) & MASK
            a[i].append((x >> 40) / 16777216.0 - 0.5)
            b[i] += a[i][-1]
    for k in range(order):
        pivot = max(range(k, order), key=lambda i: (abs(a[i][k]), -i))
        a[k], a[pivot] = a[pivot], a[k]
        b[k], b[pivot] = b[pivot], b[k]
        for i in range(k + 1, order):
            factor = a[i][k] / a[k][k]
            for j in range(k + 1, order):
                a[i][j] -= factor * a[k][j]
            b[i] -= factor * b[k]
    total = 0
    for i in reversed(range(order)):
        for j in range(i + 1, order):
            b[i] -= a[i][j] * b[j]
        b[i] /= a[i][i]
        bits = struct.unpack("<Q", struct.pack("<d", b[i]))[0]
        total = (total << 7 & MASK | total >> 57) ^ bits
    return total


def float_mix(work: int) -> int:
    total = 1
    for i in range(work):
        total = (total * 31 + solve(i % 64)) & MASK
    return total


@pytest.mark.parametrize(("name", "work", "expected"), [("int", 12345, integer_mix), ("float", 6, float_mix)])
def test_checksums_repeat_and_are_right(probe: str, name: str, work: int, expected: Any) -> None:
    first, second = (run(probe, name, "--work", str(work))["checksum"] for _ in range(2))
    assert first == second == f"{expected(work):016x}"
    assert run(probe, name, "--work", str(work + 1))["checksum"] != first


def test_a_wait_of_known_length_reads_as_its_length(probe: str) -> None:
    answer = run(probe, "sleep", "--work", "5", "--usec", "2000")
    assert 0.002 <= answer["value"] < 0.004  # never shorter; longer by timer slack and a busy machine


@pytest.mark.parametrize("name", ["int", "nullcall", "memlat"])
def test_time_grows_with_work(probe: str, name: str) -> None:
    """Ten times the work takes about ten times as long; a busy machine gets five chances to show it."""
    extra = ["--kib", "64"] if name == "memlat" else []

    def best(work: str) -> float:
        return float(min(run(probe, name, "--work", work, *extra)["batches"])) * int(work)

    growth = (best("500000") / best("50000") for _ in range(5))
    assert any(6 < factor < 16 for factor in growth)


def test_a_longer_chain_is_slower(probe: str) -> None:
    near, far = (
        min(run(probe, "memlat", "--work", "100000", "--kib", kib)["batches"]) for kib in ("16", "65536")
    )
    assert far > 3 * near


def test_forkexec_of_another_program(probe: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    found = run(probe, "forkexec", "--work", "10", "--", "/bin/sh", "-c", f"echo >>{ran}")
    assert len(ran.read_text()) >= 10 * len(found["batches"])  # each time, and when it warms up
    failed = [probe, "forkexec", "--work", "1", "--", "/bin/sh", "-c", "exit 3"]
    done = subprocess.run(failed, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "child process failed" in done.stderr


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("", "no subcommand; see --help"),
        ("nulcall --work 1", "no subcommand 'nulcall'"),
        ("nullcall", "needs --work N"),
        ("nullcall --work", "--work needs a value"),
        ("nullcall --work 0", "from 1 to"),
        ("nullcall --work -1", "not '-1'"),
        ("nullcall --work 1e6", "not '1e6'"),
        ("nullcall --work 99999999999999999999999", "whole number"),
        ("nullcall --work 1 --batches 65", "from 1 to 64"),
        ("nullcall --work 1 --mib 4", "does not take '--mib'"),
        ("nullcall 7", "does not take '7'"),
        ("stat --work 1", "needs --dir"),
        ("memlat --work 1 --kib 1 --stride 12", "steps of 8"),
        ("tcprr --work 1", "needs --connect"),
        ("exec --work 1 --dir /tmp", "exec needs -- ARGV"),
        ("exec --work 1 -- /bin/true", "needs --dir"),
        ("tcpsmall --work 1 --connect 127.0.0.1 80 --window 1025", "from 1 to 1024"),
        ("source", "needs --dir"),
        ("tcprr --work 1 --connect 127.0.0.1", "an address and a port"),
        ("tcprr --work 1 --connect localhost 80", "not a numeric IP address"),
        ("tcpserver --port 0", "needs --listen"),
        ("tcpserver --listen 127.0.0.1 --port 70000", "from 0 to 65535"),
    ],
)
def test_bad_arguments(probe: str, argv: str, told: str) -> None:
    done = subprocess.run([probe, *argv.split()], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_directory_is_an_error(probe: str, tmp_path: Path) -> None:
    argv = [probe, "create", "--work", "1", "--dir", str(tmp_path / "none")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "No such file" in done.stderr
