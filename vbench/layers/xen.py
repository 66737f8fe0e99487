"""Xen: a type-1 hypervisor under the operating system (dom0), and a paravirtualized guest on it (domU)."""

from __future__ import annotations

import copy
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import ClassVar

from vbench.errors import BootError
from vbench.hosts import accounting
from vbench.hosts.base import Boot, Host, Payload, Process
from vbench.hosts.command import script
from vbench.hosts.keys import HostKey
from vbench.hosts.placement import Cache, Disk, Medium, Network, Way
from vbench.layers import guest, testbed
from vbench.layers.base import Available, Layer, Shape, Technique, Unavailable

DOM0_MIB = 2304
TOOLS = "/usr/lib/xen-4.17/bin"


def _under_xen(payload: Payload, _: str) -> Boot:
    """Xen, with the capsule's kernel as dom0. Idle states and speculation controls need real processors.

    Memory is not scrubbed in idle time, which would run beside measurements. Vector registers are switched with
    the guest, not at their first use: with XSAVE on QEMU 7.2 that let guests compute with each other's registers
    (8 of 10,000 rounds of tests/vm/registers.c went wrong; a dropped connection, a segfault).
    """
    xen = (
        f"dom0_mem={DOM0_MIB}M,max:{DOM0_MIB}M com1=115200,8n1 console=com1 loglvl=warning"
        " spec-ctrl=no,eager-fpu mwait-idle=0 cpuidle=0 bootscrub=0"
    )
    linux = f"{payload.boot('vmlinux')} console=hvc0 quiet panic=-1 random.trust_cpu=on {testbed.CHOICES}"
    return Boot(payload.boot("xen"), xen, f"{linux},{payload.boot('initrd')}")


class Xen(Layer):
    """The machine with Xen under it, seen from dom0."""

    name: ClassVar[str] = "xen"
    technique: ClassVar[Technique] = Technique.TYPE_1
    summary: ClassVar[str] = "the machine booted under Xen, measured in dom0"
    own_machine: ClassVar[bool] = True

    def probe(self, parent: Host) -> Available | Unavailable:
        """Opens on the testbed, which can be booted again, and on a machine that is a dom0 already."""
        if parent.reboot is not None:
            return Available("boots the emulated PC under Xen")
        if parent.run(["cat", "/proc/xen/capabilities"], check=False).text == "control_d":
            return Available("this machine is a dom0")
        hint = "use testbed/xen" if "/" in parent.name else "boot it under Xen, or use testbed/xen"
        return Unavailable(f"{parent.name} does not run under Xen", hint)

    def baseline(self, parents: tuple[str, ...]) -> str | None:
        """The machine booted without Xen; on a real dom0 no such boot is at hand, and dom0 is its own."""
        return "/".join(parents) if parents[-1] == "testbed" else None

    @contextmanager
    def open(self, parent: Host, shape: Shape) -> Iterator[Host]:
        """Boots in about half a minute."""
        self.require(parent)
        name = f"{parent.name}/{self.name}"
        if parent.reboot is None:
            host = copy.copy(parent)
            host.name = name
            yield host
            return
        with parent.reboot(_under_xen) as dom0:
            dom0.name = name
            dom0.placement = replace(dom0.placement, memory_mib=DOM0_MIB)
            guest.load_modules(
                dom0,
                *("xenfs", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd"),
                *("xen-blkback", "xen-netback", "loop"),
            )
            with _toolstack(dom0):
                yield dom0


@contextmanager
def _toolstack(dom0: Host) -> Iterator[None]:
    """The daemons that xl needs and no more."""
    dom0.run(["mount", "-t", "xenfs", "xenfs", "/proc/xen"])
    dom0.run(["mkdir", "-p", "/run/xen", "/run/xenstored", "/var/log/xen"])
    with dom0.spawn([f"{TOOLS}/xenstored", "--no-fork"]) as store:
        end = time.monotonic() + guest.patience(dom0, 10)
        while dom0.run(["test", "-S", "/run/xenstored/socket"], check=False).code != 0:
            guest.alive(store, "xenstored")
            if time.monotonic() > end:
                raise BootError(f"xenstored did not start on {dom0.name}", store.tail())
        dom0.run([f"{TOOLS}/xen-init-dom0"], timeout=guest.patience(dom0, 10))
        with dom0.spawn([f"{TOOLS}/xenconsoled", "--interactive"]):
            yield


_BLOCK = script(guest.SCRIPTS / "xen-block.sh")
_VIF = script(guest.SCRIPTS / "xen-vif.sh")


class Pv(Layer):
    """A paravirtualized guest: its kernel asks the hypervisor for what a processor would let it do."""

    name: ClassVar[str] = "pv"
    technique: ClassVar[Technique] = Technique.PARAVIRTUALIZATION
    summary: ClassVar[str] = "a paravirtualized Xen guest (domU) with paravirtual disk and network"
    kind: ClassVar[str] = "pv"
    letters: ClassVar[str] = "abc"

    def probe(self, parent: Host) -> Available | Unavailable:
        """Opens in a dom0 only."""
        if parent.run(["cat", "/proc/xen/capabilities"], check=False).text == "control_d":
            return Available(f"xl, {self.kind} guest")
        return Unavailable(f"{parent.name} is not a dom0", f"stack it on xen: testbed/xen/{self.name}")

    def baseline(self, parents: tuple[str, ...]) -> str | None:
        """The machine without Xen where it can be had, else dom0."""
        return "/".join(parents[:-1]) if parents[-2:-1] == ("testbed",) else "/".join(parents)

    @contextmanager
    def open(self, parent: Host, shape: Shape) -> Iterator[Host]:
        """Creates the domain with xl, and destroys it on leaving."""
        payload = self.require(parent)
        key, link = HostKey.generate(), guest.private_link(parent)
        placement = replace(
            parent.placement,
            vcpus=shape.vcpus,
            memory_mib=shape.memory_mib,
            disk=Disk(Medium.LOOP_DEVICE, "xen-blkfront", Cache.NONE),
            network=Network(Way.VIF, "xen-netfront"),
        )
        with guest.workdir(parent, self.name) as work, ExitStack() as opened:
            parent.put(guest.seed(key, self.name, link), f"{work}/seed", 0o600)
            guest.scratch_disk(parent, f"{work}/scratch", shape)
            told = shlex.join([link.parent, *parent.program("ip")])
            parent.put(f"#!/bin/sh\nset -- {told}\n{_VIF}".encode(), f"{work}/vif", 0o755)
            image = parent.run(["readlink", "-f", payload.image]).text
            parent.put(f"#!/bin/sh\n{_BLOCK}".encode(), f"{work}/block", 0o755)
            first, second, third = (f"xvd{letter}" for letter in self.letters)
            disks = [_disk(first, "r", image, work)]
            for there, name, mode in ((second, "seed", "r"), (third, "scratch", "w")):
                device = opened.enter_context(_loop(parent, f"{work}/{name}", direct=name == "scratch"))
                disks.append(_disk(there, mode, device, work))
            domain = f"vbench-{link.interface}"
            config = {
                "name": domain,
                "type": self.kind,
                "kernel": payload.boot("vmlinux"),
                "ramdisk": payload.boot("initrd"),
                "extra": f"console=hvc0 quiet panic=-1 {guest.kernel_choices(parent)}",
                "memory": shape.memory_mib,
                "vcpus": shape.vcpus,
                # As on a processor whose TSC is invariant. Emulating it would make each reading of the clock
                # a trap; in PVH guests that fails on QEMU, which reports RDTSCP as another instruction.
                "tsc_mode": "native",
                "disk": disks,
                "vif": [f"vifname={link.interface},script={work}/vif"],
                "on_crash": "destroy",
                "on_reboot": "destroy",
                **self.more(parent),
            }
            text = "".join(f"{key} = {value!r}\n" for key, value in config.items())
            parent.put(text.encode(), f"{work}/domain.cfg")
            # xl stays in the foreground with the console, so that the domain has a process of ours.
            name, deadline = f"{parent.name}/{self.name}", guest.patience(parent, 30)
            with (
                parent.spawn([f"{TOOLS}/xl", "create", "-c", f"{work}/domain.cfg"]) as console,
                _destroyed(parent, domain),
                guest.log_in(
                    parent, name, link, key, _Domain(parent, domain, console), placement, deadline
                ) as host,
            ):
                yield host

    def more(self, dom0: Host) -> dict[str, object]:
        """What this kind of guest is told beyond what all are told."""
        return {}


class Pvh(Pv):
    """A guest in a hardware-assisted container, without emulated devices: PVH."""

    name: ClassVar[str] = "pvh"
    technique: ClassVar[Technique] = Technique.TYPE_1
    summary: ClassVar[str] = "a hardware-assisted Xen guest (PVH) with paravirtual disk and network"
    kind: ClassVar[str] = "pvh"


class Hvm(Pv):
    """A fully virtualized guest: QEMU in dom0 emulates a PC's devices, firmware starts the kernel: HVM."""

    name: ClassVar[str] = "hvm"
    technique: ClassVar[Technique] = Technique.TYPE_1
    summary: ClassVar[str] = "a fully virtualized Xen guest (HVM) with paravirtual disk and network drivers"
    kind: ClassVar[str] = "hvm"
    letters: ClassVar[str] = "efg"  # the first four are emulated too, and no emulated disk can be read-only

    def more(self, dom0: Host) -> dict[str, object]:
        """Firmware takes the compressed kernel only; no screen, no USB."""
        assert dom0.payload is not None  # noqa: S101 - open has checked
        kernel = dom0.run(["sh", "-c", 'ls -d "$1"/boot/vmlinuz-*', "sh", dom0.payload.tree]).text
        return {"kernel": kernel, "vga": "none", "usb": 0}


def _disk(name: str, mode: str, device: str, work: str) -> str:
    return f"format=raw,vdev={name},access={mode},backendtype=phy,script={work}/block,target={device}"


@contextmanager
def _loop(dom0: Host, path: str, *, direct: bool) -> Iterator[str]:
    """A file as a block device of dom0; ``direct`` past dom0's page cache, in sectors as its storage has them."""
    how = ["--direct-io=on", "--sector-size", "4096"] if direct else []
    device = dom0.run([*dom0.program("losetup"), "--find", "--show", *how, path]).text
    try:
        yield device
    finally:
        dom0.run([*dom0.program("losetup"), "--detach", device], check=False)


class _Domain(Process):
    """A domain with the ``xl`` that holds its console: this ends with the domain, but is not the domain."""

    def __init__(self, dom0: Host, name: str, console: Process) -> None:
        self.argv, self.pid = console.argv, console.pid
        self._dom0, self._name, self._console = dom0, name, console

    def poll(self) -> int | None:
        return self._console.poll()

    def wait(self, timeout: float) -> int:
        return self._console.wait(timeout)

    def kill(self, sig: int = signal.SIGKILL) -> None:
        """Destroy the domain, whatever the signal: it has no other end that it does not choose itself."""
        _destroy(self._dom0, self._name)

    def tail(self) -> str:
        return self._console.tail()

    def holds(self) -> dict[str, int]:
        """Memory that Xen has given the domain, and that of its ``xl`` and its device model in dom0.

        Processor time is not told: the toolstack gives it in tenths of a second only.
        """
        run = self._dom0.run
        row = run([f"{TOOLS}/xl", "list", self._name]).text.splitlines()[-1].split()
        model = run(["xenstore-read", f"/local/domain/{row[1]}/image/device-model-pid"], check=False)
        found = int(row[2]) * 1024
        for pid in (str(self.pid), *model.text.split()):
            found += accounting.totals(run(accounting.argv(pid, pss=True)).text)["pss"]
        return {"pss": found}


def _destroy(dom0: Host, domain: str) -> None:
    dom0.run([f"{TOOLS}/xl", "destroy", domain], check=False, timeout=guest.patience(dom0, 30))


@contextmanager
def _destroyed(dom0: Host, domain: str) -> Iterator[None]:
    try:
        yield
    finally:
        _destroy(dom0, domain)
