"""QEMU: a type-2 hypervisor that emulates the processor, with paravirtual disk and network devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import ClassVar

from vbench.errors import ConnectionLost, HostError, LayerUnavailable
from vbench.hosts.base import Boot, Host, Payload, Process
from vbench.hosts.placement import Cache, Disk, Medium, Network, Placement, Way
from vbench.layers import guest
from vbench.layers.base import Available, Shape, Unavailable
from vbench.layers.environment import EnvironmentLayer, Site
from vbench.layers.guest import Link
from vbench.layers.parameters import Parameter
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
    boots_image: ClassVar[bool] = True
    processes: ClassVar[tuple[str, ...]] = (r"qemu-system-\w+", "qemu-kvm")
    accelerator: ClassVar[str] = "tcg"
    cpu: ClassVar[str] = "max"
    seconds: ClassVar[float] = 60
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            "cache", ("auto", *Cache), "the parent's cache of the disk; auto: none, where it has direct I/O"
        ),
        Parameter("iothread", ("off", "on"), "a thread of its own for the disk"),
        Parameter("vhost", ("off", "on"), "packets by the parent's kernel in place of QEMU"),
        Parameter("pages", ("small", "huge"), "the guest's memory in pages of 4 KiB or 2 MiB"),
    )

    def probe(self, parent: Host) -> Available | Unavailable:
        """The capsule's QEMU must start on the parent; no privileges needed."""
        if parent.payload is None:
            return Unavailable(f"{parent.name} holds no capsule", "vbench capsule build")
        try:
            program = self.emulator(parent.payload)
        except HostError as error:  # on a machine of another architecture
            return Unavailable(error.message, error.hint or "")
        done = parent.run([*program, "--version"], check=False)
        if done.code != 0:
            return Unavailable(f"the capsule's QEMU does not run on {parent.name}: {done.stderr.decode()}")
        return Available(done.text.splitlines()[0])

    def link(self, parent: Host) -> Link:
        """A tap where possible, else QEMU's user-mode network, which needs no privileges."""
        tap = guest.is_root(parent) and guest.has_tun(parent)
        if self._is("vhost", "on"):
            guest.load_modules(parent, "vhost_net")
            if not tap or parent.run(["test", "-e", "/dev/vhost-net"], check=False).code != 0:
                raise LayerUnavailable(
                    f"vhost=on needs a tap and /dev/vhost-net on {parent.name}", "load vhost_net"
                )
        return guest.private_link(parent) if tap else guest.translated_link(parent)

    def place(self, site: Site) -> Placement:
        """vCPUs, memory and disk of the shape's size."""
        return replace(
            site.parent.placement,
            vcpus=site.shape.vcpus,
            memory_mib=site.shape.memory_mib,
            disk=Disk(Medium.RAW_FILE, "virtio-blk", self._cache(site)),
            network=Network(Way.USER_MODE if site.link.nat else Way.TAP, "virtio-net"),
            cpu=f"QEMU {self.model()}, {self.accelerator}",
        )

    @contextmanager
    def start(self, site: Site) -> Iterator[Process]:
        """Boots the capsule's kernel directly; takes a few seconds on hardware."""
        parent, payload, link, work = site.parent, site.payload, site.link, site.work
        guest.scratch_disk(parent, f"{work}/scratch", site.shape)
        boot = self.boot(payload, guest.kernel_choices(parent))
        network = (
            f"user,id=net,hostfwd=tcp:{link.guest}:{link.port}-{link.address}:22"
            if link.nat
            else f"tap,id=net,ifname={link.interface},script=no,downscript=no{',vhost=on' * self._is('vhost', 'on')}"
        )
        bus, thread = self.bus, self._is("iothread", "on")
        argv = [
            *self.emulator(payload),
            *self.machine(site.shape),
            *("-kernel", boot.kernel, "-append", boot.arguments, "-initrd", boot.initrd),
            *(["-object", "iothread,id=disk"] if thread else []),
            *_drive("root", payload.image, "readonly=on", bus),
            *_drive("seed", f"{work}/seed", "readonly=on", bus),
            *_drive(
                "scratch",
                f"{work}/scratch",
                f"cache={site.placement.disk.cache or self._cache(site)}",
                f"{bus},iothread=disk" if thread else bus,
            ),
            *("-netdev", network, "-device", f"virtio-net-{bus},netdev=net{',romfile=' * (bus == 'pci')}"),
        ]
        pages = huge_pages(parent, site.shape.memory_mib) if self._is("pages", "huge") else nullcontext()
        with pages, parent.spawn(argv) as process:
            yield process

    def emulator(self, payload: Payload) -> list[str]:
        """The argv prefix for QEMU."""
        return emulator(payload)

    def _is(self, name: str, value: str) -> bool:
        return self.chosen.get(name) == value

    def _cache(self, site: Site) -> Cache:
        return _cache_mode(site) if self._is("cache", "auto") else Cache(self.chosen["cache"])

    @property
    def bus(self) -> str:
        """What the guest's devices are on, as QEMU's names of virtio devices end."""
        return "pci"

    def model(self) -> str:
        """The processor as QEMU names it."""
        return self.cpu

    def settle(self, site: Site, host: Host) -> None:
        """The guest's kernel gets its parent's huge page setting."""
        guest.huge_pages_as(site.parent, host)

    def machine(self, shape: Shape) -> list[str]:
        """The options that define the emulated machine."""
        return [
            *("-M", f"{self.board()},memory-backend=ram"),
            *("-accel", self.accelerator, "-cpu", self.model(), "-smp", str(shape.vcpus)),
            # Pages are allocated on first use, so that a guest fits into a parent of the same shape.
            *("-m", str(shape.memory_mib)),
            *("-object", self._memory(shape)),
            *("-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio"),
        ]

    def board(self) -> str:
        """The machine, as QEMU names it."""
        return "q35,usb=off,graphics=off"

    def _memory(self, shape: Shape) -> str:
        huge = self._is("pages", "huge")
        kind, more = ("memfd", ",hugetlb=on,hugetlbsize=2M") if huge else ("ram", ",reserve=off")
        return f"memory-backend-{kind},id=ram,size={shape.memory_mib}M{more}"

    def boot(self, payload: Payload, like: str) -> Boot:
        """The capsule's kernel; ``like``: the options its command line takes over from the parent's."""
        return Boot(payload.boot("vmlinux"), command_line(like), payload.boot("initrd"))


def command_line(like: str) -> str:
    """What the capsule's kernel is told on a PC; ``like`` is what it takes over from its parent."""
    return f"console=ttyS0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests {like}"


def _drive(name: str, path: str, options: str, bus: str) -> list[str]:
    # No file locks: other kinds of guests lock whole files and share the image.
    drive = f"if=none,id={name},file={path},file.locking=off,format=raw,{options}"
    return ["-drive", drive, "-device", f"virtio-blk-{bus},drive={name}"]


_HUGE = "/proc/sys/vm/nr_hugepages"


@contextmanager
def huge_pages(parent: Host, mebibytes: int) -> Iterator[None]:
    """So much of the parent's memory in huge pages that nobody uses, given back at the end.

    A guest that is the parent gets them; of the machine itself they are not taken, as it would keep them if vbench were
    killed. Raises ``LayerUnavailable`` if there are too few.
    """
    wanted = -(-mebibytes // 2)
    told = dict(line.split(":") for line in parent.run(["cat", "/proc/meminfo"]).text.splitlines())
    before, free = (int(told.get(f"HugePages_{key}", "0")) for key in ("Total", "Free"))
    if free < wanted and "/" in parent.name:
        parent.run(["sh", "-c", f"echo {before + wanted - free} > {_HUGE}"])
        free += int(parent.run(["cat", _HUGE]).text) - before
    if free < wanted:
        hint = f"reserve them: sysctl vm.nr_hugepages={before + wanted - free}"
        raise LayerUnavailable(
            f"pages=huge needs {wanted} huge pages, and {parent.name} has {free} free", hint
        )
    try:
        yield
    finally:
        with suppress(ConnectionLost):
            if "/" in parent.name:
                parent.run(["sh", "-c", f"echo {before} > {_HUGE}"], check=False)


def _cache_mode(site: Site) -> Cache:
    """``NONE`` (only the guest's cache) if the parent's file system has direct I/O, else ``WRITEBACK``."""
    return Cache.NONE if guest.has_direct_io(site.parent, site.work, 4096) else Cache.WRITEBACK
