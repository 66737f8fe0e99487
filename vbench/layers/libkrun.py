"""libkrun: a microVM, a guest with a kernel of its own and few devices, started like a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from vbench.hosts.base import Boot, Host, Payload, Process
from vbench.hosts.command import script
from vbench.hosts.placement import Cache, Disk, Medium, Network, Placement, Way
from vbench.layers import guest
from vbench.layers.base import Available, Shape, Unavailable
from vbench.layers.environment import EnvironmentLayer, Site, add_on
from vbench.layers.guest import Link
from vbench.layers.isolation import NAMESPACES, needs_root
from vbench.layers.kvm import Kvm
from vbench.layers.parameters import Parameter
from vbench.technique import AddOn, Picture, Technique

_RUN = script(guest.SCRIPTS / "libkrun.sh")
_BESIDE_MIB = 37
"""libkrun gives a guest its kernel, and the 16 MiB below that, in addition to the memory that is asked for."""


class Libkrun(EnvironmentLayer):
    """A guest of libkrun, by the microsandbox program that brings it along.

    Its kernel is libkrun's own and its first process microsandbox's; the rest is as in other guests.
    """

    name: ClassVar[str] = "libkrun"
    technique: ClassVar[Technique] = Technique.TYPE_1
    summary: ClassVar[str] = "a microVM under KVM by libkrun, which brings a kernel of its own"
    picture: ClassVar[Picture | None] = Picture(
        "on",
        (("kernel", "libkrun's kernel", "few devices, by libkrun"),),
        "with KVM: the hypervisor",
        hypervisor=True,
    )
    catalogue: ClassVar[str | None] = "libkrun"
    boots_image: ClassVar[bool] = True
    processes: ClassVar[tuple[str, ...]] = ("msb", "krunvm")
    needs: ClassVar[AddOn] = AddOn(
        "libkrun",
        script=tuple(
            guest.SCRIPTS / f"libkrun-{name}" for name in ("add-on.sh", "init.sh", "kernel.c", "kernel.S")
        ),
        wheels={"microsandbox==0.7.11": "65f1e4bbf8d721c9f7f557329fb6c8cf41f554c1c6942eac8b941198fa283fe0"},
        lock=Path(__file__).with_name("libkrun.lock.json"),
    )

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            "monitor",
            ("libkrun", "qemu"),
            "what runs the guest; QEMU runs it with the same kernel, on a machine of as few devices",
            bare=True,
        ),
    )

    def probe(self, parent: Host) -> Available | Unavailable:
        """A KVM that works, and root, for mounts."""
        answer = needs_root(parent, self.name) or Kvm().probe(parent)
        return answer if isinstance(answer, Unavailable) else Available("the kernel that libkrun brings")

    def link(self, parent: Host) -> Link:
        """A network of its own, with a port on the parent's loopback; QEMU's."""
        if self._by_qemu:
            return _Control("").link(parent)
        return replace(guest.translated_link(parent), address="10.0.2.6", gateway="10.0.2.5")

    def place(self, site: Site) -> Placement:
        """vCPUs, memory and disk of the shape's size."""
        if self._by_qemu:
            return _Control("").place(site)
        return replace(
            site.parent.placement,
            vcpus=site.shape.vcpus,
            memory_mib=site.shape.memory_mib,
            disk=Disk(Medium.RAW_FILE, "virtio-blk", Cache.WRITEBACK),
            network=Network(Way.NAT, "virtio-net"),
            cpu="libkrun",
        )

    @contextmanager
    def start(self, site: Site) -> Iterator[Process]:
        """Takes about a second on hardware."""
        tree = add_on(site, self.needs.name)
        started = _Control(f"{tree}/kernel").start(site) if self._by_qemu else _microsandbox(site, tree)
        with started as process:
            yield process

    def settle(self, site: Site, host: Host) -> None:
        """The guest's kernel gets its parent's huge page setting."""
        guest.huge_pages_as(site.parent, host)

    @property
    def _by_qemu(self) -> bool:
        return self.chosen["monitor"] == "qemu"


@contextmanager
def _microsandbox(site: Site, tree: str) -> Iterator[Process]:
    """A guest by microsandbox's program, which gives it the second four addresses of the network."""
    parent, shape = site.parent, site.shape
    guest.scratch_disk(parent, f"{site.work}/scratch", shape)
    told = [site.payload.image, site.work, tree, str(shape.memory_mib - _BESIDE_MIB), str(shape.vcpus)]
    told += ["10.0.2.0/29", str(site.link.port), guest.kernel_choices(parent)]
    with parent.spawn([*NAMESPACES, "sh", "-c", _RUN, "sh", *told]) as process:
        yield process


class _Control(Kvm):
    """QEMU with another kernel."""

    def __init__(self, kernel: str) -> None:
        super().__init__({"machine": "microvm"})
        self._kernel = kernel

    def board(self) -> str:
        """That kernel knows no ACPI; without it, QEMU tells a kernel of its devices in its arguments."""
        return f"{super().board()},acpi=off"

    def machine(self, shape: Shape) -> list[str]:
        """It has no serial port either."""
        *machine, _, where = super().machine(shape)
        console = ["-chardev", f"{where},id=console", "-device", "virtio-serial-device"]
        return [*machine, *console, "-device", "virtconsole,chardev=console"]

    def boot(self, payload: Payload, like: str) -> Boot:
        """That kernel, otherwise as the capsule's."""
        boot = super().boot(payload, like)
        # It makes a network interface that leads nowhere, which would get the guest's address.
        arguments = f"{boot.arguments.replace('ttyS0', 'hvc0')} dummy.numdummies=0"
        return replace(boot, kernel=self._kernel, arguments=arguments)
