"""The testbed: an emulated PC whose clock counts instructions, so results repeat on any machine."""

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
"""Memory of the emulated PC: enough for scratch storage and two guests of the usual shape, also under Xen."""


class Testbed(Qemu):
    """An AMD PC with virtualization extensions, emulated with instruction counting.

    A second in it is a fixed number of instructions: no caches, no TLB misses, and no cost of a VM exit
    beyond the instructions it causes. It is its own baseline.
    """

    name: ClassVar[str] = "testbed"
    technique: ClassVar[Technique] = Technique.TYPE_2
    summary: ClassVar[str] = "an emulated PC with instruction counting, on which KVM and Xen really run"
    picture: ClassVar[Picture | None] = PICTURES["testbed"]
    catalogue: ClassVar[str | None] = "vbench testbed"
    clock: ClassVar[Clock | None] = "instructions"
    own_machine: ClassVar[bool] = True
    takes_system: ClassVar[bool] = True
    # SMAP and SMEP stop a paravirtualized dom0, MONITOR stops an idle vCPU under Xen, and KVM here gives its
    # guests no XSAVE and so no AVX: all off, so that every environment computes with the same instructions.
    cpu: ClassVar[str] = "EPYC-Rome,-smap,-smep,-monitor,-xsave,-avx,-avx2,-fma,-f16c"
    accelerator: ClassVar[str] = "tcg"
    seconds: ClassVar[float] = 120
    may_use_tap: ClassVar[bool] = False  # the same network with and without root

    def baseline(self, parents: tuple[str, ...]) -> None:
        """No baseline: its seconds are not its parent's."""

    def machine(self, shape: Shape) -> list[str]:
        """A fixed PC; one vCPU, because instruction counting supports no more."""
        return [*super().machine(Shape(1, MEMORY_MIB, shape.disk_mib)), "-icount", "shift=1,sleep=on"]

    def __init__(self, system: System | None = None) -> None:
        self._system = system or System("", MEMORY_MIB, super().boot)

    def boot(self, payload: Payload, like: str) -> Boot:
        """No mitigations: the emulated processor has nothing to mitigate.

        No ASLR: it changes how many page tables a process needs, which is 1% of a fork's time. No huge pages:
        dom0, Xen's paravirtualized guests and User Mode Linux have none either.
        """
        return self._system.boot(payload, "mitigations=off norandmaps transparent_hugepage=never")

    def path(self, parent: Host) -> str:
        """The stack path, including the layer that another booted system adds."""
        return "/".join(filter(None, (super().path(parent), self._system.layer)))

    def place(self, site: Site) -> Placement:
        """One vCPU, and its own memory, which also holds the scratch storage."""
        return Placement(
            vcpus=1,
            memory_mib=self._system.memory_mib,
            disk=Disk(Medium.TIMED_MEMORY),
            cpu=f"QEMU {self.cpu}",
            slowdown=12.0,
        )

    def adjust(self, site: Site, setting: Setting) -> Setting:
        """A separate machine, which also runs the other ends of networks and can be rebooted."""
        return replace(
            setting,
            peer="127.0.0.1",
            bind="127.0.0.1",
            peer_at="",
            admit=None,
            reboot=lambda system: Testbed(system).open(site.parent, site.shape),
        )

    def settle(self, site: Site, host: Host) -> None:
        """Moves scratch storage into its own memory; takes ten seconds, including everything before."""
        guest.load_modules(host, "tun", "kvm_amd")
        _move_scratch(host, 3 * site.shape.disk_mib)


# A real device takes time to serve a request. A timer would let the emulated processor go idle, and an idle
# testbed's clock follows the outer machine's (500 reads then differ by 2% between runs). So the service time
# is work: the kernel's generic ChaCha20 over each block, about 200 us per 4 KiB, which repeats within 0.01%.
_CIPHER = f"capi:chacha20-generic-plain64 {'76' * 32}"


def _move_scratch(host: Host, mebibytes: int) -> None:
    """Replace the testbed's scratch disk with storage in its own memory that has a fixed service time."""
    for module in (["brd", "rd_nr=1", f"rd_size={mebibytes * 1024}"], ["chacha_generic"], ["dm_crypt"]):
        host.run([*host.program("modprobe"), *module])
    table = f"0 {mebibytes * 2048} crypt {_CIPHER} 0 /dev/ram0 0 1 sector_size:4096\n"
    host.run([*host.program("dmsetup"), "create", "--noudevsync", "scratch"], input=table.encode())
    guest.make_ext4(host, "/dev/dm-0", timeout=600)
    host.run(["mount", "-o", "noatime", "/dev/dm-0", "/scratch"])
