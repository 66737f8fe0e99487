"""How much time and memory the analysis of a million samples takes: ``python benchmarks/million.py``

Creates a bundle of synthetic samples like one left by a long run, then loads it, computes its overheads and renders
its report in a separate process. The target: all three together within 20 s and 2 GiB. On a machine that is busy with
other things, CPU seconds say more than elapsed ones.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np

from vbench.bundle.samples import COSTS, samples_of
from vbench.bundle.store import Bundle, RunInfo, WorkloadInfo

SECONDS, MIB = 20.0, 2048.0
LAYERS = ("chroot", "bubblewrap", "nspawn", "runc", "uml", "qemu", "kvm", "xen")
WORKLOADS, METRICS = 36, ("m0", "m1")
COST = {**dict.fromkeys(COSTS), "host_cpu_s": 0.5, "rss_mib": 64.0}
KINDS = ("cpu", "memory", "disk", "network", "os")


def make(folder: Path, samples: int) -> int:
    """Create a complete bundle of at least ``samples`` workload samples, plus host costs; return the total number."""
    stacks = ["local", *(f"local/{layer}" for layer in LAYERS)]
    arms = [("local", "A'"), *((stack, "A") for stack in stacks)]
    names = [f"w{number:02}" for number in range(WORKLOADS)]
    blocks = -(-samples // (len(arms) * WORKLOADS * len(METRICS)))
    info = RunInfo(
        id="million",
        created="2026-01-01T00:00:00+00:00",
        seed=0,
        workloads={
            name: WorkloadInfo(digest="d", kind=KINDS[number % 5], title=f"Workload {name}", primary="m0")
            for number, name in enumerate(names)
        },
        techniques=dict.fromkeys(stacks, "isolator"),
    )
    rng = np.random.default_rng(0)
    with Bundle.create(folder, info) as bundle:
        for block in range(blocks):
            noise = np.exp(rng.normal(0, 0.02, (WORKLOADS, len(arms), len(METRICS))))
            group = [
                sample
                for w, name in enumerate(names)
                for order, (stack, arm) in enumerate(arms)
                for sample in samples_of(
                    [
                        (metric, "ns", "lower", float(noise[w, order, m] * (100 + 10 * stacks.index(stack))))
                        for m, metric in enumerate(METRICS)
                    ],
                    COST,
                    run="million", stack=stack, baseline="local", workload=name, params="{}", block=block,
                    order=order, arm=arm, warmup=False, work=1024, clock="wall", guest_s=0.41, parent_s=0.42,
                    start="2026-01-01T00:00:00.000+00:00",
                )
            ]  # fmt: skip
            bundle.append(group)
        bundle.finish()
        return bundle.journal.rows


def measure(folder: Path) -> dict[str, Any]:
    """Elapsed and CPU seconds of each stage, and peak memory in MiB."""
    found: dict[str, Any] = {}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        begin, busy = time.perf_counter(), time.process_time()
        result = action()
        found[name] = [time.perf_counter() - begin, time.process_time() - busy]
        return result

    def start() -> Any:
        return import_module("vbench").load, import_module("vbench.report").render

    load, render = timed("import", start)
    loaded = timed("load", lambda: load(folder))
    overheads = timed("overheads", loaded.overheads)
    page = timed("report", lambda: render(loaded, overheads=overheads))
    return found | {
        "samples": len(loaded.samples) + len(loaded.host_costs),
        "page": len(page),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Print the figures; exit code 1 if they miss the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="Use this folder, and leave the bundle in it.")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        json.dump(measure(given.measure), sys.stdout)
        return
    with tempfile.TemporaryDirectory(prefix="million-") as temp:
        folder = given.keep or Path(temp) / "bundle"
        if not (folder / "run.json").exists():
            begin = time.perf_counter()
            rows = make(folder, given.samples)
            print(f"made {rows} samples in {time.perf_counter() - begin:.0f} s")
        argv = [sys.executable, __file__, "--measure", str(folder)]
        found = json.loads(run(argv, check=True, capture_output=True, text=True).stdout)
    stages = ("import", "load", "overheads", "report")
    for name in stages:
        print(f"{name:12}{found[name][0]:8.1f} s by the clock{found[name][1]:8.1f} s of the processor")
    wall, busy = (sum(found[name][i] for name in stages) for i in (0, 1))
    print(f"{'together':12}{wall:8.1f} s by the clock{busy:8.1f} s of the processor   (aim: {SECONDS:.0f} s)")
    size = f"{found['samples']} samples; page {found['page'] / 2**20:.1f} MiB"
    print(f"peak memory {found['mib']:.0f} MiB (aim: {MIB:.0f} MiB); {size}")
    sys.exit(wall > SECONDS or found["mib"] > MIB)


if __name__ == "__main__":
    main()
