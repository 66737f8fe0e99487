"""A guest of KVM on a mainframe, whose instructions run by SIE, with devices by QEMU."""

from __future__ import annotations

from typing import ClassVar

from vbench.hosts.base import Payload
from vbench.layers.foreign import ForeignKvm
from vbench.layers.parameters import Parameter
from vbench.layers.qemu import Qemu
from vbench.layers.testbed_z import LIBRARIES, command_line
from vbench.technique import Picture, Technique


class Zkvm(ForeignKvm):
    """A virtual machine by KVM, which has the processor interpret it (SIE), as PR/SM and z/VM do."""

    name: ClassVar[str] = "zkvm"
    technique: ClassVar[Technique] = Technique.TYPE_1
    summary: ClassVar[str] = "a mainframe's guest under KVM, virtio disk and network"
    picture: ClassVar[Picture | None] = Picture(
        "on",
        (("kernel", "Guest kernel", "devices by QEMU"),),
        "with KVM: the hypervisor",
        hypervisor=True,
    )
    catalogue: ClassVar[str | None] = "KVM on z"
    program: ClassVar[str] = "qemu-system-s390x"
    machine_is: ClassVar[str] = "mainframe"
    at: ClassVar[str] = "testbed-z/zkvm"
    module: ClassVar[str] = "kvm"
    answer: ClassVar[str] = "KVM by the emulated processor's SIE"
    parameters: ClassVar[tuple[Parameter, ...]] = tuple(
        each for each in Qemu.parameters if each.name != "pages"
    )

    def emulator(self, payload: Payload) -> list[str]:
        """The payload's own QEMU, for z, by no other loader: the kernel looks in its header for the kind of page table.

        One thing is answered in KVM's place: see the shim.
        """
        library, *_, path = f"{payload.tree}/{LIBRARIES}", *payload.command(self.program)
        told = [f"QEMU_MODULE_DIR={library}/qemu", f"LD_PRELOAD={library}/vbench-shim.so"]
        found = ":".join(f"{payload.tree}/{part}" for part in payload.library_path)
        return ["env", *told, f"LD_LIBRARY_PATH={found}", path, "-L", f"{payload.tree}/usr/share/qemu"]

    @property
    def bus(self) -> str:
        """Devices are on channels."""
        return "ccw"

    def board(self) -> str:
        """A mainframe with devices for KVM."""
        return "s390-ccw-virtio"

    def told(self, like: str) -> str:
        """As the machine's own kernel."""
        return command_line(like)
