"""Result bundles of synthetic samples, each with the character that some tests need.

``sample``, ``workload`` and ``info`` have defaults that make a sound bundle; ``record`` writes one. The builders below
them say which truth they hold and return the bundle's folder, or what ``load`` reads from it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from vbench import plot
from vbench.bundle import tool_output
from vbench.bundle.journal import _seal
from vbench.bundle.samples import COSTS, Sample
from vbench.bundle.store import Bundle, Failure, Note, RunInfo, WorkloadInfo
from vbench.stats.run import Run, load
from vbench.terms import Arm, Better

SCHEMA_1 = Path(__file__).parent / "data/schema-1"
"""A bundle as the first version wrote it."""

SAMPLE = Sample(
    run="r1", stack="local/uml", baseline="local", workload="null-call", params="{}", metric="latency", unit="ns",
    better="lower", value=5000.0, block=0, order=1, arm="A", warmup=False, work=1000, clock="wall", guest_s=1.0,
    parent_s=1.1, start="2026-01-01T00:00:00Z",
)  # fmt: skip
ROOTS = ("local", "local/testbed")


def sample(**changes: Any) -> Sample:
    """A sample: five microseconds for a system call in User Mode Linux, or what is asked for instead."""
    return replace(SAMPLE, **changes)


def with_costs(sample: Sample, **costs: float | None) -> list[Sample]:
    """A workload's sample and those of what its invocation cost the host; ``costs`` by the names of ``COSTS``."""
    known = [(*COSTS[name], value) for name, value in costs.items() if value is not None]
    return [
        sample,
        *(
            replace(sample, side="host", metric=metric, unit=unit, better="lower", value=value)
            for metric, unit, value in known
        ),
    ]


def workload(**changes: Any) -> WorkloadInfo:
    """What a bundle knows of a workload: by default of the one of ``SAMPLE``."""
    known = {"digest": "0" * 64, "kind": "os", "title": "Null system call", "primary": "latency"}
    return WorkloadInfo(**known | changes)


def info(**changes: Any) -> RunInfo:
    """What a bundle knows of its run."""
    known: dict[str, Any] = {"id": "r1", "created": "2026-01-01T00:00:00Z", "seed": 7}
    return RunInfo(**known | changes)


def record(folder: Path, about: RunInfo, groups: Iterable[list[Sample]] = (), *, finish: bool = True) -> Path:
    """Write a bundle, each of the groups in one go; returns ``folder``."""
    with Bundle.create(folder, about) as bundle:
        for group in groups:
            bundle.append(group)
        if finish:
            bundle.finish()
    return folder


def base_of(stack: str) -> str:
    """The stack that one is held against: what it stands on; of a guest of Xen, the machine without Xen."""
    if stack in ROOTS:
        return stack
    *below, _ = stack.split("/")
    return "/".join(below[:-1] if below[-1] == "xen" else below)


def arms(stacks: Iterable[str]) -> list[tuple[str, Arm]]:
    """The measurements of one block: every stack, and every baseline once more."""
    stacks = [*stacks]
    again = [base for base in dict.fromkeys(map(base_of, stacks)) if base in stacks]
    return [*((stack, "A") for stack in stacks), *((base, "A'") for base in again)]


# --- journals


def group(block: int, metrics: int = 3) -> list[Sample]:
    """One invocation's samples, a metric each: ``m0``, ``m1``, ..."""
    return [sample(block=block, metric=f"m{number}") for number in range(metrics)]


def about_group() -> RunInfo:
    """The run that groups are of."""
    return info(
        workloads={"null-call": workload(primary="m0")}, techniques={"local/uml": "user-space kernel"}
    )


def write_journal(folder: Path, blocks: int = 4, *, finish: bool = False) -> Path:
    """A bundle with a group a block; returns its journal."""
    return record(folder, about_group(), map(group, range(blocks)), finish=finish) / "samples.jsonl"


def schema_3_rows(samples: list[Sample], **costs: float | None) -> list[dict[str, object]]:
    """Lines as vbench wrote them up to schema 3: what the invocation cost beside each of its metrics."""
    known = dict.fromkeys(COSTS) | costs
    return [
        {name: value for name, value in (asdict(each) | known).items() if name != "side"} for each in samples
    ]


def schema_3_journal(folder: Path, blocks: int = 2) -> Path:
    """A bundle of schema 3 that was interrupted after so many blocks; returns its journal."""
    path, seal, lines = write_journal(folder, blocks=0), b"", []
    for block in range(blocks):
        rows = schema_3_rows(
            group(block), host_cpu_s=1.5 + block, rss_mib=None if block else 300.0, steal_s=0.0
        )
        for left, row in zip((2, 1, 0), rows, strict=True):
            body = f'{json.dumps(row, separators=(",", ":"))[:-1]},"left":{left}'.encode()
            seal = _seal(seal, body)
            lines.append(body + b',"seal":"' + seal + b'"}\n')
    path.write_bytes(b"".join(lines))
    raw = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(raw | {"schema": 3}))
    return path


# --- a whole run by its plan, tool output included

PLANNED = {"stacks": ["local/uml"], "workloads": ["null-call"], "blocks": 3}


def invocations() -> list[list[Sample]]:
    """All that ``PLANNED`` asks for: two warm-ups, then nine measurements."""
    stacks = ("local", "local/uml")
    warm = [[sample(stack=stack, warmup=True)] for stack in stacks]
    steps = itertools.product(range(3), (("local", "A"), ("local/uml", "A"), ("local", "A'")))
    return warm + [[sample(stack=stack, arm=arm, block=block)] for block, (stack, arm) in steps]


def planned(folder: Path, rows: list[list[Sample]], *, finish: bool = True, **changes: Any) -> Path:
    """A run by ``PLANNED`` in which these invocations were made; returns its folder."""
    about = info(
        workloads={"null-call": workload()},
        **{"plan": PLANNED, "techniques": {"local": "none", "local/uml": "user-space kernel"}} | changes,
    )

    def told() -> Iterator[list[Sample]]:
        for row in rows:
            one = row[0]
            tool_output.keep(folder, (one.stack, one.workload), (one.block, one.arm, one.warmup), b"output")
            yield row

    return record(folder, about, told(), finish=finish)


# --- a run on one day, to be held against that of another

DAY_STACKS = {"local": 1.0, "local/uml": 3.0, "local/chroot": 1.0, "local/uml/chroot": 3.2}
DAY_WORKLOADS: dict[str, tuple[str, Better]] = {
    "int": ("cpu", "lower"),
    "seq": ("disk", "higher"),
    "null": ("os", "lower"),
}


def on_a_day(
    folder: Path,
    *,
    seed: int = 0,
    blocks: int = 12,
    sd: float = 0.01,
    day: float = 1.0,
    stacks: Mapping[str, float] = DAY_STACKS,
    factors: Mapping[tuple[str, str], float] | None = None,
    clock: str = "wall",
    **changes: Any,
) -> Run:
    """A run on a day that is ``day`` times slower for everything, with drift that a block shares.

    ``stacks``: each one's cost; ``factors``: by which single cells cost more.
    """
    rng = np.random.default_rng(seed)
    about = info(
        id=folder.name, seed=seed, plan={"vcpus": 1, "memory_mib": 512, "disk_mib": 512},
        capsule={"digest": "c0ffee"}, hosts={name: {"kernel": "6.1", "open_seconds": str(seed)} for name in stacks},
        workloads={name: workload(kind=kind, primary="m") for name, (kind, _) in DAY_WORKLOADS.items()},
    ).model_copy(update=changes)  # fmt: skip

    def measured() -> Iterator[list[Sample]]:
        for block in range(blocks):
            drift, made = math.exp(rng.normal(0, 0.05)), []
            for (name, (_, better)), (stack, arm) in itertools.product(DAY_WORKLOADS.items(), arms(stacks)):
                cost = day * drift * stacks[stack] * math.exp(rng.normal(0, sd))
                cost *= (factors or {}).get((stack, name), 1.0)
                made.append(sample(
                    run=about.id, stack=stack, baseline=base_of(stack), workload=name, metric="m", better=better,
                    value=100 * cost if better == "lower" else 100 / cost, block=block, arm=arm, clock=clock,
                ))  # fmt: skip
            yield made

    return load(record(folder, about, measured()))


# --- a run to report, of which every word can be hostile

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}'
REPORTED = {"int": ("cpu", "Integer speed"), "null": ("os", "Null system call")}


def to_report(
    folder: Path,
    *,
    evil: str = "",
    blocks: int = 8,
    uml: float = 52.0,
    clock: str = "wall",
    root: str = "local",
) -> Run:
    """User Mode Linux, whose system calls cost ``uml`` times its root's, beside a failure, a gap and a warning.

    ``evil`` is written after everything that somebody else could have chosen.
    """
    rng = np.random.default_rng(3)
    stack, odd = f"{root}/uml{evil}", f"local/kvm{evil}"
    about = info(
        created="2026-01-01" + evil,
        seed=4242,
        plan={"blocks": blocks, "x": evil},
        capsule={"digest": "c0ffee" + evil, "drift": [evil]},
        workloads={
            name + evil: workload(digest="d" + evil, kind=kind + evil, title=title + evil, primary="m" + evil)
            for name, (kind, title) in REPORTED.items()
        },
        hosts={root: {"kernel" + evil: "6.1" + evil}, stack: {"flags": {"a": [evil]}}},
        techniques={stack: "user-space kernel" + evil},
        failures=[
            Failure(stack=odd, stage="probe" + evil, reason="no usable /dev/kvm" + evil),
            Failure(stack=stack, workload="null" + evil, stage="run", reason="late" + evil),
        ],
        notes=[
            Note(
                severity="warning", stacks=[stack], workloads=["int" + evil], text="two caches differ" + evil
            )
        ],
        versions={"fio" + evil: "3.33" + evil},
    )

    def measured() -> Iterator[list[Sample]]:
        for block, (order, (name, arm)), work in itertools.product(
            range(blocks), enumerate([(root, "A"), (stack, "A"), (root, "A'")]), REPORTED
        ):
            factor = uml if name == stack and work == "null" else 1.0
            made = sample(
                stack=name, baseline=root, workload=work + evil, metric="m" + evil, unit="ns" + evil,
                value=100 * factor * math.exp(rng.normal(0, 0.01)), block=block, order=order, arm=arm, clock=clock,
                guest_s=0.5 if name == stack else 1.0, parent_s=1.0,
            )  # fmt: skip
            yield with_costs(made, host_cpu_s=1.25, rss_mib=321.0)

    return load(record(folder, about, measured()))


# --- a run to draw

WALL = {
    "local": "none",
    "local/chroot": "isolator",
    "local/uml": "user-space kernel",
    "local/uml/chroot": "isolator",
}
COUNTED = {
    "local/testbed": "type 2", "local/testbed/xen": "type 1", "local/testbed/xen/pv": "paravirtualization",
    "local/testbed/uml": "user-space kernel",
}  # fmt: skip
# Name: kind, title, and per metric its unit and the baseline's value.
DRAWN: dict[str, tuple[str, str, dict[str, tuple[str, float]]]] = {
    "cpu-int": ("cpu", "Integer computation", {"time": ("ns", 4.0)}),
    "os-nullcall": ("os", "Null system call", {"time": ("ns", 150.0)}),
    "os-forkexec": ("os", "Fork and exec", {"time": ("us", 400.0)}),
    "disk-seq-read": ("disk", "Sequential read", {"bandwidth": ("MiB/s", 900.0)}),
    "net-latency": ("network", "Request and response", {"mean": ("us", 50.0), "p50": ("us", 45.0),
                                                        "p99": ("us", 90.0), "p99.9": ("us", 400.0)}),
}  # fmt: skip
ADDED_S = {"uml": 20e-6, "pv": 300e-9, "xen": 100e-9, "chroot": 0.0}


def to_draw(
    folder: Path,
    stacks: Mapping[str, str],
    *,
    blocks: int = 8,
    clock: str = "wall",
    evil: str = "",
    noise: float = 0.01,
) -> Run:
    """Stacks and their techniques; a layer's cost adds so many seconds to each operation: ``ADDED_S``.

    ``evil`` is written after titles, one technique and one fact.
    """
    rng = np.random.default_rng(5)
    about = info(
        techniques={name: kind + evil * (name == "local/chroot") for name, kind in stacks.items()},
        workloads={name: workload(kind=kind, title=title + evil, primary=next(iter(metrics)))
                   for name, (kind, title, metrics) in DRAWN.items()},
        hosts={name: {"open_seconds": evil if name in ROOTS else "1.5"} for name in stacks},
    )  # fmt: skip

    def value(stack: str, unit: str, alone: float) -> float:
        added = sum(ADDED_S.get(layer, 0.0) for layer in stack.split("/"))
        seconds = plot.SECONDS.get(unit)
        slower = alone + added / seconds if seconds else alone / (1 + added * 1e4)
        return slower * math.exp(rng.normal(0, noise))

    def measured() -> Iterator[list[Sample]]:
        for block, (order, (stack, arm)), (name, (*_, metrics)) in itertools.product(
            range(blocks), enumerate(arms(stacks)), DRAWN.items()
        ):
            made = [
                sample(
                    stack=stack, baseline=base_of(stack), workload=name, metric=metric, unit=unit,
                    better="lower" if unit in plot.SECONDS else "higher", value=value(stack, unit, alone), block=block,
                    order=order, arm=arm, clock=clock, start=f"2026-01-01T00:{block:02}:{order:02}Z",
                )
                for metric, (unit, alone) in metrics.items()
            ]  # fmt: skip
            known = with_costs(made[-1], host_cpu_s=1.1, rss_mib=None if stack in ROOTS else 321.0)
            yield [*made, *known[1:]]

    return load(record(folder, about, measured()))


# --- a run of which the truth is known, to be advised by

KINDS = {"int": "cpu", "float": "cpu", "null": "os", "fork": "os", "read": "disk", "write": "disk"}
ALIKE = {"int": "float", "read": "write"}  # two of each kind: an answer that rests on one cell is none
# The true ratios by stack and workload.
TRUTH: dict[str, dict[str, float]] = {
    "local/chroot": {"int": 1.0, "null": 1.0, "fork": 1.0, "read": 1.0},
    "local/uml": {"int": 1.1, "null": 40.0, "fork": 10.0, "read": 2.0},
    "local/qemu": {"int": 8.0, "null": 6.0, "fork": 6.0, "read": 3.0},
}


def true_ratio(truth: Mapping[str, float], workload: str) -> float | None:
    """A workload's, or that of the one it is like."""
    like = next((name for name, twin in ALIKE.items() if twin == workload), workload)
    return truth.get(workload, truth.get(like))


def of_truth(
    folder: Path,
    truth: Mapping[str, Mapping[str, float]] = TRUTH,
    *,
    blocks: int = 8,
    noise: float = 0.01,
    failures: tuple[Failure, ...] = (),
    twice: bool = True,
    params: tuple[str, ...] = ("{}",),
) -> Run:
    """Stacks on their bare roots, each value 100 times its true ratio; unfinished, as advice may be asked early."""
    rng = np.random.default_rng(5)
    root_of = {stack: "local/testbed" if "testbed" in stack else "local" for stack in truth}
    about = info(
        workloads={name: workload(kind=kind, primary="m") for name, kind in KINDS.items()},
        failures=[*failures],
    )

    def cell(root: str, name: str) -> list[tuple[int, str, str, float]]:
        """Order, stack, arm and ratio of each measurement in a block."""
        ratios = {stack: true_ratio(truth[stack], name) for stack in truth if root_of[stack] == root}
        known = [(stack, "A", ratio) for stack, ratio in ratios.items() if ratio is not None]
        every = [(root, "A", 1.0), *known, *([(root, "A'", 1.0)] if twice else [])]
        return [(order, *each) for order, each in enumerate(every)]

    def measured() -> Iterator[list[Sample]]:
        for block in range(blocks):
            yield [
                sample(
                    stack=stack, baseline=root, workload=name, params=given, metric=metric, value=value, block=block,
                    order=order, arm=arm, clock="instructions" if root == "local/testbed" else "wall",
                )
                for root, name, given in itertools.product(sorted({*root_of.values()}), KINDS, params)
                for order, stack, arm, ratio in cell(root, name)
                for metric, value in (("m", 100 * ratio * math.exp(rng.normal(0, noise))), ("other", 1.0))
            ]  # fmt: skip

    return load(record(folder, about, measured(), finish=False))


# --- a run over several machines, synthetic as all of them

MACHINES: tuple[dict[str, str], ...] = (
    {"name": "a", "hardware": "rack 7"},
    {"name": "b", "hardware": "rack 7"},
    {"name": "c", "hardware": "rack 7"},
    {"name": "guest", "system": "LXC", "hardware": "rack 7", "baseline": "a"},
    {"name": "d", "hardware": "rack 9"},
    {"name": "e"},
)
# The true ratio of each technique on each machine; that of a guest is over its baseline.
ON_MACHINES: dict[str, dict[str, float]] = {
    "a": {"chroot": 1.0, "kvm": 1.5},
    "b": {"chroot": 1.02, "kvm": 1.6},
    "c": {"chroot": 1.04},
    "guest": {"": 1.2, "chroot": 1.1},
    "d": {"kvm": 3.0},
    "e": {"kvm": 5.0},
}


def on_machines(
    folder: Path,
    truth: Mapping[str, Mapping[str, float]] = ON_MACHINES,
    machines: Iterable[Mapping[str, str]] = MACHINES,
    *,
    blocks: int = 8,
    lacking: Mapping[str, str] | None = None,
    failures: tuple[Failure, ...] = (Failure(stack="c/kvm", stage="open", reason="it has no /dev/kvm"),),
) -> Run:
    """Three workloads on each machine and what ``truth`` says stands on it; ``lacking``: one that a stack has not.

    Another machine's values differ by a factor that is none of the techniques': it must show in no ratio.
    """
    rng = np.random.default_rng(11)
    machines = [dict(each) for each in machines]
    below = {each["name"]: each.get("baseline", "") for each in machines}
    cost: dict[str, float] = {}
    bases: dict[str, str] = {}
    for place, (root, over) in enumerate(truth.items(), 1):
        own = cost[below[root]] * over[""] if below[root] else 10.0 * place
        cost[root], bases[root] = own, below[root] or root
        for layer in [name for name in over if name]:
            cost[f"{root}/{layer}"], bases[f"{root}/{layer}"] = own * over[layer], root
    techniques = {stack: "isolator" if "/" in stack else "none" for stack in cost}
    about = info(
        plan={"machines": machines}, techniques=techniques | {each.stack: "isolator" for each in failures},
        hosts={stack: {} for stack in cost}, failures=[*failures],
        workloads={name: workload(kind="os", title=name, primary="m") for name in DAY_WORKLOADS},
    )  # fmt: skip

    def measured() -> Iterator[list[Sample]]:
        again = [(stack, "A'") for stack in cost if stack in {*bases.values()}]
        every: list[tuple[str, Any]] = [*((stack, "A") for stack in cost), *again]
        for block, name, (stack, arm) in itertools.product(range(blocks), DAY_WORKLOADS, every):
            if (lacking or {}).get(stack) == name:
                continue
            yield [sample(
                stack=stack, baseline=bases[stack], workload=name, metric="m", block=block, arm=arm,
                value=cost[stack] * math.exp(rng.normal(0, 0.004)),
            )]  # fmt: skip

    return load(record(folder, about, measured()))
