"""KVM: hardware-assisted virtualization by the parent's kernel, with devices provided by QEMU."""

from __future__ import annotations

import re
from typing import ClassVar

from vbench.hosts.base import Host
from vbench.hosts.command import script
from vbench.layers import guest
from vbench.layers.base import Available, Shape, Unavailable
from vbench.layers.parameters import Parameter
from vbench.layers.qemu import Qemu, emulator
from vbench.technique import PICTURES, Picture, Technique

PROBE_SECONDS = 12.0
_SIGNS = script(guest.SCRIPTS / "kvm-signs.sh")


def _what_gives_it(parent: Host) -> str:
    """How to get /dev/kvm on a host without it, or which host to use instead, depending on the host."""
    signs = {*parent.run(["sh", "-c", _SIGNS], check=False).text.split()}
    if "xen" in signs:
        below, under_xen, _ = parent.name.partition("/xen")
        where = f"open it without Xen: {below}/kvm" if under_xen else "boot without Xen, or use testbed/kvm"
        return f"Xen keeps the processor's virtualization from dom0 and most guests; {where}"
    if {"User", "Mode"} <= signs:
        return "User Mode Linux runs no guests under KVM: open it on what that runs on, or use testbed/kvm"
    if signs & {"vmx", "svm"}:
        return "the processor can do it: load kvm_intel or kvm_amd, and let this environment have /dev/kvm"
    if "hypervisor" in signs:
        return "it is a guest without virtualization of its own: allow it nested guests, or use testbed/kvm"
    return "enable VT-x or AMD-V in the firmware, or use testbed/kvm"


class Kvm(Qemu):
    """A guest whose instructions run directly on the processor, under KVM."""

    name: ClassVar[str] = "kvm"
    technique: ClassVar[Technique] = Technique.TYPE_1
    summary: ClassVar[str] = "KVM with hardware assistance, virtio disk and network"
    picture: ClassVar[Picture | None] = PICTURES["kvm"]
    catalogue: ClassVar[str | None] = "KVM"
    accelerator: ClassVar[str] = "kvm"
    cpu: ClassVar[str] = "host"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            "machine", ("q35", "microvm"), "a PC with a PCI bus, or one with little more than virtio devices"
        ),
        Parameter(
            "cpu",
            ("host", "generic"),
            "the processor's own features, or those that every x86-64 has (qemu64)",
        ),
        *Qemu.parameters,
    )

    @property
    def bus(self) -> str:
        """A microvm has no PCI bus."""
        return "device" if self._is("machine", "microvm") else super().bus

    def board(self) -> str:
        """A microvm boots without option ROMs."""
        small = "microvm,x-option-roms=off,isa-serial=on,auto-kernel-cmdline=on"
        return small if self._is("machine", "microvm") else super().board()

    def model(self) -> str:
        """The processor as QEMU names it."""
        return self.cpu if self._is("cpu", "host") else "qemu64"

    def probe(self, parent: Host) -> Available | Unavailable:
        """Boots a real kernel: /dev/kvm may open on machines that cannot run a stock guest."""
        if isinstance(answer := super().probe(parent), Unavailable):
            return answer
        guest.load_modules(parent, "kvm_amd", "kvm_intel")
        if parent.run(["test", "-e", "/dev/kvm"], check=False).code != 0:
            return Unavailable(f"{parent.name} has no /dev/kvm", _what_gives_it(parent))
        if parent.run(["sh", "-c", ": <>/dev/kvm"], check=False).code != 0:
            hint = "let it have the device" if guest.is_root(parent) else "add yourself to the group kvm"
            return Unavailable(f"/dev/kvm on {parent.name} does not open", hint)
        if parent.placement.clock == "instructions":
            return Available(
                "the emulated processor's AMD-V or VT-x"
            )  # it boots; proving it would take half a minute
        return self._boot(parent)

    def _boot(self, parent: Host) -> Available | Unavailable:
        assert parent.payload is not None  # noqa: S101 - probe checked
        boot = self.boot(parent.payload, guest.kernel_choices(parent))
        argv = [
            *emulator(parent.payload),
            *self.machine(Shape()),
            *("-kernel", boot.kernel, "-initrd", boot.initrd),
            *("-append", boot.arguments.replace("quiet", "")),
        ]
        flags = parent.run(["grep", "-cwE", "vmx|svm", "/proc/cpuinfo"], check=False).text
        without = "" if flags not in ("", "0") else " and its processor shows neither vmx nor svm"
        hint = "use a machine with hardware virtualization, or the testbed layer"
        start = parent.clock()
        seconds = guest.patience(parent, PROBE_SECONDS)
        with parent.spawn(argv) as process:
            while parent.clock() - start < seconds:
                if guest.SIGN_OF_LIFE in process.tail():
                    return Available(f"a kernel booted in {parent.clock() - start:.1f} s")
                if process.poll() is not None:
                    break
                parent.pause(0.05)
            ended, console = process.poll(), process.tail()
        lines = [line for line in console.splitlines() if line.strip()]
        if ended is not None or "internal error" in console:
            why = f"a kernel did not boot under it: {lines[-1] if lines else 'no output'}"
        else:
            stamp = re.findall(r"^\[\s*(\d+\.\d+)\]", console, re.MULTILINE)
            reached = f"got to {stamp[-1]} s of its own time" if stamp else "printed nothing"
            why = f"a kernel booting under it only {reached} within {seconds:.0f} s"
        return Unavailable(f"/dev/kvm exists on {parent.name}{without}, but {why}", hint)
