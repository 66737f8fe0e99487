"""QEMU: a type-2 hypervisor that emulates the processor, with paravirtual disk and network devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

from vbench.hosts.base import Boot, Host, Payload
from vbench.hosts.keys import HostKey
from vbench.hosts.placement import Cache, Disk, Medium, Network, Placement, Way
from vbench.hosts.ssh.connect import SshHost
from vbench.layers import guest
from vbench.layers.base import Available, Layer, Shape, Technique, Unavailable


def emulator(payload: Payload) -> list[str]:
    """The argv prefix of the capsule's QEMU, told where its parts lie."""
    share = [part for name in ("qemu", "seabios") for part in ("-L", f"{payload.tree}/usr/share/{name}")]
    modules = f"QEMU_MODULE_DIR={payload.tree}/usr/lib/x86_64-linux-gnu/qemu"
    return ["env", modules, *payload.command("qemu-system-x86_64"), *share]


class Qemu(Layer):
    """An emulated x86-64 PC: the guest's instructions are translated, not executed."""

    name: ClassVar[str] = "qemu"
    technique: ClassVar[Technique] = Technique.TYPE_2
    summary: ClassVar[str] = "QEMU with an emulated processor, virtio disk and network"
    accelerator: ClassVar[str] = "tcg"
    cpu: ClassVar[str] = "max"
    boot_seconds: ClassVar[float] = 60
    may_use_tap: ClassVar[bool] = True

    def probe(self, parent: Host) -> Available | Unavailable:
        """The capsule's QEMU must start on the parent; it needs no privilege."""
        if parent.payload is None:
            return Unavailable(f"{parent.name} holds no capsule", "vbench capsule build")
        done = parent.run([*emulator(parent.payload), "--version"], check=False)
        if done.code != 0:
            return Unavailable(f"the capsule's QEMU does not run on {parent.name}: {done.stderr.decode()}")
        return Available(done.text.splitlines()[0])

    @contextmanager
    def open(self, parent: Host, shape: Shape) -> Iterator[SshHost]:
        """Boots the capsule's kernel directly, in a few seconds on hardware."""
        with self.start(parent, shape, self.linux) as host:
            guest.huge_pages_as(parent, host)
            yield host

    @contextmanager
    def start(self, parent: Host, shape: Shape, choose: Callable[[Payload, str], Boot]) -> Iterator[SshHost]:
        """Boot what ``choose`` makes of the parent's capsule, and log in."""
        payload = self.require(parent)
        tap = self.may_use_tap and guest.is_root(parent) and guest.has_tun(parent)
        key, boot = HostKey.generate(), choose(payload, guest.kernel_choices(parent))
        link = guest.private_link(parent) if tap else guest.loopback_link(nat=True)
        inside = link if tap else guest.Link("eth0", "10.0.2.2", "10.0.2.1")
        with guest.workdir(parent, self.name) as work:
            parent.put(guest.seed(key, self.name, inside), f"{work}/seed", 0o600)
            guest.scratch_disk(parent, f"{work}/scratch", shape)
            cache = _cache_mode(parent, work)
            placement = self.place(
                replace(
                    parent.placement,
                    vcpus=shape.vcpus,
                    memory_mib=shape.memory_mib,
                    disk=Disk(Medium.RAW_FILE, "virtio-blk", cache),
                    network=Network(Way.TAP if tap else Way.USER_MODE, "virtio-net"),
                )
            )
            network = (
                f"tap,id=net,ifname={link.interface},script=no,downscript=no"
                if tap
                else f"user,id=net,hostfwd=tcp:127.0.0.1:{link.port}-{inside.guest}:22"
            )
            argv = [
                *emulator(payload),
                *self.machine(shape),
                *("-kernel", boot.kernel, "-append", boot.arguments, "-initrd", boot.initrd),
                *_drive("root", payload.image, "readonly=on"),
                *_drive("seed", f"{work}/seed", "readonly=on"),
                *_drive("scratch", f"{work}/scratch", f"cache={cache}"),
                *("-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile="),
            ]
            name = f"{parent.name}/{self.name}"
            deadline = guest.patience(parent, self.boot_seconds)
            with parent.spawn(argv) as process:
                if tap:
                    guest.configure_link(parent, link, process, deadline)
                with guest.log_in(parent, name, link, key, process, placement, deadline) as host:
                    if not tap:
                        host.peer = inside.parent
                    yield host

    def machine(self, shape: Shape) -> list[str]:
        """The options that say what the emulated computer is."""
        return [
            *("-M", "q35,usb=off,graphics=off,memory-backend=ram"),
            *("-accel", self.accelerator, "-cpu", self.cpu, "-smp", str(shape.vcpus)),
            # Pages are taken as they are used, so that a guest fits into a parent of the same shape.
            *("-m", str(shape.memory_mib)),
            *("-object", f"memory-backend-ram,id=ram,size={shape.memory_mib}M,reserve=off"),
            *("-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio"),
        ]

    def linux(self, payload: Payload, like: str) -> Boot:
        """The capsule's own kernel; ``like`` is what its command line takes over from the parent's."""
        arguments = f"console=ttyS0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests {like}"
        return Boot(payload.boot("vmlinux"), arguments, payload.boot("initrd"))

    def place(self, placement: Placement) -> Placement:
        """The placement of this layer's guests, made from what all of them have in common."""
        return replace(placement, cpu=f"QEMU {self.cpu}, {self.accelerator}")


def _drive(name: str, path: str, options: str) -> list[str]:
    # No lock on the files: guests of another kind, which lock whole files, share the image.
    drive = f"if=none,id={name},file={path},file.locking=off,format=raw,{options}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name}"]


def _cache_mode(parent: Host, work: str) -> Cache:
    """None (the guest's own cache only) where the parent's file system has direct I/O."""
    argv = ["dd", "if=/dev/zero", f"of={work}/direct", "bs=4096", "count=1", "oflag=direct"]
    return Cache.NONE if parent.run(argv, check=False).code == 0 else Cache.WRITEBACK
