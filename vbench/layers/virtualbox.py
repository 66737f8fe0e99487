"""VirtualBox: a hypervisor that runs as a program and a driver of an operating system, by hardware assistance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from vbench.errors import ConnectionLost
from vbench.hosts.base import Host, Process
from vbench.hosts.command import script
from vbench.hosts.placement import Cache, Disk, Medium, Network, Placement, Way
from vbench.layers import guest
from vbench.layers.base import Available, Unavailable
from vbench.layers.environment import EnvironmentLayer, Site, add_on
from vbench.layers.guest import Link
from vbench.layers.isolation import NAMESPACES, needs_root
from vbench.layers.parameters import Parameter
from vbench.layers.qemu import command_line
from vbench.technique import AddOn, Picture, Technique

_RUN = script(guest.SCRIPTS / "virtualbox.sh")
_TSC = {"native": "RealTSCOffset", "emulated": "VirtTSCEmulated"}
_INSTALLED = "/usr/lib/virtualbox/VBoxHeadless"


class VirtualBox(EnvironmentLayer):
    """A guest whose instructions run directly on the processor, under VirtualBox's own driver.

    Into an environment with the capsule's kernel it brings VirtualBox along, and the driver built for that kernel. On
    the machine itself it uses the one that is installed, whose driver is loaded.
    """

    name: ClassVar[str] = "virtualbox"
    technique: ClassVar[Technique] = Technique.TYPE_2
    summary: ClassVar[str] = "VirtualBox with hardware assistance, virtio disk and network"
    picture: ClassVar[Picture | None] = Picture(
        "on",
        (("hypervisor", "VirtualBox", "a process and a driver"), ("kernel", "Guest kernel", "unmodified")),
    )
    catalogue: ClassVar[str | None] = "VirtualBox"
    boots_image: ClassVar[bool] = True
    processes: ClassVar[tuple[str, ...]] = ("VBoxHeadless", "VirtualBoxVM")
    seconds: ClassVar[float] = 40
    needs: ClassVar[AddOn] = AddOn(
        "virtualbox",
        script=(guest.SCRIPTS / "virtualbox-add-on.sh", guest.SCRIPTS / "scsi-init.sh"),
        material={
            "bookworm": ("make", "libelf1", "linux-headers-{release}", "linux-image-{release}"),
            "sid/contrib": ("virtualbox", "virtualbox-source", "genisoimage", "isolinux", "syslinux-common"),
        },
        exclude=(
            *("/boot/*", "/usr/share/*", "/usr/lib/python3*"),
            *("/lib/modules/*/kernel/drivers/[a-rtuw-z]*", "/lib/modules/*/kernel/[fns]*"),
            *(f"/usr/lib/x86_64-linux-gnu/{name}" for name in ("libLLVM*", "libgallium*", "dri/*", "perl*")),
            *("/usr/lib/virtualbox/ExtensionPacks/*", "/usr/lib/virtualbox/sdk/*"),
        ),
        lock=Path(__file__).with_name("virtualbox.lock.json"),
    )
    # Linux reads the counter on the way out of each system call, to place the stack of the next one
    # (arch/x86/include/asm/entry-common.h), and VirtualBox makes that an exit where the processor does not say that its
    # counter is invariant. The testbed's does not say so, and is.
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            "paravirt",
            ("kvm", "hyperv", "minimal", "none"),
            "whose interface for paravirtualized guests it shows",
        ),
        Parameter(
            "tsc",
            ("native", "emulated"),
            "the processor's time stamp counter, or VirtualBox's, of which each reading is an exit",
        ),
    )

    def probe(self, parent: Host) -> Available | Unavailable:
        """AMD-V or VT-x, and an installed VirtualBox or a parent with the capsule's kernel."""
        if answer := needs_root(parent, self.name):
            return answer
        if parent.run(["grep", "-qwE", "vmx|svm", "/proc/cpuinfo"], check=False).code != 0:
            hint = "use a machine with hardware virtualization, or testbed/virtualbox"
            return Unavailable(f"the processor of {parent.name} shows neither vmx nor svm", hint)
        return self._installation(parent) if self._installed(parent) else self._own(parent)

    def _installation(self, parent: Host) -> Available | Unavailable:
        if parent.run(["test", "-e", "/dev/vboxdrv"], check=False).code != 0:
            return Unavailable(f"VirtualBox's driver is not loaded on {parent.name}", "modprobe vboxdrv")
        return Available("the installed VirtualBox")

    def _own(self, parent: Host) -> Available | Unavailable:
        if "/" not in parent.name:
            hint = "install it, without the Extension Pack, which is not free; or use testbed/virtualbox"
            return Unavailable(f"VirtualBox is not installed on {parent.name}", hint)
        release = parent.run(["uname", "-r"]).text
        modules = f"{guest.DIRECTORY}/tree/lib/modules/{release}"
        if parent.run(["test", "-d", modules], check=False).code != 0:
            why = f"its driver is not built for the kernel of {parent.name}, {release}"
            return Unavailable(why, "use testbed/virtualbox")
        return Available("with a driver for the capsule's kernel")

    def _installed(self, parent: Host) -> bool:
        return parent.run(["test", "-x", _INSTALLED], check=False).code == 0

    def link(self, parent: Host) -> Link:
        """VirtualBox's own network, with a port on the parent's loopback."""
        return guest.translated_link(parent)

    def place(self, site: Site) -> Placement:
        """vCPUs, memory and disk of the shape's size; past the page cache if storage has sectors of 512 bytes."""
        direct = guest.has_direct_io(site.parent, site.work, 512)
        return replace(
            site.parent.placement,
            vcpus=site.shape.vcpus,
            memory_mib=site.shape.memory_mib,
            disk=Disk(Medium.RAW_FILE, "virtio-scsi", Cache.NONE if direct else Cache.WRITEBACK),
            network=Network(Way.NAT, "virtio-net"),
            cpu="VirtualBox",
        )

    @contextmanager
    def start(self, site: Site) -> Iterator[Process]:
        """Boots from a CD made here, by the firmware; takes a few seconds on hardware."""
        parent, link, shape = site.parent, site.link, site.shape
        guest.scratch_disk(parent, f"{site.work}/scratch", shape)
        tree = add_on(site, self.needs.name)
        installed, image = self._installed(parent), site.payload.image
        with ExitStack() as opened:
            if not installed:
                opened.enter_context(_driver(parent, f"{tree}/vboxdrv.ko"))
                # It flushes what it opens, which the testbed's image does not answer; of this the kernel does.
                guest.load_modules(parent, "loop")
                image = opened.enter_context(guest.loop_device(parent, image, "--read-only"))
            kernel = command_line(guest.kernel_choices(parent))
            where = [site.payload.tree, image, site.work, tree, "/" if installed else tree]
            size = [str(shape.memory_mib), str(shape.vcpus)]
            chosen = [self.chosen["paravirt"], _TSC[self.chosen["tsc"]]]
            told = [*where, *size, *chosen, str(link.port), link.address, *kernel.split()]
            yield opened.enter_context(parent.spawn([*NAMESPACES, "sh", "-c", _RUN, "sh", *told]))

    def settle(self, site: Site, host: Host) -> None:
        """The guest's kernel gets its parent's huge page setting."""
        guest.huge_pages_as(site.parent, host)


@contextmanager
def _driver(parent: Host, module: str) -> Iterator[None]:
    """VirtualBox's driver in the parent's kernel; the last of several guests there takes it away."""
    if parent.run(["test", "-e", "/dev/vboxdrv"], check=False).code != 0:
        parent.run([*parent.program("busybox"), "insmod", module], timeout=guest.patience(parent, 20))
    try:
        yield
    finally:
        with suppress(ConnectionLost):  # it stays as long as it is in use
            parent.run([*parent.program("busybox"), "rmmod", "vboxdrv"], check=False)
