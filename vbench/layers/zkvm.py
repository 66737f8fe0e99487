"""A guest of KVM on a mainframe, whose instructions run by SIE, with devices by QEMU."""

from __future__ import annotations

from typing import ClassVar

from vbench.hosts.base import Boot, Host, Payload
from vbench.layers.base import Available, Unavailable
from vbench.layers.parameters import Parameter
from vbench.layers.qemu import Qemu
from vbench.layers.testbed_z import LIBRARIES, command_line
from vbench.technique import Picture, Technique

_PROGRAM = "qemu-system-s390x"


class Zkvm(Qemu):
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
    processes: ClassVar[tuple[str, ...]] = ()
    accelerator: ClassVar[str] = "kvm"
    cpu: ClassVar[str] = "host"
    parameters: ClassVar[tuple[Parameter, ...]] = tuple(
        each for each in Qemu.parameters if each.name != "pages"
    )

    def probe(self, parent: Host) -> Available | Unavailable:
        """On a mainframe whose kernel has KVM."""
        if parent.payload is None or _PROGRAM not in parent.payload.programs:
            return Unavailable(f"{parent.name} is no mainframe", "use testbed-z/zkvm")
        if isinstance(answer := super().probe(parent), Unavailable):
            return answer
        if parent.run(["sh", "-c", ": <>/dev/kvm"], check=False).code != 0:
            return Unavailable(f"/dev/kvm on {parent.name} does not open", "load kvm")
        return Available("KVM by the emulated processor's SIE; not reliable yet, see docs/techniques.md")

    def emulator(self, payload: Payload) -> list[str]:
        """The payload's own QEMU, for z, by no other loader: the kernel looks in its header for the kind of page table.

        One thing is answered in KVM's place: see the shim.
        """
        library, *_, path = f"{payload.tree}/{LIBRARIES}", *payload.command(_PROGRAM)
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

    def boot(self, payload: Payload, like: str) -> Boot:
        """The payload's kernel, the same as the hypervisor's."""
        return Boot(payload.boot("vmlinux"), command_line(like), payload.boot("initrd"))
