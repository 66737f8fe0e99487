"""The testbed with Intel VT: a PC emulated by Bochs, whose processor has VT-x with nested paging."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

from vbench.exact import boot
from vbench.exact.machine import Machine, unsaved
from vbench.exact.opening import Run
from vbench.hosts.base import Host, Payload
from vbench.hosts.command import script
from vbench.layers import guest
from vbench.layers.base import Available, Unavailable
from vbench.layers.qemu import command_line
from vbench.layers.testbed import ARGUMENTS, Testbed, misplaced
from vbench.technique import AddOn, Picture

SECOND = 3_500_000_000
"""Instructions: the frequency that the emulated Skylake-X states (CPUID leaf 0x15), which Linux believes."""
DEADLINE = 1800.0
"""Seconds in which it has to start. It takes about 180 on an idle processor."""
_RUN = script(guest.SCRIPTS / "bochs.sh")


class TestbedVt(Testbed):
    """A PC with an Intel processor, emulated by Bochs, of whose clock a second is a fixed number of instructions.

    It interprets each instruction, and so is slower than the testbed, but as exact. It cannot be saved: it is started
    from power-on whenever something is asked of it that has not been asked before.
    """

    name: ClassVar[str] = "testbed-vt"
    summary: ClassVar[str] = (
        "an emulated PC with Intel VT, under instruction counting, on which KVM really runs"
    )
    picture: ClassVar[Picture | None] = Picture(
        "on",
        (
            ("hypervisor", "Bochs", "counts instructions"),
            ("hardware", "Emulated PC", "Intel VT-x, nested paging"),
            ("kernel", "Testbed's kernel", "operating system"),
        ),
    )
    catalogue: ClassVar[str | None] = "Bochs"
    takes_system: ClassVar[bool] = False
    processes: ClassVar[tuple[str, ...]] = ("bochs(-bin)?",)
    seconds: ClassVar[float] = 600
    processor: ClassVar[str] = "Bochs corei7_skylake_x"
    modules: ClassVar[tuple[str, ...]] = ("tun", "kvm_intel")
    slowdown: ClassVar[float] = 60.0
    saves: ClassVar[bool] = False
    memory_mib: ClassVar[int] = 1536
    needs: ClassVar[AddOn] = AddOn(
        "bochs",
        script=(guest.SCRIPTS / "bochs-add-on.sh", guest.SCRIPTS / "bochs-init.sh"),
        material={
            "bookworm": (
                *("linux-image-{release}", "genisoimage", "isolinux", "syslinux-common"),
                *("bochs", "bochs-term", "bochsbios", "vgabios", "ncurses-base"),
            )
        },
        sources=boot.DISK_GATE,
        exclude=(
            *("/usr/share/doc/*", "/usr/share/icons/*", "/usr/share/locale/*", "/boot/*"),
            *("/lib/modules/*/kernel/drivers/[b-mo-rt-z]*", "/lib/modules/*/kernel/[fs]*"),
        ),
        lock=Path(__file__).with_name("testbed_vt.lock.json"),
    )

    def probe(self, parent: Host) -> Available | Unavailable:
        """On the machine that vbench itself runs on; it needs no privilege."""
        return misplaced(self.name, parent) or Available("Bochs, Skylake-X")

    def _machine(self, parent: Host, payload: Payload) -> tuple[Run, list[str]]:
        """Its random numbers, the processor's and the kernel's, begin with the seed."""
        part = payload.add_ons[self.needs.name]
        programs = Path(part.directory) / "tree"
        initrd = boot.initrd(payload, programs, Path(part.directory))
        arguments = f"{command_line(ARGUMENTS)} vbench.seed={parent.seed}"
        sizes = [str(self.memory_mib), str(SECOND), str(parent.seed)]

        def run(work: Path, _files: Path, _saved: bool, _private: bool) -> AbstractContextManager[Machine]:
            where = [payload.tree, payload.image, str(initrd), str(work), str(programs)]
            return unsaved(
                parent, ["sh", "-c", _RUN, "sh", *where, *sizes, *arguments.split()], work, DEADLINE
            )

        size = str(Path(payload.image).stat().st_size)
        recipe = hashlib.sha256(_RUN.encode()).hexdigest()
        return run, [payload.digest, part.digest, size, recipe, *sizes, arguments, initrd.name]
