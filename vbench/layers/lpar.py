"""A Power partition: a guest of KVM in the hypervisor mode of a Power processor, with devices by QEMU."""

from __future__ import annotations

from typing import ClassVar

from vbench.hosts.base import Payload
from vbench.layers.foreign import ForeignKvm
from vbench.layers.parameters import Parameter
from vbench.layers.qemu import Qemu
from vbench.layers.testbed_power import LIBRARIES, command_line
from vbench.technique import Picture, Technique

_ABSENT = ("cap-cfpc=broken", "cap-sbbc=broken", "cap-ibs=broken", "cap-ccf-assist=off")
"""What the emulated POWER9 does not have, and QEMU otherwise promises to a partition."""


class Lpar(ForeignKvm):
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
    program: ClassVar[str] = "qemu-system-ppc64"
    machine_is: ClassVar[str] = "Power machine"
    at: ClassVar[str] = "testbed-power/lpar"
    module: ClassVar[str] = "kvm_hv"
    answer: ClassVar[str] = "KVM in the emulated processor's hypervisor mode"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            "firmware",
            ("slof", "vof"),
            "Open Firmware, which looks for devices, or a substitute in QEMU that does not",
            bare=True,
        ),
        *(each for each in Qemu.parameters if each.name != "pages"),
    )

    def emulator(self, payload: Payload) -> list[str]:
        """The payload's own QEMU, for Power."""
        modules = f"QEMU_MODULE_DIR={payload.tree}/{LIBRARIES}/qemu"
        return ["env", modules, *payload.command(self.program), "-L", f"{payload.tree}/usr/share/qemu"]

    def board(self) -> str:
        """A partition to which the hypervisor presents interrupts."""
        without = ("x-vof=on",) if self._is("firmware", "vof") else ()
        return ",".join(("pseries", *_ABSENT, "ic-mode=xics", *without))

    def told(self, like: str) -> str:
        """As the machine's own kernel."""
        return command_line(like)
