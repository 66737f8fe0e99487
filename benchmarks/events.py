"""What one operation is made of: how often its parent's kernel or hypervisor is entered, by that one's own counters.

``python benchmarks/events.py [STACK]...``: instructions, context switches of the parent, exits from a guest by reason,
and hypercalls, each of one null call, one page fault and one fork with exec. Each is the difference of two invocations
of the probe, divided by that of their work, so that what starting the probe costs is not in it.

Exits under KVM are those that the tracepoint ``kvm:kvm_exit`` counts, under Xen those of xentrace's VMEXIT records, and
hypercalls those of its PV_HYPERCALL records; under VirtualBox, those that it counts itself (``VBoxManage debugvm``).
"""

from __future__ import annotations

import argparse
import json
import re
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

from vbench.capsule.capsule import require
from vbench.hosts.base import Host
from vbench.layers.base import Shape
from vbench.layers.guest import DIRECTORY
from vbench.layers.stack import Stack, open_layers

STACKS = (
    *("testbed", "testbed/oci", "testbed/oci:seccomp=podman", "testbed/uml"),
    *("testbed/gvisor:kvm", "testbed/gvisor:systrap", "testbed/gvisor:ptrace"),
    *("testbed/kvm", "testbed/libkrun", "testbed/virtualbox", "testbed/xen/pv", "testbed/xen/pvh"),
)
OPERATIONS = {"nullcall": (2000, 12000), "pagefault": (200, 1200), "forkexec": (4, 24)}
"""By the probe's command, the smaller and the larger work."""
NANOSECONDS = 2
"""Of an instruction on the testbed."""
_SWITCHES = "context switches"
_KVM = "/sys/kernel/debug/tracing/events/kvm/kvm_exit"
_VMEXIT, _HYPERCALL = 0x00081002, 0x0020100D
_PV_EVENTS = {
    0x201003: "trap",
    0x201004: "page fault passed on",
    0x201006: "privileged instruction",
    0x20100B: "page table write",
}
"""Of xentrace's records (xen/include/public/trace.h)."""
_TRACED = "/scratch/trace"
_TRACER = f"{DIRECTORY}/tree/usr/lib/xen-4.17/bin/xentrace -D -e 0x0028f000 -s 100 {_TRACED}"
_HYPERCALLS = {
    **{
        1: "mmu_update",
        3: "stack_switch",
        5: "fpu_taskswitch",
        13: "multicall",
        14: "update_va_mapping",
        23: "iret",
    },
    **{
        15: "set_timer_op",
        24: "vcpu_op",
        25: "set_segment_base",
        26: "mmuext_op",
        29: "sched_op",
        32: "event_channel_op",
    },
}
"""xen/include/public/xen.h"""
_REASONS = {
    0x60: "interrupt",
    0x64: "interrupt window",
    0x72: "CPUID",
    0x78: "HLT",
    0x7B: "I/O",
    0x7C: "MSR",
    0x81: "VMMCALL",
    0x400: "nested page fault",
}
"""Of AMD's architecture (AMD64 Architecture Programmer's Manual, volume 2, appendix C)."""


class Meter:
    """Counts what happens on a host while something is done in a guest of it."""

    def __init__(self, parent: Host) -> None:
        self.parent = parent

    def __call__(self) -> Counter[str]:
        """All that has been counted up to now."""
        return Counter({_SWITCHES: int(self.look("sed -n 's/^ctxt //p' /proc/stat"))})

    def look(self, command: str) -> str:
        """What a shell on the parent prints."""
        return self.parent.run(["sh", "-c", command], timeout=600).text


class Kvm(Meter):
    """Exits by reason, as a histogram of the kernel's own keeps them."""

    def __init__(self, parent: Host) -> None:
        super().__init__(parent)
        self.look("mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug")
        self.look(f"echo 'hist:keys=exit_reason' > {_KVM}/trigger")

    def __call__(self) -> Counter[str]:
        """All that has been counted up to now."""
        rows = re.findall(r"exit_reason: +(\S+) .*hitcount: +(\d+)", self.look(f"cat {_KVM}/hist"))
        return super().__call__() + Counter(
            {f"exit {_reason(int(reason))}": int(count) for reason, count in rows}
        )


class VirtualBox(Meter):
    """Exits, as many as VirtualBox has put into its history of them; its packages count none by reason."""

    def __call__(self) -> Counter[str]:
        """All that has been counted up to now."""
        said = self.look(
            "export HOME=/root VBOX_USER_HOME=/tmp/vbench/home VBOX_IPC_SOCKETID=vbench;"
            ' nsenter -t "$(pgrep -x VBoxHeadless | tail -n 1)" -m -i -p -r /usr/lib/virtualbox/VBoxManage -q'
            " debugvm vbench statistics --pattern /PROF/CPU0/EM/RecordedExits"
        )
        return super().__call__() + Counter({"exit": int(re.findall(r'val="(\d+)"', said)[0])})


class Xen(Meter):
    """Exits by reason and hypercalls by name, as Xen's own trace has them; it begins when the first is asked for."""

    def __call__(self) -> Counter[str]:
        """All that has been counted up to now."""
        self.look(f"pgrep -x xentrace || {{ setsid {_TRACER} & }} 2> /dev/null; sleep 1")
        data = self.parent.run(["cat", _TRACED], timeout=600).stdout
        return super().__call__() + Counter(_records(data))


def _records(data: bytes) -> Iterator[str]:
    at = 0
    while at + 4 <= len(data):
        (head,) = struct.unpack_from("<I", data, at)
        event, extra = head & 0xFFFFFFF & ~0x100, head >> 28 & 7
        at += 12 if head >> 31 else 4
        first = struct.unpack_from("<I", data, at)[0] if extra and at + 4 <= len(data) else 0
        at += 4 * extra
        if event == _VMEXIT:
            yield f"exit {_reason(first)}"
        elif event == _HYPERCALL:
            yield f"hypercall {_HYPERCALLS.get(first & 0xFFFFF, first & 0xFFFFF)}"
        elif event in _PV_EVENTS:
            yield _PV_EVENTS[event]


def _reason(code: int) -> str:
    return _REASONS.get(code, hex(code))


def meter_of(path: str, parent: Host) -> Meter:
    """What can count on a stack's parent."""
    top = path.rpartition("/")[2]
    if top.startswith(("kvm", "libkrun", "gvisor:kvm")):
        return Kvm(parent)
    if top.startswith("virtualbox"):
        return VirtualBox(parent)
    return Xen(parent) if "xen" in path else Meter(parent)


def probe(host: Host, operation: str, work: int) -> dict[str, Any]:
    """What the probe says of an operation."""
    argv = [*host.program("vbench-probe"), operation, "--work", str(work)]
    return dict(json.loads(host.run(argv, timeout=600).text))


def rows(path: str) -> Iterator[str]:
    """A stack's rows, as Markdown."""
    with open_layers(Stack.parse(f"local/{path}"), require(), Shape()) as hosts:
        guest, parent = hosts[-1], hosts[-2 if len(hosts) > 2 else -1]
        alone = {
            operation: probe(guest, operation, works[1])["value"] for operation, works in OPERATIONS.items()
        }
        meter = meter_of(path, parent)  # which takes time itself
        for operation, works in OPERATIONS.items():
            found = []
            for work in works:
                before = meter()
                said = probe(guest, operation, work)
                found.append(meter() - before)
            more = (works[1] - works[0]) * len(said["batches"])
            each = {key: (found[1][key] - found[0][key]) / more for key in found[0] | found[1]}
            events = ", ".join(
                f"{key} {count:.2f}"
                for key, count in sorted(each.items())
                if key != _SWITCHES and count >= 0.01
            )
            instructions = alone[operation] * 1e9 / NANOSECONDS
            told = [f"`{path}`", operation, f"{instructions:,.0f}", f"{each[_SWITCHES]:.2f}", events]
            yield f"| {' | '.join(told)} |"


def main() -> None:
    """Print a table of one row for each stack and operation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stacks", nargs="*", default=STACKS, metavar="STACK")
    print(
        "| stack | operation | instructions | parent's context switches | exits and hypercalls |\n|---|---|---|---|---|"
    )
    for path in parser.parse_args().stacks:
        print(*rows(path), sep="\n", flush=True)


if __name__ == "__main__":
    main()
