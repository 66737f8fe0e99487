"""Twenty questions of an architect to the decision aid, on the reference bundle.

What is expected stands here and comes from elsewhere than the aid: who meets a need from what is documented of the
techniques (written down below, by hand), what costs least from the samples by a calculation of its own, a dozen lines
of medians. Where two lie within 0.3% of each other - so much can the readings of cpu-crypto, whole units of 2%, move a
mix of processor work - or one workload left out turns the order, nobody should choose.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from vbench import load
from vbench.advisor.advise import advise
from vbench.stats.run import Run

REFERENCE = Path(__file__).parents[2] / "results/reference-testbed"
BASE = "local/testbed"
STACKS = ("chroot", "bubblewrap", "uml", "kvm", "kvm/bubblewrap", "xen", "xen/pv", "xen/pvh", "xen/hvm")
# testbed/qemu is measured in too few workloads to take part in any of the mixes below.

MEETS = {
    # Another system's kernel can be started in it: full virtualization, or a system ported to Xen's interface.
    "other-os": {"kvm", "xen/pv", "xen/pvh", "xen/hvm"},
    # virsh migrate --live, xl migrate; what lies in a KVM guest moves with it. CRIU stops what it moves.
    "live-migration": {"kvm", "kvm/bubblewrap", "xen/pv"},
    # Neither VT-x nor AMD-V: PV is how Xen ran on the processors of 2003; ptrace and namespaces are plain Linux.
    "no-hardware-support": {"chroot", "bubblewrap", "uml", "xen", "xen/pv"},
    # The kernel as its maker ships it, without a port to Xen's interface or to user space; or none of its own.
    "unmodified-guest": {"chroot", "bubblewrap", "kvm", "kvm/bubblewrap", "xen/hvm"},
    # A bug in the kernel that programs see is not a bug in the kernel that others rely on.
    "kernel-isolation": {"uml", "kvm", "kvm/bubblewrap", "xen/pv", "xen/pvh", "xen/hvm"},
}
MIXES = {
    "web": {"network": 0.4, "os": 0.3, "disk": 0.1, "memory": 0.1, "cpu": 0.1},
    "db": {"disk": 0.4, "os": 0.3, "memory": 0.1, "cpu": 0.2},
    "compute": {"cpu": 0.8, "memory": 0.2},
    "compile": {"cpu": 0.8, "os": 0.1, "memory": 0.05, "disk": 0.05},
    "fileserver": {"disk": 0.5, "network": 0.3, "os": 0.2},
    "os": {"os": 1.0},
    "memory": {"memory": 1.0},
    "network": {"network": 1.0},
    "disk": {"disk": 1.0},
    "application": {"application": 1.0},
}

QUESTIONS = [
    # Behind a hypervisor: KVM runs system calls natively, and its virtio network costs least of the guests' in all.
    (("kernel-isolation",), "web", "kvm"),
    # KVM's round trips are dearer than PV's, its throughput cheaper: which weighs more is the user's to say.
    (("kernel-isolation",), "network", None),
    # User Mode Linux reads out of its parent's page cache; what is left of disk is one workload.
    (("kernel-isolation",), "disk", None),
    # A sandbox in a KVM guest touches memory as the guest does.
    (("kernel-isolation",), "memory", None),
    # Without VT-x or AMD-V: a system call in User Mode Linux is traced, in PV a trap into Xen and back.
    (("kernel-isolation", "no-hardware-support"), "web", "xen/pv"),
    # User Mode Linux would come first, but for many reads at once.
    (("kernel-isolation", "no-hardware-support"), "fileserver", None),
    (("kernel-isolation", "no-hardware-support"), "os", "xen/pv"),
    (("kernel-isolation", "no-hardware-support"), "application", "xen/pv"),
    (("kernel-isolation", "no-hardware-support"), "disk", None),
    # Another system, with hardware to help: KVM against three kinds of Xen guests.
    (("other-os",), "db", "kvm"),
    # What tells KVM from PVH and HVM guests here is reading the clock.
    (("other-os",), "compile", None),
    (("other-os",), "compute", None),
    (("other-os",), "disk", None),  # PV reads at less cost, KVM writes at less
    # As its maker ships it: PV is out, and HVM's packets go through dom0. KVM leads on disks by random writes alone.
    (("other-os", "unmodified-guest"), "network", "kvm"),
    (("other-os", "unmodified-guest"), "disk", None),
    (("other-os", "unmodified-guest"), "application", "kvm"),
    (("other-os", "no-hardware-support"), "db", "xen/pv"),  # nothing else is left
    (("live-migration",), "fileserver", "kvm"),
    # A root directory against namespaces: computing does not feel either, packets feel the veth pair.
    (("no-hardware-support",), "compute", None),
    (("unmodified-guest",), "web", "chroot"),
]


@cache
def reference() -> Run:
    return load(REFERENCE)


@cache
def log_costs() -> dict[str, dict[str, float]]:
    """By stack and workload, the median over blocks of log(cost / mean cost of the baseline's two measurements)."""
    run = reference()
    primary = {name: each.primary for name, each in run.info.workloads.items()}
    samples = run.samples[
        ~run.samples["warmup"] & (run.samples["metric"] == run.samples["workload"].map(primary))
    ]
    sign = np.where(samples["better"] == "higher", -1.0, 1.0)
    costs = samples.assign(log=sign * np.log(samples["value"]))
    found: dict[str, dict[str, float]] = {}
    for stack in STACKS:
        for workload in primary:
            mine = costs[costs["workload"] == workload]
            base, here = (
                mine[mine["stack"] == name].groupby("block")["log"].mean()
                for name in (BASE, f"{BASE}/{stack}")
            )
            gap = (here - base).dropna()
            if len(gap) == len(base):
                found.setdefault(stack, {})[workload] = float(gap.median())
    return found


def order(stacks: set[str], mix: dict[str, float], without: frozenset[str]) -> list[tuple[float, str]]:
    """The stacks by their cost under a mix, the lowest first."""
    kinds = {name: each.kind for name, each in reference().info.workloads.items() if name not in without}
    out = []
    for stack in stacks:
        logs = log_costs()[stack]
        weighed = [
            (weight, [logs[name] for name, of in kinds.items() if of == kind]) for kind, weight in mix.items()
        ]
        known = [(weight, float(np.mean(mine))) for weight, mine in weighed if mine]
        out.append((sum(w * mean for w, mean in known) / sum(w for w, _ in known), stack))
    return sorted(out)


def derived(needs: tuple[str, ...], mix: dict[str, float]) -> str | None:
    """The answer by this file's own means; None where nobody should choose."""
    stacks = set(STACKS).intersection(*(MEETS[need] for need in needs))
    names = [name for name, each in reference().info.workloads.items() if each.kind in mix]
    absent = frozenset(name for name in names if any(name not in log_costs()[stack] for stack in stacks))
    names = [name for name in names if name not in absent]  # the plan leaves it out somewhere
    beaten = frozenset(name for name in names if any(log_costs()[stack][name] < -0.01 for stack in stacks))
    if len(beaten) == len(names):
        return None
    whole = order(stacks, mix, beaten | absent)
    if len(whole) == 1:
        return whole[0][1]
    if len(names) - len(beaten) < 2:
        return None  # a single workload carries no choice
    for name in ["", *(name for name in names if name not in beaten)]:
        first, second = order(stacks, mix, beaten | absent | {name})[:2]
        if first[1] != whole[0][1] or second[0] - first[0] < 0.003:
            return None
    return whole[0][1]


def test_there_are_twenty() -> None:
    assert len({(needs, mix) for needs, mix, _ in QUESTIONS}) == len(QUESTIONS) == 20
    assert {mix for _, mix, _ in QUESTIONS} == MIXES.keys()
    assert {need for needs, _, _ in QUESTIONS for need in needs} == MEETS.keys()
    assert (
        4 <= sum(expected is None for _, _, expected in QUESTIONS) <= 10
    )  # both kinds of answer are asked for


@pytest.mark.parametrize(
    ("needs", "mix", "expected"), QUESTIONS, ids=[f"{'+'.join(n)} {m}" for n, m, _ in QUESTIONS]
)
def test_the_answer_is_that_of_facts_and_measurements(
    needs: tuple[str, ...], mix: str, expected: str | None
) -> None:
    assert derived(needs, MIXES[mix]) == expected
    (answer,) = advise(reference(), needs, mix).answers
    assert answer.choice == (None if expected is None else f"{BASE}/{expected}"), answer.text
    if expected is None:
        assert answer.text.startswith("Not decidable from this data: ")
