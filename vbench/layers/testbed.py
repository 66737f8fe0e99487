"""The testbed: an emulated PC whose clock counts instructions, so that figures repeat on any machine."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from vbench.hosts.base import Boot, Host, Payload, Setting, System
from vbench.hosts.placement import Disk, Medium, Placement
from vbench.layers import guest
from vbench.layers.base import Shape
from vbench.layers.environment import Site
from vbench.layers.qemu import Qemu
from vbench.technique import PICTURES, Picture, Technique
from vbench.terms import Clock

MEMORY_MIB = 3584
"""Memory of the emulated PC: for its scratch storage, and for two guests of the usual shape on it, under Xen, too."""


class Testbed(Qemu):
    """An AMD PC with virtualization extensions, emulated under instruction counting.

    A second in it is a fixed number of instructions: no caches, no TLB misses, and no cost of leaving a
    guest beyond the instructions that this causes. It is a baseline of its own.
    """

    name: ClassVar[str] = "testbed"
    technique: ClassVar[Technique] = Technique.TYPE_2
    summary: ClassVar[str] = "an emulated PC under instruction counting, on which KVM and Xen really run"
    picture: ClassVar[Picture | None] = PICTURES["testbed"]
    catalogue: ClassVar[str | None] = "vbench testbed"
    clock: ClassVar[Clock | None] = "instructions"
    own_machine: ClassVar[bool] = True
    takes_system: ClassVar[bool] = True
    # SMAP and SMEP stop a paravirtualized dom0, MONITOR an idle vCPU under Xen, and KVM here gives its guests no
    # XSAVE and so no AVX: off for all, so that every environment computes with the same instructions.
    cpu: ClassVar[str] = "EPYC-Rome,-smap,-smep,-monitor,-xsave,-avx,-avx2,-fma,-f16c"
    accelerator: ClassVar[str] = "tcg"
    seconds: ClassVar[float] = 120
    may_use_tap: ClassVar[bool] = False  # the same with and without root

    def baseline(self, parents: tuple[str, ...]) -> None:
        """None: its seconds are not its parent's."""

    def machine(self, shape: Shape) -> list[str]:
        """A fixed PC; one vCPU, because instruction counting allows no more."""
        return [*super().machine(Shape(1, MEMORY_MIB, shape.disk_mib)), "-icount", "shift=1,sleep=on"]

    def __init__(self, system: System | None = None) -> None:
        self._system = system or System("", MEMORY_MIB, super().boot)

    def boot(self, payload: Payload, like: str) -> Boot:
        """No mitigations: the emulated processor has nothing to mitigate.

        No random addresses: on these depends how many page tables a process needs, and 1% of a fork's time. No
        huge pages: dom0, Xen's paravirtualized guests and User Mode Linux have none either.
        """
        return self._system.boot(payload, "mitigations=off norandmaps transparent_hugepage=never")

    def path(self, parent: Host) -> str:
        """That of the layer that its system makes, where it is not its own."""
        return "/".join(filter(None, (super().path(parent), self._system.layer)))

    def place(self, site: Site) -> Placement:
        """One vCPU, memory of its own, also as scratch storage."""
        return Placement(
            vcpus=1,
            memory_mib=self._system.memory_mib,
            disk=Disk(Medium.TIMED_MEMORY),
            cpu=f"QEMU {self.cpu}",
            slowdown=12.0,
        )

    def adjust(self, site: Site, setting: Setting) -> Setting:
        """A machine of its own, on which the other ends of networks run, too, and which can be booted again."""
        return replace(
            setting,
            peer="127.0.0.1",
            bind="127.0.0.1",
            peer_at="",
            admit=None,
            reboot=lambda system: Testbed(system).open(site.parent, site.shape),
        )

    def settle(self, site: Site, host: Host) -> None:
        """Takes ten seconds with all before: its scratch storage moves into its own memory."""
        guest.load_modules(host, "tun", "kvm_amd")
        _move_scratch(host, 3 * site.shape.disk_mib)


# A device takes time over a request. A timer would let the emulated processor fall idle, and an idle testbed's
# clock follows that of the machine outside (500 reads then differ by 2% from time to time). So the service is
# work: the kernel's plain ChaCha20 over each block, some 200 us for 4 KiB, which repeats within 0.01%.
_CIPHER = f"capi:chacha20-generic-plain64 {'76' * 32}"


def _move_scratch(host: Host, mebibytes: int) -> None:
    """Give the testbed scratch storage in its own memory, with a fixed service time, in place of the disk."""
    for module in (["brd", "rd_nr=1", f"rd_size={mebibytes * 1024}"], ["chacha_generic"], ["dm_crypt"]):
        host.run([*host.program("modprobe"), *module])
    table = f"0 {mebibytes * 2048} crypt {_CIPHER} 0 /dev/ram0 0 1 sector_size:4096\n"
    host.run([*host.program("dmsetup"), "create", "--noudevsync", "scratch"], input=table.encode())
    guest.make_ext4(host, "/dev/dm-0", timeout=600)
    host.run(["mount", "-o", "noatime", "/dev/dm-0", "/scratch"])
