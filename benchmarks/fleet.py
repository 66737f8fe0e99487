"""What the harness itself takes for many machines, by simulation: ``python benchmarks/fleet.py``

Nothing is logged in to and nothing is measured: a hosts file and a plan are made for so many machines, and planning,
units, dispatcher, recorder, journal, resuming and the report are the real ones, but each unit's events are made up at
once by ``simulated`` instead of coming from a machine. So the figures are about vbench, and the ratios in the bundle
are about nothing. Each number of machines is a process of its own, and so is its report, so that peak memory is theirs.

The journal is synced after every invocation: on a disk, that is most of the time. ``--folder /dev/shm`` leaves it out.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vbench.bundle.store import Bundle, read_info
from vbench.harness.events import Began, Event, Measured, Opened, Settled, Value
from vbench.harness.invoke import Cost
from vbench.harness.plan import Plan, Step, load_plan
from vbench.harness.progress import read_so_far
from vbench.harness.run import execute, new_run, units_for
from vbench.harness.units import WorkUnit
from vbench.hosts.declared import read_hosts
from vbench.layers.base import layer_classes
from vbench.layers.stack import Stack
from vbench.paths import reference_bundle
from vbench.workload.library import Library, load_workloads

MACHINES = (10, 100, 1000)
LAYERS = {"chroot": 1.0, "bubblewrap": 1.05, "kvm": 1.4}
WORKLOADS = (
    "cpu-int", "cpu-float", "mem-latency", "mem-pagefault", "os-nullcall", "os-read", "os-write", "os-forkexec",
    "disk-seq-read", "app-sqlite",
)  # fmt: skip
CAPSULE: Any = SimpleNamespace(
    digest="simulated", manifest=SimpleNamespace(drift=[], mended=[], kernel="", packages=[])
)


class Quiet:
    """A progress that nobody watches."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def doing(self, now: Began, done: int, total: int, remaining_s: float | None) -> None:
        """Show nothing."""


class Simulation:
    """A place that makes up events; ``threads`` and ``units`` are the most that there were at a time."""

    def __init__(self) -> None:
        self.threads = self.units = self._now = 0
        self._lock = threading.Lock()
        # As many facts, and as long, as a real host has.
        self._facts = next(iter(read_info(reference_bundle()).hosts.values()))

    def __call__(self, unit: WorkUnit) -> Iterator[Event]:
        """Every event of a worker that has no trouble."""
        with self._lock:
            self._now += 1
            self.units = max(self.units, self._now)
            self.threads = max(self.threads, threading.active_count())
        rng = random.Random(unit.root)  # noqa: S311 - a simulation
        known = {each.name: each for each in unit.workloads}
        bases = {path: unit.baseline(Stack.parse(path)) for path in unit.stacks}
        for path in unit.stacks:
            yield Began(stage="opening", stack=path)
            yield Opened(stack=path, facts={key: fact for key, fact in self._facts.items() if key != "work"})

        def simulated(step: Step, *, warmup: bool = False) -> Measured:
            workload, base = known[step.workload], bases[step.stack]
            cost = LAYERS.get(step.stack.partition("/")[2], 1.0) * math.exp(rng.gauss(0, 0.02))
            metric = workload.primary
            return Measured(
                stack=step.stack, baseline=base.path if base else step.stack, workload=step.workload, params="{}",
                block=step.block, order=step.order, arm=step.arm, warmup=warmup, work=1, clock="wall",
                values=(Value(metric=metric.name, unit=metric.unit, better="lower", value=100 * cost),),
                guest_s=1.0, parent_s=1.0, cost=Cost(host_cpu_s=cost, rss_mib=64.0),
                start="2026-01-01T00:00:00.000+00:00", stdout=b"simulated\n",
            )  # fmt: skip

        for cell in dict.fromkeys((step.stack, step.workload) for step in unit.steps):
            yield simulated(Step(0, 0, cell[1], cell[0], "A"), warmup=True)
            yield Settled(stack=cell[0], workload=cell[1], work=1)
        for step in unit.steps:
            yield Began(stage="measuring", stack=step.stack, block=step.block, remaining_s=1.0)
            yield simulated(step)
        with self._lock:
            self._now -= 1


def planned(folder: Path, machines: int, together: int, blocks: int, library: Library) -> Plan:
    """A hosts file of so many machines, ``together`` of them on the same hardware, and the plan for all of them."""
    names = [f"m{number:05}" for number in range(machines)]
    hosts = folder / "hosts.toml"
    hosts.write_text(
        "\n".join(
            f'[[machine]]\nname = "{name}"\nhardware = "box {number // together}"'
            for number, name in enumerate(names)
        )
    )
    stacks = [f"{name}/{layer}" for name in names for layer in LAYERS]
    declared = read_hosts(hosts, {}, [*layer_classes()])
    return load_plan(None, library, stacks=stacks, workloads=[*WORKLOADS], blocks=blocks, machines=declared)


def harness(folder: Path, machines: int, together: int, blocks: int) -> dict[str, Any]:
    """Plan, carry out and take up again a simulated run; seconds of each, and peak memory in MiB.

    ``cpu_s``: seconds of the processor for all of it, which say more where other things run beside it.
    """
    library, place = load_workloads(), Simulation()
    begin = time.perf_counter()
    plan = planned(folder, machines, together, blocks, library)
    info = new_run(plan, library, CAPSULE)
    units = units_for(info, plan, library)
    found: dict[str, Any] = {"machines": machines, "units": len(units)}
    del units
    found["plan_s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    with Bundle.create(folder / "run", info) as bundle:
        execute(bundle, library, CAPSULE, Quiet(), place=place)
        found["rows"] = bundle.journal.rows
    found |= {"run_s": time.perf_counter() - begin, "threads": place.threads, "at_once": place.units}
    begin = time.perf_counter()
    with Bundle.open(folder / "run") as bundle:
        left = units_for(bundle.info, plan, library, so_far=read_so_far(bundle))
    found |= {"resume_s": time.perf_counter() - begin, "left": sum(len(unit.steps) for unit in left)}
    found["cpu_s"] = time.process_time()
    return found | {"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def report(folder: Path) -> dict[str, Any]:
    """Load a simulated run and render its page."""
    from vbench import load  # noqa: PLC0415 - pandas, which the harness does without
    from vbench.report import render  # noqa: PLC0415

    begin = time.perf_counter()
    page = render(load(folder / "run"))
    return {
        "report_s": time.perf_counter() - begin,
        "report_cpu_s": time.process_time(),
        "page_mib": len(page) / 2**20,
        "report_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def apart(*arguments: object) -> dict[str, Any]:
    """What this script finds in a process of its own."""
    argv = [sys.executable, __file__, *map(str, arguments)]
    told: dict[str, Any] = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)
    return told


def main() -> None:
    """Print a line for each number of machines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("machines", type=int, nargs="*", help=f"Numbers of machines; by default {MACHINES}.")
    parser.add_argument("--folder", type=Path, help="Where the bundles are for as long as this takes.")
    parser.add_argument(
        "--together",
        type=int,
        default=1,
        help="Machines on the same hardware, which take turns; by default 1.",
    )
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--no-report", action="store_true", help="Only the harness.")
    parser.add_argument("--harness", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.harness or given.report:
        told = (
            harness(given.harness, *given.machines, given.together, given.blocks)
            if given.harness
            else report(given.report)
        )
        json.dump(told, sys.stdout)
        return
    print(
        f"SIMULATION: events are made up, no machine is measured. {len(LAYERS)} stacks a machine and its baseline "
        f"twice, {len(WORKLOADS)} workloads, {given.blocks} blocks."
    )
    print(
        "machines  units     rows  plan s   run s  resume s  CPU s  ms/row  threads   MiB"
        + "  report s  CPU s  page MiB  report MiB" * (not given.no_report),
        flush=True,
    )
    for machines in given.machines or MACHINES:
        with tempfile.TemporaryDirectory(prefix="fleet-", dir=given.folder) as temp:
            told = apart(machines, "--together", given.together, "--blocks", given.blocks, "--harness", temp)
            if told["left"]:
                sys.exit(f"{told['left']} invocations of {machines} machines were not carried out")
            line = (
                f"{told['machines']:8}{told['units']:7}{told['rows']:9}{told['plan_s']:8.1f}{told['run_s']:8.1f}"
                f"{told['resume_s']:10.1f}{told['cpu_s']:7.1f}{1000 * told['cpu_s'] / told['rows']:8.2f}"
                f"{told['threads']:9}{told['mib']:6.0f}"
            )
            if not given.no_report:
                told = apart("--report", temp)
                line += f"{told['report_s']:10.1f}{told['report_cpu_s']:7.1f}"
                line += f"{told['page_mib']:10.1f}{told['report_mib']:12.0f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
