"""The testbed for Power: an emulated machine with a POWER9, whose hypervisor mode KVM uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from vbench.hosts.base import Host, Process, Setting
from vbench.hosts.placement import Disk, Medium, Placement
from vbench.layers import foreign, guest
from vbench.layers.base import Available, Unavailable
from vbench.layers.environment import EnvironmentLayer, Site, add_on, program
from vbench.layers.guest import Link
from vbench.layers.testbed import MEMORY_MIB, misplaced, move_scratch
from vbench.technique import AddOn, Picture, Technique
from vbench.terms import Clock

LIBRARIES = "usr/lib/powerpc64le-linux-gnu"


class TestbedPower(EnvironmentLayer):
    """A machine with an IBM POWER9 and no hypervisor under its system, emulated under instruction counting.

    What runs in it is not the capsule but the same Debian packages for its architecture, out of the add-on, so nothing
    measured in it is compared with anything on x86. What reaches it by SSH does so at any moment, so its figures do not
    repeat to the last digit.
    """

    name: ClassVar[str] = "testbed-power"
    technique: ClassVar[Technique] = Technique.TYPE_2
    summary: ClassVar[str] = (
        "an emulated IBM Power machine under instruction counting, on which KVM really runs"
    )
    picture: ClassVar[Picture | None] = Picture(
        "on",
        (
            ("hypervisor", "QEMU", "counts instructions"),
            ("hardware", "Emulated Power machine", "POWER9, hypervisor mode"),
            ("kernel", "Testbed's kernel", "operating system"),
        ),
    )
    catalogue: ClassVar[str | None] = "vbench testbed-power"
    clock: ClassVar[Clock | None] = "instructions"
    own_machine: ClassVar[bool] = True
    seconds: ClassVar[float] = 300
    needs: ClassVar[AddOn] = AddOn(
        "power",
        script=foreign.script("power"),
        material={
            "bookworm": (
                *(f"qemu-system-{part}/bookworm-backports" for part in ("ppc", "common", "data")),
                *("gcc-12-powerpc64le-linux-gnu", "libc6-dev-ppc64el-cross"),
            ),
            "bookworm:ppc64el": (*foreign.SYSTEM, "linux-image-powerpc64le", "qemu-system-ppc"),
        },
        exclude=(*foreign.EXCLUDE, "/lib/modules/*/kernel/drivers/s*.ko"),
        lock=Path(__file__).with_name("testbed_power.lock.json"),
    )

    def probe(self, parent: Host) -> Available | Unavailable:
        """On the machine that vbench itself runs on; it needs no privilege."""
        return misplaced(self.name, parent) or Available("QEMU, powernv9")

    def baseline(self, parents: tuple[str, ...]) -> None:
        """None: its seconds are not its parent's."""

    def link(self, parent: Host) -> Link:
        """QEMU's user-mode network, with a port on the parent's loopback."""
        return guest.translated_link(parent)

    def place(self, site: Site) -> Placement:
        """Its sizes, whatever the shape."""
        return Placement(
            vcpus=1,
            memory_mib=MEMORY_MIB,
            disk=Disk(Medium.TIMED_MEMORY),
            cpu="QEMU POWER9, powernv9",
            slowdown=20.0,
        )

    @contextmanager
    def start(self, site: Site) -> Iterator[Process]:
        """Takes a quarter of a minute."""
        link, work = site.link, site.work
        tree = add_on(site, self.needs.name)
        guest.scratch_disk(site.parent, f"{work}/scratch", site.shape)
        forward = f"hostfwd=tcp:{link.guest}:{link.port}-{link.address}:22"
        argv = [
            *program(site, tree, "usr/bin/qemu-system-ppc64"),
            *("-L", f"{tree}/usr/share/qemu", "-M", "powernv9", "-accel", "tcg,thread=single", "-smp", "1"),
            *("-icount", "shift=1,sleep=on", "-rtc", "base=2026-01-01,clock=vm", "-m", str(MEMORY_MIB)),
            # Not -nodefaults, which takes away the ports of its PCI bus as well.
            *("-no-user-config", "-nographic", "-no-reboot", "-vga", "none", "-net", "none"),
            *("-serial", "stdio", "-monitor", "none"),
            *("-kernel", f"{tree}/power/vmlinux", "-initrd", f"{tree}/power/initrd"),
            *("-append", command_line(foreign.CHOICES)),
            *_drive(0, f"{tree}/power/image", "readonly=on"),
            *_drive(1, f"{work}/seed", "readonly=on"),
            *_drive(2, f"{work}/scratch", "cache=unsafe"),
            *("-netdev", f"user,id=net,restrict=on,{forward}"),
            *("-device", "virtio-net-pci,netdev=net,bus=pcie.3,romfile="),
        ]
        with site.parent.spawn(argv) as process:
            yield process

    def adjust(self, site: Site, setting: Setting) -> Setting:
        """Its own payload, and its own peer, as a machine is; what emulating it costs outside is no figure of it."""
        part = site.payload.add_ons[self.needs.name]
        payload = foreign.payload(
            part, "power", libraries=LIBRARIES, loader="ld64.so.2", machine="ppc64le", page=1 << 16
        )
        return Setting(setting.name, payload, setting.scratch, placement=setting.placement)

    def settle(self, site: Site, host: Host) -> None:
        """What guests of its own need, and storage with a fixed service time."""
        guest.load_modules(host, "tun", "kvm_hv")
        move_scratch(host, 3 * site.shape.disk_mib)


def command_line(like: str) -> str:
    """What a kernel is told on a Power machine; ``like`` is what it takes over from its parent."""
    return f"console=hvc0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests {like}"


def _drive(number: int, path: str, options: str) -> list[str]:
    drive = f"if=none,id=disk{number},file={path},file.locking=off,format=raw,{options}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive=disk{number},bus=pcie.{number}"]
