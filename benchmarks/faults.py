"""What happens to a run when something breaks under it, shown with real faults.

Run it as root on a machine where ``vbench doctor`` says that chroot and either uml or qemu are available:

    python benchmarks/faults.py                    # everything: about 15 minutes
    python benchmarks/faults.py --kills 10 kills   # only kill the harness, ten times

``kills``: the harness is killed (SIGKILL) at random moments of a short run, which is then resumed. Every bundle must
come out whole and with the same rows as an undisturbed run, and nothing may be left on the machine. The other faults
break one thing each and show what the user sees. The exit code is 0 if everything went as it should.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from vbench import paths
from vbench.bundle.verify import examine
from vbench.capsule import capsule
from vbench.files import holders
from vbench.harness.invoke import Environment, invoke, prepare
from vbench.hosts.command import OUTPUT_LIMIT
from vbench.hosts.local import LocalHost
from vbench.hosts.process import MARK, owner_lives
from vbench.layers.base import Shape, Unavailable, make_layer
from vbench.layers.stack import Stack, open_stack
from vbench.workload.library import load_workloads

SEED = "5"
TINY = {"tiny-call": "os-nullcall", "tiny-switch": "os-ctxsw"}
"""Our own variants of shipped workloads that take hundredths of a second; the second one has child processes."""

HUNG = """
kind = "os"
title = "A tool that hangs"
about = "It never ends."
command = ["@busybox", "sleep", "1000"]
timeout_s = 3.0
metrics = [{ name = "time", unit = "s", better = "lower", regex = '(\\d+)', primary = true }]
"""
GARBLED = HUNG.replace('"sleep", "1000"', '"dd", "if=/dev/urandom", "bs=4096", "count=1"').replace(
    r"(\d+)", r"^time: (\d+\.\d+)$"
)
HUGE = HUNG.replace('"sleep", "1000"', '"head", "-c", "1073741824", "/dev/zero"').replace("3.0", "60.0")


PROGRAM = {"uml": "/usr/bin/linux.uml", "qemu": "/usr/bin/qemu-system-x86_64"}
"""What the command line of a guest's process names."""


@cache
def kernel() -> str:
    """A layer with a kernel of its own that opens here: User Mode Linux, or QEMU where that does not run."""
    answer = make_layer("uml").probe(LocalHost(payload=capsule.require().payload()))
    return "qemu" if isinstance(answer, Unavailable) else "uml"


class Fault(Exception):
    """Something did not go as it should."""


def require(so: object, what: str) -> None:
    """Raise ``Fault`` unless ``so`` is true."""
    if not so:
        raise Fault(what)


class Bench:
    """A separate cache containing the user's capsule, and a folder of tiny workloads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workloads = folder / "workloads"
        self.cache = folder / "cache"
        self.cache.mkdir()
        (self.cache / "capsules").symlink_to(capsule.require().directory.parent)
        self.workloads.mkdir()
        for name, origin in TINY.items():
            text = (paths.workload_files() / f"{origin}.toml").read_text()
            text = re.sub(r"^\[work\]$", "[work]\ntarget_s = 0.02", text, flags=re.MULTILINE)
            (self.workloads / f"{name}.toml").write_text(text)
        self.environment = {**os.environ, "VBENCH_CACHE": str(self.cache)}

    def add(self, name: str, text: str) -> None:
        """Add a workload."""
        (self.workloads / f"{name}.toml").write_text(text)

    def start(self, *argv: str | Path) -> subprocess.Popen[str]:
        """Start a vbench command."""
        return subprocess.Popen(
            [sys.executable, "-m", "vbench.cli.main", *map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def run(self, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a vbench command and wait for it to end."""
        with self.start(*argv) as process:
            out, err = process.communicate(timeout=900)
        require("Traceback" not in err, f"a traceback: {err}")
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def plan(
        self, out: Path, *stacks: str, workloads: tuple[str, ...] = tuple(TINY), blocks: int = 3
    ) -> list[str]:
        """The arguments of a short run."""
        words = ["run", "--workloads", str(self.workloads), "--blocks", str(blocks), "--seed", SEED]
        for option, names in (("-s", stacks), ("-w", workloads)):
            for name in names:
                words += [option, name]
        return [*words, "--out", str(out)]

    def resume(self, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Resume a run."""
        return self.run("resume", str(out), "--workloads", str(self.workloads), *options)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The workloads' samples in the complete lines of a journal, which may still be growing."""
    with contextlib.suppress(FileNotFoundError):
        lines = (folder / "samples.jsonl").read_text(errors="replace").splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n") and "\0" not in line]
        return [row for row in whole if row["side"] == "workload"]
    return []


def keys(folder: Path) -> Counter[tuple[object, ...]]:
    """What has been measured, and how often."""
    names = ("stack", "workload", "metric", "block", "order", "arm", "warmup")
    return Counter(tuple(row[name] for name in names) for row in rows(folder))


def wait_for(process: subprocess.Popen[str], ready: Callable[[], object], seconds: float = 120) -> None:
    """Wait, while a command runs, until ``ready`` returns true."""
    end = time.monotonic() + seconds
    while not ready():
        require(process.poll() is None, "the command ended too early")
        require(time.monotonic() < end, "timed out waiting")
        time.sleep(0.01)


def marked(pid: int | None = None) -> list[int]:
    """This user's processes marked by a vbench that has ended, or by the one with ``pid``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            match = re.search(
                rf"{MARK}=(\d+\.\d+\.\d+)", (entry / "environ").read_bytes().decode(errors="replace")
            )
            if match and (match[1].startswith(f"{pid}.") if pid else not owner_lives(match[1])):
                found.append(int(entry.name))
    return found


def machine(bench: Bench) -> dict[str, set[str]]:
    """Everything that a run could leave behind on the machine."""
    named = Path("/run/netns")
    return {
        "mounts": {
            " ".join(line.split()[2:5]) for line in Path("/proc/self/mountinfo").read_text().splitlines()
        },
        "named namespaces": {path.name for path in named.iterdir()} if named.is_dir() else set(),
        "session folders": {path.name for path in (bench.cache / "sessions").glob("s*")},
        "orphans": {str(pid) for pid in marked()},
    }


@contextmanager
def nothing_left(bench: Bench) -> Iterator[None]:
    """Require that nothing of ours is left that was not there before, giving the kernel a moment to clean up."""
    before = machine(bench)
    yield
    end = time.monotonic() + 5
    while True:
        after = machine(bench)
        left = {name: sorted(after[name] - before[name]) for name in after if after[name] - before[name]}
        if not left:
            return
        told = {
            folder.name: (sorted(path.name for path in folder.rglob("*")), holders(folder / "lock"))
            for folder in (bench.cache / "sessions").glob("s*")
        }
        require(
            time.monotonic() < end,
            f"left behind: {left}; what these folders hold, and who holds them: {told}",
        )
        time.sleep(0.05)


def kills(bench: Bench, count: int, seed: int) -> str:
    """Kill the harness at ``count`` random moments, resume, and compare with an undisturbed run."""
    rng = random.Random(seed)  # noqa: S311 - moments that can be repeated
    whole = bench.folder / "whole"
    begin = time.monotonic()
    require(bench.run(*bench.plan(whole, "chroot")).returncode == 0, "the undisturbed run failed")
    span = time.monotonic() - begin
    require(examine(whole) == [], f"the undisturbed run is not whole: {examine(whole)}")
    wanted, stages = keys(whole), Counter[str]()
    longest = 0.0
    done = 0
    while done < count:
        folder = bench.folder / f"killed-{done}"
        with nothing_left(bench):
            with bench.start(*bench.plan(folder, "chroot")) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(rng.uniform(0, span))
                if (code := process.poll()) is not None:
                    require(code == 0, f"kill {done}: it ended without being killed: {process.communicate()}")
                    shutil.rmtree(folder)
                    continue  # it finished sooner than the first one
                process.send_signal(signal.SIGKILL)
            moment = time.monotonic()
            while marked(process.pid):
                require(
                    time.monotonic() - moment < 5,
                    f"kill {done}: its children are still alive: {marked(process.pid)}",
                )
                time.sleep(0.01)
            longest = max(longest, time.monotonic() - moment)
            before = keys(folder)
            if not (folder / "run.json").exists():
                stages["before the bundle was begun"] += 1
                again = bench.run(*bench.plan(folder, "chroot"))
            else:
                stages["measuring" if any(not key[-1] for key in before) else "opening and calibrating"] += 1
                again = bench.resume(folder)
            require(again.returncode == 0, f"kill {done}: {again.stderr}")
            require(not before - keys(folder), f"kill {done}: samples were lost: {before - keys(folder)}")
            require(keys(folder) == wanted, f"kill {done}: its rows differ from the undisturbed run's")
            require(examine(folder) == [], f"kill {done}: not whole: {[*map(str, examine(folder))]}")
        shutil.rmtree(folder)
        done += 1
        if sys.stderr.isatty():
            print(f"\r{done} of {count}", end="\n" if done == count else "", file=sys.stderr)
    parts = ", ".join(f"{number} {stage}" for stage, number in sorted(stages.items()))
    return (
        f"{done} of {count} bundles complete and equal in row keys to an undisturbed run "
        f"({sum(wanted.values())} rows); nothing left over.\nKilled: {parts}. "
        f"Its children were gone within {longest:.2f} s."
    )


def broken(
    bench: Bench, name: str, stack: str, fault: Callable[[subprocess.Popen[str]], object], *, blocks: int = 4
) -> tuple[Path, str]:
    """Start a run and break something once samples have arrived; return the bundle and what the user sees."""
    folder = bench.folder / name
    with nothing_left(bench):
        with bench.start(*bench.plan(folder, "chroot", stack, blocks=blocks)) as process:
            # A run of this size writes less than a pipe holds.
            wait_for(
                process, lambda: sum(row["stack"] == f"local/{stack}" for row in rows(folder)) > len(TINY)
            )
            fault(process)
            out, err = process.communicate(timeout=600)
        require("Traceback" not in err, f"a traceback: {err}")
        require(process.returncode == 0, f"exit code {process.returncode}: {err}")
    said = [line for line in err.splitlines() if "left out" in line]
    require(said, f"nothing was reported: {out}{err}")
    return folder, "\n".join(said)


def inside(process: subprocess.Popen[str], program: str) -> list[psutil.Process]:
    """The processes of a run whose command line names ``program``."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(word.endswith(program) for word in child.cmdline()[:8]) and "unshare" not in child.name():
                found.append(child)
    return found


def kill(program: str) -> Callable[[subprocess.Popen[str]], None]:
    """A fault that kills every process of the run that executes ``program``."""

    def fault(process: subprocess.Popen[str]) -> None:
        found = inside(process, program)
        require(found, f"no process of {program} was found")
        for each in found:
            with contextlib.suppress(psutil.NoSuchProcess):  # it died with the first one
                each.kill()

    return fault


def killed_guest(bench: Bench) -> str:
    """A guest dies; the run continues without it, and can be completed afterwards."""
    folder, said = broken(bench, "guest", kernel(), kill(PROGRAM[kernel()]))
    require(examine(folder) == [], f"not whole: {examine(folder)}")
    before = keys(folder)
    again = bench.resume(folder, "--retry")
    require(again.returncode == 0, again.stderr)
    require(
        before <= keys(folder) and set(keys(folder).values()) == {1}, "samples were lost or counted twice"
    )
    require(examine(folder) == [], f"not whole after resuming: {[*map(str, examine(folder))]}")
    return f"{said}\nvbench resume --retry: {sum((keys(folder) - before).values())} more rows, none twice"


def killed_sshd(bench: Bench) -> str:
    """The SSH server of an environment dies with its connections."""
    return broken(bench, "sshd", "bubblewrap", kill("/dropbear"))[1]


def cut_link(bench: Bench) -> str:
    """A guest's network link goes down: nothing exits, but nothing answers either."""

    def cut(process: subprocess.Popen[str]) -> None:
        words = " ".join(" ".join(each.cmdline()) for each in inside(process, PROGRAM[kernel()]))
        match = re.search(r"ifname=(\w+)", words)
        require(match, "no link was found")
        assert match is not None  # noqa: S101
        subprocess.run(["ip", "link", "set", match[1], "down"], check=True)

    begin = time.monotonic()
    _, said = broken(bench, "link", kernel(), cut)
    return f"{said}\n(the whole run: {time.monotonic() - begin:.0f} s)"


def full_disk(bench: Bench) -> str:
    """The disk with the results fills up; once there is room, the run is resumed."""
    disk = bench.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    try:
        folder = disk / "run"
        with bench.start(*bench.plan(folder, "chroot", blocks=20)) as process:
            wait_for(process, lambda: len(rows(folder)) > 8)
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass
            _, err = process.communicate(timeout=600)
        require(process.returncode == 1 and "Traceback" not in err, f"exit code {process.returncode}: {err}")
        before = keys(folder)
        (disk / "filler").unlink()
        require(bench.resume(folder).returncode == 0, "it was not resumed")
        require(
            before <= keys(folder) and set(keys(folder).values()) == {1}, "samples were lost or counted twice"
        )
        require(examine(folder) == [], f"not whole: {examine(folder)}")
        return "\n".join(line for line in err.splitlines() if "cannot write" in line or "hint:" in line)
    finally:
        subprocess.run(["umount", disk], check=True)


def stepped_clock(bench: Bench) -> str:
    """A guest's time of day is set an hour ahead between two measurements; the figures must not change."""
    workload = load_workloads([bench.workloads])["tiny-call"]
    with (
        own_cache(bench),
        open_stack(Stack.parse(kernel()), capsule.require(), Shape(memory_mib=256)) as host,
    ):
        env = Environment(Stack.parse(kernel()), host, host, None)
        prepare(env, workload)
        size = env.work["tiny-call"]
        before = invoke(env, workload, size)
        ahead = host.run(["date", "-s", "+1 hour"]).text
        after = invoke(env, workload, size)
        require(host.run(["date", "+%s"]).text > str(time.time() + 3000), "the clock was not stepped")
    require(
        after.guest_s and before.guest_s and 0.2 < after.guest_s / before.guest_s < 5, "the figures changed"
    )
    return f"guest set to {ahead}; elapsed in it {before.guest_s:.4f} s before, {after.guest_s:.4f} s after"


@contextmanager
def own_cache(bench: Bench) -> Iterator[None]:
    """Make this process use the bench's cache."""
    before = os.environ.get("VBENCH_CACHE")
    os.environ["VBENCH_CACHE"] = str(bench.cache)
    try:
        yield
    finally:
        del os.environ["VBENCH_CACHE"]
        if before is not None:
            os.environ["VBENCH_CACHE"] = before


def corrupted(bench: Bench) -> str:
    """One byte of a measured program changes on disk; then the image that guests boot from is garbage."""
    home = bench.folder / "damaged"
    origin = capsule.require().directory
    (home / "capsules").mkdir(parents=True)
    copy = home / "capsules" / origin.name
    subprocess.run(["cp", "-al", origin, copy], check=True)  # hard links: replace files, do not edit them
    bench.environment["VBENCH_CACHE"] = str(home)
    try:
        program = copy / "tree/usr/bin/vbench-probe"
        data = bytearray(program.read_bytes())
        data[len(data) // 2] ^= 1
        program.unlink()
        program.write_bytes(data)
        program.chmod(0o755)
        done = bench.run(*bench.plan(bench.folder / "changed", "chroot"))
        require(done.returncode == 1, f"exit code {done.returncode}")
        require(rows(bench.folder / "changed") == [], "something was measured")
        said = done.stderr.splitlines()
        program.unlink()
        os.link(origin / "tree/usr/bin/vbench-probe", program)
        (copy / "image").unlink()
        (copy / "image").write_bytes(b"garbage " * 2**17)
        done = bench.run(*bench.plan(bench.folder / "garbage", kernel(), "chroot"))
        require(done.returncode == 0, f"exit code {done.returncode}: {done.stderr}")
        require(examine(bench.folder / "garbage") == [], f"not whole: {examine(bench.folder / 'garbage')}")
        lines = done.stderr.splitlines()
        first = next(number for number, line in enumerate(lines) if "left out" in line)
        return "\n".join(
            [*(line for line in said if "digest" in line or "hint:" in line), *lines[first : first + 4]]
        )
    finally:
        bench.environment["VBENCH_CACHE"] = str(bench.cache)
        shutil.rmtree(home)


def odd_tool(name: str, text: str) -> Callable[[Bench], str]:
    """A workload whose tool misbehaves; the others are measured all the same."""

    def fault(bench: Bench) -> str:
        bench.add(name, text)
        folder = bench.folder / name
        with nothing_left(bench):
            begin = time.monotonic()
            done = bench.run(*bench.plan(folder, "chroot", workloads=("tiny-call", name), blocks=2))
            span = time.monotonic() - begin
        require(done.returncode == 0, f"exit code {done.returncode}: {done.stderr}")
        require(examine(folder) == [], f"not whole: {[*map(str, examine(folder))]}")
        require(any(key[1] == "tiny-call" for key in keys(folder)), "the other workload was not measured")
        said = [line[:400] for line in done.stderr.splitlines() if "left out" in line]
        require(len(said) == 2, f"said {len(said)} times: {done.stderr}")
        return "\n".join([*said, f"(the whole run: {span:.0f} s)"])

    return fault


FAULTS: dict[str, Callable[[Bench], str]] = {
    "guest": killed_guest,
    "sshd": killed_sshd,
    "link": cut_link,
    "disk": full_disk,
    "clock": stepped_clock,
    "image": corrupted,
    "garbled": odd_tool("tiny-garbled", GARBLED),
    "huge": odd_tool("tiny-huge", HUGE),
    "hung": odd_tool("tiny-hung", HUNG),
}


def main() -> int:
    """Carry out the named faults, or all of them; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"kills, {', '.join(FAULTS)}; all by default"
    )
    parser.add_argument("--kills", type=int, default=100, help="how often the harness is killed")
    parser.add_argument("--seed", type=int, default=2026, help="decides the moments")
    options = parser.parse_args()
    faults = {"kills": lambda bench: kills(bench, options.kills, options.seed), **FAULTS}
    if unknown := {*options.names} - faults.keys():
        parser.error(f"unknown: {', '.join(unknown)}")
    print(f"seed {options.seed}; output of a tool is bounded at {OUTPUT_LIMIT >> 20} MiB", flush=True)
    failed = 0
    paths.cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="faults-", dir=paths.cache()) as folder:
        bench = Bench(Path(folder))
        for name in options.names or faults:
            begin = time.monotonic()
            try:
                text = faults[name](bench)
            except Fault as fault:
                failed += 1
                text = f"FAILED: {fault}"
            print(f"\n== {name} ({time.monotonic() - begin:.0f} s)\n{text}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
