"""A Power partition: a guest of KVM in the hypervisor mode of a Power processor, with devices by QEMU."""

from __future__ import annotations

from typing import ClassVar

from vbench.hosts.base import Boot, Host, Payload
from vbench.layers.base import Available, Unavailable
from vbench.layers.parameters import Parameter
from vbench.layers.qemu import Qemu
from vbench.layers.testbed_power import LIBRARIES, command_line
from vbench.technique import Picture, Technique

_PROGRAM = "qemu-system-ppc64"
_ABSENT = ("cap-cfpc=broken", "cap-sbbc=broken", "cap-ibs=broken", "cap-ccf-assist=off")
"""What the emulated POWER9 does not have, and QEMU otherwise promises to a partition."""


class Lpar(Qemu):
    """A logical partition (``pseries``) by KVM: its kernel knows of the hypervisor, and calls it.

    Its memory is translated twice by radix trees: the partition's, and the hypervisor's.
    """

    name: ClassVar[str] = "lpar"
    technique: ClassVar[Technique] = Technique.TYPE_1
    summary: ClassVar[str] = "a Power partition under KVM, virtio disk and network"
    picture: ClassVar[Picture | None] = Picture(
        "on",
        (("kernel", "Partition's kernel", "devices by QEMU"),),
        "with KVM: the hypervisor",
        hypervisor=True,
    )
    catalogue: ClassVar[str | None] = "KVM on Power"
    processes: ClassVar[tuple[str, ...]] = ()
    accelerator: ClassVar[str] = "kvm"
    cpu: ClassVar[str] = "host"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            "firmware",
            ("slof", "vof"),
            "Open Firmware, which looks for devices, or a substitute in QEMU that does not",
            bare=True,
        ),
        *(each for each in Qemu.parameters if each.name != "pages"),
    )

    def probe(self, parent: Host) -> Available | Unavailable:
        """On a Power machine whose kernel has KVM in the processor's hypervisor mode."""
        if parent.payload is None or _PROGRAM not in parent.payload.programs:
            return Unavailable(f"{parent.name} is no Power machine", "use testbed-power/lpar")
        if isinstance(answer := super().probe(parent), Unavailable):
            return answer
        if parent.run(["sh", "-c", ": <>/dev/kvm"], check=False).code != 0:
            return Unavailable(f"/dev/kvm on {parent.name} does not open", "load kvm_hv")
        return Available("KVM in the emulated processor's hypervisor mode")

    def emulator(self, payload: Payload) -> list[str]:
        """The payload's own QEMU, for Power."""
        modules = f"QEMU_MODULE_DIR={payload.tree}/{LIBRARIES}/qemu"
        return ["env", modules, *payload.command(_PROGRAM), "-L", f"{payload.tree}/usr/share/qemu"]

    def board(self) -> str:
        """A partition to which the hypervisor presents interrupts."""
        without = ("x-vof=on",) if self._is("firmware", "vof") else ()
        return ",".join(("pseries", *_ABSENT, "ic-mode=xics", *without))

    def boot(self, payload: Payload, like: str) -> Boot:
        """The payload's kernel, the same as the hypervisor's."""
        return Boot(payload.boot("vmlinux"), command_line(like), payload.boot("initrd"))
