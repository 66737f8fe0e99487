"""What a machine says of itself, held against what a hosts file declares it to be.

The signs are those of ``vbench.observe.facts``: files of Xen, firmware names, clock sources, the processor's flag. A
guest may hide what it runs on, and a hypervisor may claim to be another: so a sign that contradicts the declaration is
called out, and no sign is no contradiction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vbench.hosts.base import Host
from vbench.hosts.command import script
from vbench.observe import facts, machine
from vbench.observe.facts import UNAVAILABLE

# By what "virtualized" begins with, the systems in the catalogue that look so from inside (facts._MAKERS).
_SEEN: dict[str, frozenset[str]] = {
    "kvm": frozenset(("KVM", "Proxmox", "QEMU", "Firecracker", "Cloud Hypervisor")),
    "qemu": frozenset(("KVM", "Proxmox", "QEMU", "vbench testbed")),
    "amazon": frozenset(("AWS Nitro",)),
    "google": frozenset(("KVM",)),
    "vmware": frozenset(
        ("ESX", "ESXi", "VMware Workstation", "VMware Fusion", "VMware Player", "VMware Server")
    ),
    "virtualbox": frozenset(("VirtualBox",)),
    "hyper-v": frozenset(("Hyper-V", "Hyper-V Server", "Azure hypervisor", "Virtual PC", "Virtual Server")),
    "xen": frozenset(("Xen", "Xen dom0", "Xen PV guest", "Xen HVM guest", "Xen PVH guest", "XCP-ng")),
    "parallels": frozenset(("Parallels Desktop", "Parallels Server", "Parallels Server Bare Metal")),
    "bhyve": frozenset(("bhyve",)),
    "uml": frozenset(("User Mode Linux",)),
}
_ISOLATORS = (
    "BSD jail, chroot, bubblewrap, LXC, OpenVZ, Docker, OCI container, Podman, systemd-nspawn, Linux-VServer"
)
_KERNELS = "gVisor, coLinux, Adeos, Dovetail, L4Linux"
WITHOUT_HYPERVISOR = frozenset(f"{_ISOLATORS}, {_KERNELS}".split(", "))
"""Systems of the catalogue that show what their host runs on, or nothing."""
_SAME = ("cpu", "machine")
"""Facts in which two machines on the same hardware agree, whatever runs on it."""
_ALIKE = ("microcode",)
"""Facts in which they should, but hypervisors often show their guests something else."""


SHOWN = (
    "virtualized", "hypervisor_leaf", "virt_what", "container", "vendor", "product", "firmware", "hypervisor",
    "clocksource", "clock_offset_s", "round_trip_s", "steal", "cpu", "microcode", "cpus", "memory_kib", "kernel",
    "machine",
)  # fmt: skip
"""What is told of a machine, in this order."""
_ASK = script(Path(__file__).parent / "scripts/identify.sh")


def ask(host: Host) -> dict[str, Any]:
    """A machine's facts, and what more it says of itself; nothing has to be installed there.

    ``hypervisor_leaf``: the signature in CPUID leaf 0x40000000, which hypervisors fill in, where the kernel lets it be
    read. ``virt_what``: what that program says, if it is there. ``steal``: share of CPU time since boot that was
    withheld.
    """
    known = facts.collect(host)
    said = host.run(["sh", "-c", _ASK], check=False, timeout=60).text.splitlines()
    return {
        **known,
        "round_trip_s": f"{machine.round_trip(host):.4f}",
        **{
            name: text or f"{UNAVAILABLE}it is not told" for name, _, text in (s.partition(" ") for s in said)
        },
    }


def contradictions(system: str, known: Mapping[str, Any]) -> Iterator[str]:
    """What a machine's facts say against the system that it is declared to be; "": one without a hypervisor."""
    seen = str(known.get("virtualized", ""))
    kind = seen.partition(" ")[0].rstrip(",")
    if system in WITHOUT_HYPERVISOR:
        return
    if not system:
        if kind in _SEEN or seen.startswith("yes"):
            yield f"it is declared without a hypervisor, and shows {seen}"
        return
    if kind in _SEEN and system not in _SEEN[kind]:
        yield f"it is declared to be {system}, and shows {seen}"
    if seen == "no sign of it":
        yield f"it is declared to be {system}, and shows no sign of any hypervisor"


def other_hardware(mine: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """The facts in which a machine and its baseline differ although they are declared to be on the same hardware.

    A fact that one of them cannot read says nothing. Hypervisors may show another processor than there is: then the two
    are not comparable either, as the guest is given less.
    """
    return [*_differences(_SAME, mine, base)]


def odd_hardware(mine: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """The facts that may show other hardware, or a hypervisor that shows its guests something else."""
    return [*_differences(_ALIKE, mine, base)]


def _differences(names: Sequence[str], mine: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[str]:
    for name in names:
        ours, theirs = str(mine.get(name, UNAVAILABLE)), str(base.get(name, UNAVAILABLE))
        if ours != theirs and not ours.startswith(UNAVAILABLE) and not theirs.startswith(UNAVAILABLE):
            yield f"{name}: {ours} here, {theirs} there"
