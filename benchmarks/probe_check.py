"""Whether the probe agrees with other programs on the same machine: ``python benchmarks/probe_check.py``.

The capsule's probe and an independent tool take turns on one processor, and the best round of each counts (the fastest
shows what the machine does undisturbed). They should agree within 15%. Debian packages required: ``linux-perf`` (perf
bench needs no performance counters) and ``mbw``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from vbench.capsule.capsule import require

LIMIT = 0.15


@dataclass(frozen=True)
class Check:
    """One comparison: how to read the probe's figure and the other tool's, both in ``unit``."""

    what: str
    unit: str
    higher: bool
    probe: list[str]
    ours: Callable[[dict[str, float]], float]
    other: list[str]
    theirs: str  # a regular expression with one group
    note: str = ""


CHECKS = (
    Check(
        "null system call",
        "us",
        False,
        ["nullcall", "--work", "1000000"],
        lambda found: found["value"] * 1e6,
        ["perf", "bench", "syscall", "basic", "-l", "5000000"],
        r"([0-9.]+) usecs/op",
    ),
    Check(
        "round trip by pipe",
        "us",
        False,
        ["pipelat", "--work", "40000"],
        lambda found: found["value"] * 1e6,
        ["perf", "bench", "sched", "pipe", "-l", "200000"],
        r"([0-9.]+) usecs/op",
    ),
    Check(
        "two context switches",
        "us",
        False,
        ["ctxsw", "--work", "80000", "--procs", "2", "--kib", "0"],
        lambda found: 2 * found["hop"] * 1e6,
        ["perf", "bench", "sched", "pipe", "-l", "200000"],
        r"([0-9.]+) usecs/op",
        "a hop of the ring is a read, a write and a switch: two make perf's operation",
    ),
    Check(
        "copying 256 MiB",
        "MiB/s",
        True,
        ["membw", "--work", "4", "--mib", "256"],
        lambda found: found["copy"] / 2,
        ["mbw", "-q", "-n", "10", "-t1", "256"],
        r"AVG\s.*Copy: ([0-9.]+) MiB/s",
        "mbw counts each byte once, STREAM as read and as written",
    ),
)


def run(argv: list[str]) -> str:
    """Run a command and return everything it prints."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        sys.exit(f"{argv[0]} failed: {done.stderr.strip()}")
    return done.stdout


def compare(check: Check, rounds: int) -> tuple[float, float]:
    """The best figure of each side."""
    payload = require().payload()
    pairs = []
    for _ in range(rounds):
        found = json.loads(run([*payload.command("vbench-probe"), *check.probe]))
        match = re.search(check.theirs, run(check.other))
        if match is None:
            sys.exit(f"{' '.join(check.other)} printed nothing like {check.theirs!r}")
        pairs.append((check.ours(found), float(match[1])))
    best = max if check.higher else min
    return best(ours for ours, _ in pairs), best(theirs for _, theirs in pairs)


def main() -> None:
    """Print a table; exit code 1 when a pair differs by more than 15%."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each side")
    rounds = parser.parse_args().rounds
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"load before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} CPUs; best of {rounds} turns on one")
    print(f"{'':24}{'probe':>12}{'other':>12}{'ratio':>8}  other is")
    apart = False
    for check in CHECKS:
        if shutil.which(check.other[0]) is None:
            print(f"{check.what:24}not checked, because {check.other[0]} is not installed")
            continue
        ours, theirs = compare(check, rounds)
        ratio = ours / theirs
        beyond = not 1 - LIMIT <= ratio <= 1 + LIMIT
        apart |= beyond
        print(
            f"{check.what:24}{ours:12.4g}{theirs:12.4g}{ratio:8.3f}  {' '.join(check.other[:4])}, {check.unit}"
            f"{'; ' + check.note if check.note else ''}{'; MORE THAN 15% APART' if beyond else ''}"
        )
    sys.exit(apart)


if __name__ == "__main__":
    main()
