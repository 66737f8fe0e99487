"""The testbed with Intel VT: a PC emulated by Bochs, whose processor has VT-x with nested paging."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from vbench.hosts.base import Host, Process, Setting
from vbench.hosts.command import script
from vbench.hosts.placement import Disk, Medium, Network, Placement, Way
from vbench.layers import guest
from vbench.layers.base import Available, Unavailable
from vbench.layers.environment import EnvironmentLayer, Site, add_on
from vbench.layers.guest import Link
from vbench.layers.qemu import command_line
from vbench.technique import AddOn, Picture, Technique
from vbench.terms import Clock

MEMORY_MIB = 1536
SECOND = 3_500_000_000
"""Instructions: the frequency that the emulated Skylake-X states (CPUID leaf 0x15), which Linux believes."""
_RUN = script(guest.SCRIPTS / "bochs.sh")


class TestbedVt(EnvironmentLayer):
    """A PC with an Intel processor, emulated by Bochs, of whose clock a second is a fixed number of instructions.

    It interprets each instruction, and so is slower than the testbed. It is not opened from a snapshot: what reaches it
    by SSH does so at any moment, so its figures do not repeat to the last digit.
    """

    name: ClassVar[str] = "testbed-vt"
    technique: ClassVar[Technique] = Technique.TYPE_2
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
    clock: ClassVar[Clock | None] = "instructions"
    own_machine: ClassVar[bool] = True
    processes: ClassVar[tuple[str, ...]] = ("bochs(-bin)?",)
    seconds: ClassVar[float] = 600
    needs: ClassVar[AddOn | None] = AddOn(
        "bochs",
        script=(guest.SCRIPTS / "bochs-add-on.sh", guest.SCRIPTS / "scsi-init.sh"),
        material={
            "bookworm": (
                *("linux-image-{release}", "genisoimage", "isolinux", "syslinux-common"),
                *("bochs", "bochs-term", "bochsbios", "vgabios", "ncurses-base"),
            )
        },
        exclude=(
            *("/usr/share/doc/*", "/usr/share/icons/*", "/usr/share/locale/*", "/boot/*"),
            *("/lib/modules/*/kernel/drivers/[b-mo-rt-z]*", "/lib/modules/*/kernel/[fs]*"),
        ),
        lock=Path(__file__).with_name("testbed_vt.lock.json"),
    )

    def probe(self, parent: Host) -> Available | Unavailable:
        """On the machine that vbench itself runs on; it needs no privilege."""
        if parent.payload is None:
            return Unavailable(f"{parent.name} holds no capsule", "vbench capsule build")
        if "/" in parent.name:
            return Unavailable(
                f"{self.name} opens on the machine itself, not in an environment", f"use local/{self.name}"
            )
        return Available("Bochs, Skylake-X")

    def baseline(self, parents: tuple[str, ...]) -> None:
        """None: its seconds are not its parent's."""

    def link(self, parent: Host) -> Link:
        """Bochs's own network, with a port on the parent's loopback."""
        return guest.translated_link(parent)

    def place(self, site: Site) -> Placement:
        """Its sizes, whatever the shape."""
        return Placement(
            vcpus=1,
            memory_mib=MEMORY_MIB,
            disk=Disk(Medium.RAW_FILE, "ata"),
            network=Network(Way.USER_MODE, "e1000"),
            cpu="Bochs corei7_skylake_x",
            slowdown=60.0,
        )

    @contextmanager
    def start(self, site: Site) -> Iterator[Process]:
        """Takes a minute or two."""
        parent = site.parent
        assert self.needs is not None  # noqa: S101 - set above
        guest.scratch_disk(parent, f"{site.work}/scratch", site.shape)
        parent.run(["truncate", "--size=%512", f"{site.work}/seed"])
        choices = "mitigations=off norandmaps transparent_hugepage=never"
        told = [
            site.payload.tree,
            site.payload.image,
            site.work,
            add_on(site, self.needs.name),
            str(MEMORY_MIB),
        ]
        told += [str(site.link.port), site.link.address, str(SECOND), *command_line(choices).split()]
        with parent.spawn(["sh", "-c", _RUN, "sh", *told]) as process:
            yield process

    def adjust(self, site: Site, setting: Setting) -> Setting:
        """Its own peer, as a machine is; what emulating it costs the machine outside is no figure of it."""
        return Setting(setting.name, setting.payload, setting.scratch, placement=setting.placement)

    def settle(self, site: Site, host: Host) -> None:
        """What guests of its own need."""
        guest.load_modules(host, "tun", "kvm_intel")
