"""QEMU: a type-2 hypervisor that emulates the processor, with paravirtual disk and network devices."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import ClassVar

from vbench.hosts.base import Boot, Host, Payload, Process
from vbench.hosts.placement import Cache, Disk, Medium, Network, Placement, Way
from vbench.layers import guest
from vbench.layers.base import Available, Shape, Unavailable
from vbench.layers.environment import EnvironmentLayer, Site
from vbench.layers.guest import Link
from vbench.technique import PICTURES, Picture, Technique


def emulator(payload: Payload) -> list[str]:
    """The argv prefix for the capsule's QEMU, with the paths to its parts."""
    share = [part for name in ("qemu", "seabios") for part in ("-L", f"{payload.tree}/usr/share/{name}")]
    modules = f"QEMU_MODULE_DIR={payload.tree}/usr/lib/x86_64-linux-gnu/qemu"
    return ["env", modules, *payload.command("qemu-system-x86_64"), *share]


class Qemu(EnvironmentLayer):
    """An emulated x86-64 PC: the guest's instructions are translated, not executed."""

    name: ClassVar[str] = "qemu"
    technique: ClassVar[Technique] = Technique.TYPE_2
    summary: ClassVar[str] = "QEMU with an emulated processor, virtio disk and network"
    picture: ClassVar[Picture | None] = PICTURES["qemu"]
    catalogue: ClassVar[str | None] = "QEMU"
    processes: ClassVar[tuple[str, ...]] = (r"qemu-system-\w+", "qemu-kvm")
    accelerator: ClassVar[str] = "tcg"
    cpu: ClassVar[str] = "max"
    seconds: ClassVar[float] = 60
    may_use_tap: ClassVar[bool] = True

    def probe(self, parent: Host) -> Available | Unavailable:
        """The capsule's QEMU must start on the parent; no privileges needed."""
        if parent.payload is None:
            return Unavailable(f"{parent.name} holds no capsule", "vbench capsule build")
        done = parent.run([*emulator(parent.payload), "--version"], check=False)
        if done.code != 0:
            return Unavailable(f"the capsule's QEMU does not run on {parent.name}: {done.stderr.decode()}")
        return Available(done.text.splitlines()[0])

    def link(self, parent: Host) -> Link:
        """A tap where possible, else QEMU's user-mode network, which needs no privileges."""
        tap = self.may_use_tap and guest.is_root(parent) and guest.has_tun(parent)
        return guest.private_link(parent) if tap else guest.translated_link(parent)

    def place(self, site: Site) -> Placement:
        """vCPUs, memory and disk of the shape's size."""
        return replace(
            site.parent.placement,
            vcpus=site.shape.vcpus,
            memory_mib=site.shape.memory_mib,
            disk=Disk(Medium.RAW_FILE, "virtio-blk", _cache_mode(site)),
            network=Network(Way.USER_MODE if site.link.nat else Way.TAP, "virtio-net"),
            cpu=f"QEMU {self.cpu}, {self.accelerator}",
        )

    def start(self, site: Site) -> AbstractContextManager[Process]:
        """Boots the capsule's kernel directly; takes a few seconds on hardware."""
        parent, payload, link, work = site.parent, site.payload, site.link, site.work
        guest.scratch_disk(parent, f"{work}/scratch", site.shape)
        boot = self.boot(payload, guest.kernel_choices(parent))
        network = (
            f"user,id=net,hostfwd=tcp:{link.guest}:{link.port}-{link.address}:22"
            if link.nat
            else f"tap,id=net,ifname={link.interface},script=no,downscript=no"
        )
        argv = [
            *emulator(payload),
            *self.machine(site.shape),
            *("-kernel", boot.kernel, "-append", boot.arguments, "-initrd", boot.initrd),
            *_drive("root", payload.image, "readonly=on"),
            *_drive("seed", f"{work}/seed", "readonly=on"),
            *_drive("scratch", f"{work}/scratch", f"cache={site.placement.disk.cache or _cache_mode(site)}"),
            *("-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile="),
        ]
        return parent.spawn(argv)

    def settle(self, site: Site, host: Host) -> None:
        """The guest's kernel gets its parent's huge page setting."""
        guest.huge_pages_as(site.parent, host)

    def machine(self, shape: Shape) -> list[str]:
        """The options that define the emulated machine."""
        return [
            *("-M", "q35,usb=off,graphics=off,memory-backend=ram"),
            *("-accel", self.accelerator, "-cpu", self.cpu, "-smp", str(shape.vcpus)),
            # Pages are allocated on first use, so that a guest fits into a parent of the same shape.
            *("-m", str(shape.memory_mib)),
            *("-object", f"memory-backend-ram,id=ram,size={shape.memory_mib}M,reserve=off"),
            *("-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio"),
        ]

    def boot(self, payload: Payload, like: str) -> Boot:
        """The capsule's kernel; ``like``: the options its command line takes over from the parent's."""
        return Boot(payload.boot("vmlinux"), command_line(like), payload.boot("initrd"))


def command_line(like: str) -> str:
    """What the capsule's kernel is told on a PC; ``like`` is what it takes over from its parent."""
    return f"console=ttyS0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests {like}"


def _drive(name: str, path: str, options: str) -> list[str]:
    # No file locks: other kinds of guests lock whole files and share the image.
    drive = f"if=none,id={name},file={path},file.locking=off,format=raw,{options}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name}"]


def _cache_mode(site: Site) -> Cache:
    """``NONE`` (only the guest's cache) if the parent's file system has direct I/O, else ``WRITEBACK``."""
    argv = ["dd", "if=/dev/zero", f"of={site.work}/direct", "bs=4096", "count=1", "oflag=direct"]
    return Cache.NONE if site.parent.run(argv, check=False).code == 0 else Cache.WRITEBACK
