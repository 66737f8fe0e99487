"""Xen: a type-1 hypervisor under the operating system (dom0), and its guests (domU)."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import ClassVar

from vbench.errors import BootError, ConnectionLost, LayerUnavailable
from vbench.hosts import accounting
from vbench.hosts.base import Boot, Host, Payload, Process, System
from vbench.hosts.command import script
from vbench.hosts.placement import Cache, Disk, Medium, Network, Placement, Way
from vbench.layers import guest
from vbench.layers.base import Available, Layer, Shape, Unavailable, layer_classes
from vbench.layers.environment import EnvironmentLayer, Site
from vbench.layers.parameters import Parameter
from vbench.technique import PICTURES, Picture, Technique

DOM0_MIB = 2304
SHIM_MIB = 512
"""What a guest with a shim comes up in: of 256 and 320 MiB the shim said that they are not enough RAM for its guest."""
TOOLS = "/usr/lib/xen-4.17/bin"


def _under_xen(payload: Payload, like: str, *, more: str = "") -> Boot:
    """Xen, with the capsule's kernel as dom0. No idle states or speculation controls: they need real CPUs.

    Memory is not scrubbed when idle: that would run during measurements. Vector registers are switched with
    the guest, not on first use: with XSAVE on QEMU 7.2 the latter let guests compute with each other's
    registers (8 of 10,000 rounds of tests/vm/registers.c failed; a dropped connection, a segfault).
    """
    xen = (
        f"dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M com1=115200,8n1 console=com1 loglvl=warning"
        f" spec-ctrl=no,eager-fpu mwait-idle=0 cpuidle=0 bootscrub=0{more}"
    )
    linux = f"{payload.boot('vmlinux')} console=hvc0 quiet panic=-1 random.trust_cpu=on {like}"
    return Boot(payload.boot("xen"), xen, f"{linux},{payload.boot('initrd')}")


def _boots_with_xen(layer: str) -> bool:
    """Whether a layer or root is a machine that can boot with or without Xen."""
    known = layer_classes().get(layer)
    return known is not None and known.takes_system


class Xen(Layer):
    """The machine running under Xen, seen from dom0."""

    name: ClassVar[str] = "xen"
    technique: ClassVar[Technique] = Technique.TYPE_1
    summary: ClassVar[str] = "the machine booted under Xen, measured in dom0"
    picture: ClassVar[Picture | None] = PICTURES["xen"]
    catalogue: ClassVar[str | None] = "Xen dom0"
    own_machine: ClassVar[bool] = True
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("sched", ("credit2", "credit", "rtds"), "the scheduler of virtual CPUs"),
    )

    def probe(self, parent: Host) -> Available | Unavailable:
        """Works on the testbed, which can be rebooted, and on a machine that is already a dom0."""
        if parent.reboot is not None:
            return Available("boots the emulated PC under Xen")
        if parent.run(["cat", "/proc/xen/capabilities"], check=False).text == "control_d":
            return Available("this machine is a dom0")
        hint = "use testbed/xen" if "/" in parent.name else "boot it under Xen, or use testbed/xen"
        return Unavailable(f"{parent.name} does not run under Xen", hint)

    def baseline(self, parents: tuple[str, ...]) -> str | None:
        """The machine booted without Xen; a real dom0 has no such boot and is its own baseline."""
        return "/".join(parents) if _boots_with_xen(parents[-1]) else None

    @contextmanager
    def open(self, parent: Host, shape: Shape) -> Iterator[Host]:
        """Takes about half a minute to boot."""
        self.require(parent)
        if parent.reboot is None:
            if self.word != self.name:
                raise LayerUnavailable(
                    f"{parent.name} is booted under Xen already", "boot it with that scheduler"
                )
            yield parent.but(name=f"{parent.name}/{self.name}")
            return
        sched = self.chosen["sched"]
        under = _under_xen if sched == "credit2" else partial(_under_xen, more=f" sched={sched}")
        with parent.reboot(System(self.word, DOM0_MIB, under)) as dom0:
            guest.load_modules(
                dom0,
                *("xenfs", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd"),
                *("xen-blkback", "xen-netback", "loop"),
            )
            with _toolstack(dom0):
                yield dom0


@contextmanager
def _toolstack(dom0: Host) -> Iterator[None]:
    """Only the daemons that xl needs."""
    dom0.run(["mount", "-t", "xenfs", "xenfs", "/proc/xen"])
    dom0.run(["mkdir", "-p", "/run/xen", "/run/xenstored", "/var/log/xen"])
    with dom0.spawn([f"{TOOLS}/xenstored", "--no-fork"]) as store:
        end = dom0.clock() + guest.patience(dom0, 10)
        while dom0.run(["test", "-S", "/run/xenstored/socket"], check=False).code != 0:
            guest.alive(store, "xenstored")
            if dom0.clock() > end:
                raise BootError(f"xenstored did not start on {dom0.name}", store.tail())
            dom0.pause(0.02)
        dom0.run([f"{TOOLS}/xen-init-dom0"], timeout=guest.patience(dom0, 10))
        with dom0.spawn([f"{TOOLS}/xenconsoled", "--interactive"]):
            yield


# Past dom0's page cache, with its storage's sector size.
_DIRECT = ("--direct-io=on", "--sector-size", "4096")
_BLOCK = script(guest.SCRIPTS / "xen-block.sh")
_VIF = script(guest.SCRIPTS / "xen-vif.sh")


class DomU(EnvironmentLayer):
    """A Xen guest: xl in dom0 creates the domain and destroys it on exit."""

    seconds: ClassVar[float] = 30
    kind: ClassVar[str]
    letters: ClassVar[str] = "abc"
    """Device letters of its disks: the capsule's image, the seed, scratch."""
    kernel: ClassVar[str] = "boot/vbench/vmlinux"
    """Pattern for the kernel's path in the capsule's tree."""
    more: ClassVar[Mapping[str, object]] = {}
    """Extra xl options for this kind of guest."""
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("disk", ("blkback", "qdisk"), "scratch storage by dom0's kernel, or by QEMU in dom0"),
    )

    def probe(self, parent: Host) -> Available | Unavailable:
        """Works only in a dom0."""
        if parent.run(["cat", "/proc/xen/capabilities"], check=False).text == "control_d":
            return Available(f"xl, {self.kind} guest")
        return Unavailable(f"{parent.name} is not a dom0", f"stack it on xen: testbed/xen/{self.name}")

    def baseline(self, parents: tuple[str, ...]) -> str | None:
        """The machine without Xen if it can be booted so, else dom0."""
        return "/".join(parents[:-1] if any(map(_boots_with_xen, parents[-2:-1])) else parents)

    def place(self, site: Site) -> Placement:
        """vCPUs, memory and disk of the shape's size."""
        return replace(
            site.parent.placement,
            vcpus=site.shape.vcpus,
            memory_mib=site.shape.memory_mib,
            disk=(
                Disk(Medium.RAW_FILE, "xen-blkfront", Cache.WRITEBACK)
                if self._by_qemu()
                else Disk(Medium.LOOP_DEVICE, "xen-blkfront", Cache.NONE)
            ),
            network=Network(Way.VIF, "xen-netfront"),
        )

    def options(self, shape: Shape) -> Mapping[str, object]:
        """Extra xl options for this guest."""
        return self.more

    def _by_qemu(self) -> bool:
        return self.chosen["disk"] == "qdisk"

    def join(self, site: Site, process: Process) -> None:
        """Nothing to do: xl has done it."""

    @contextmanager
    def start(self, site: Site) -> Iterator[Process]:
        """xl stays in the foreground with the console, so that a process of ours represents the domain."""
        dom0, payload, work = site.parent, site.payload, site.work
        guest.scratch_disk(dom0, f"{work}/scratch", site.shape)
        told = shlex.join([site.link.parent, *dom0.program("ip")])
        dom0.put(f"#!/bin/sh\nset -- {told}\n{_VIF}".encode(), f"{work}/vif", 0o755)
        dom0.put(f"#!/bin/sh\n{_BLOCK}".encode(), f"{work}/block", 0o755)
        domain = f"vbench-{site.link.interface}"
        with ExitStack() as opened:
            by_kernel = f"backendtype=phy,script={work}/block"
            devices = [
                (dom0.run(["readlink", "-f", payload.image]).text, "r", by_kernel),
                (opened.enter_context(guest.loop_device(dom0, f"{work}/seed")), "r", by_kernel),
            ]
            scratch = f"{work}/scratch"
            # QEMU refuses disks that are read-only ("Block node is read-only", 7.2), and past the page cache
            # (direct-io-safe), on storage with sectors of 4 KiB, it brings up none.
            if self._by_qemu():
                devices.append((scratch, "w", "backendtype=qdisk"))
            else:
                devices.append(
                    (opened.enter_context(guest.loop_device(dom0, scratch, *_DIRECT)), "w", by_kernel)
                )
            kernel = ["sh", "-c", 'ls -d "$1"/$2', "sh", payload.tree, self.kernel]
            config = {
                "name": domain,
                "type": self.kind,
                "kernel": dom0.run(kernel).text,
                "ramdisk": payload.boot("initrd"),
                "extra": f"console=hvc0 quiet panic=-1 {guest.kernel_choices(dom0)}",
                "memory": site.shape.memory_mib,
                "vcpus": site.shape.vcpus,
                # As on a processor with an invariant TSC. Emulating it would make every clock read a trap; in
                # PVH guests that fails on QEMU, which reports RDTSCP as another instruction.
                "tsc_mode": "native",
                "disk": [
                    f"format=raw,vdev=xvd{letter},access={mode},{by},target={device}"
                    for letter, (device, mode, by) in zip(self.letters, devices, strict=True)
                ],
                "vif": [f"vifname={site.link.interface},script={work}/vif"],
                "on_crash": "destroy",
                "on_reboot": "destroy",
                **self.options(site.shape),
            }
            text = "".join(f"{key} = {value!r}\n" for key, value in config.items())
            dom0.put(text.encode(), f"{work}/domain.cfg")
            console = opened.enter_context(dom0.spawn([f"{TOOLS}/xl", "create", "-c", f"{work}/domain.cfg"]))
            opened.callback(_destroy, dom0, domain)
            yield _Domain(dom0, domain, console)


class Pv(DomU):
    """A paravirtualized guest: its kernel calls the hypervisor instead of using privileged instructions."""

    name: ClassVar[str] = "pv"
    technique: ClassVar[Technique] = Technique.PARAVIRTUALIZATION
    summary: ClassVar[str] = "a paravirtualized Xen guest (domU) with paravirtual disk and network"
    picture: ClassVar[Picture | None] = PICTURES["pv"]
    catalogue: ClassVar[str | None] = "Xen PV guest"
    kind: ClassVar[str] = "pv"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        *DomU.parameters,
        Parameter(
            "shim", ("off", "on"), "a Xen of its own between it and Xen, which makes a PVH guest of it"
        ),
    )

    def options(self, shape: Shape) -> Mapping[str, object]:
        """With the shim, the hardware-assisted guest is the shim.

        Raises ``LayerUnavailable`` for a shape in which it has too little memory for itself and its guest.
        """
        if self.chosen["shim"] == "off":
            return self.more
        if shape.memory_mib < SHIM_MIB:
            raise LayerUnavailable(
                f"shim=on needs {SHIM_MIB} MiB, the shape has {shape.memory_mib}", "give it more"
            )
        return {**self.more, "type": "pvh", "pvshim": 1}


class Pvh(DomU):
    """A hardware-assisted guest without emulated devices: PVH."""

    name: ClassVar[str] = "pvh"
    technique: ClassVar[Technique] = Technique.TYPE_1
    summary: ClassVar[str] = "a hardware-assisted Xen guest (PVH) with paravirtual disk and network"
    picture: ClassVar[Picture | None] = PICTURES["pvh"]
    catalogue: ClassVar[str | None] = "Xen PVH guest"
    kind: ClassVar[str] = "pvh"


class Hvm(DomU):
    """A fully virtualized guest (HVM): QEMU in dom0 emulates a PC's devices, firmware boots the kernel."""

    name: ClassVar[str] = "hvm"
    technique: ClassVar[Technique] = Technique.TYPE_1
    summary: ClassVar[str] = "a fully virtualized Xen guest (HVM) with paravirtual disk and network drivers"
    picture: ClassVar[Picture | None] = PICTURES["hvm"]
    catalogue: ClassVar[str | None] = "Xen HVM guest"
    kind: ClassVar[str] = "hvm"
    letters: ClassVar[str] = "efg"  # a to d are also emulated, and an emulated disk cannot be read-only
    kernel: ClassVar[str] = "boot/vmlinuz-*"  # firmware only accepts the compressed kernel
    more: ClassVar[Mapping[str, object]] = {"vga": "none", "usb": 0}


class _Domain(Process):
    """A domain and the ``xl`` holding its console, which ends with the domain but is not the domain."""

    def __init__(self, dom0: Host, name: str, console: Process) -> None:
        self.argv, self.pid = console.argv, console.pid
        self._dom0, self._name, self._console = dom0, name, console

    def poll(self) -> int | None:
        return self._console.poll()

    def wait(self, timeout: float) -> int:
        return self._console.wait(timeout)

    def kill(self, sig: int = signal.SIGKILL) -> None:
        """Destroy the domain, whatever the signal: there is no other way to end it from outside."""
        _destroy(self._dom0, self._name)

    def tail(self) -> str:
        return self._console.tail()

    def holds(self) -> dict[str, int]:
        """Memory of the domain as allocated by Xen, plus that of its ``xl`` and device model in dom0.

        CPU time is not included: the toolstack reports it only in tenths of a second.
        """
        run = self._dom0.run
        row = run([f"{TOOLS}/xl", "list", self._name]).text.splitlines()[-1].split()
        model = run(["xenstore-read", f"/local/domain/{row[1]}/image/device-model-pid"], check=False)
        found = int(row[2]) * 1024
        for pid in (str(self.pid), *model.text.split()):
            found += accounting.totals(run(accounting.argv(pid, pss=True)).text)["pss"]
        return {"pss": found}


def _destroy(dom0: Host, domain: str) -> None:
    with suppress(ConnectionLost):
        dom0.run([f"{TOOLS}/xl", "destroy", domain], check=False, timeout=guest.patience(dom0, 30))
