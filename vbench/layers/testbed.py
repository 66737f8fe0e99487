"""The testbed: an emulated PC whose clock counts instructions, so results repeat on any machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from vbench.errors import BootError
from vbench.exact import boot, hop
from vbench.exact.machine import Hardware, Machine, running
from vbench.exact.opening import Run, console
from vbench.hosts.base import Boot, Host, Payload, Setting, System
from vbench.hosts.keys import HostKey
from vbench.hosts.placement import Disk, Medium, Placement
from vbench.layers import guest
from vbench.layers.base import Available, Layer, Shape, Unavailable
from vbench.layers.qemu import command_line, emulator
from vbench.technique import PICTURES, AddOn, Picture, Technique
from vbench.terms import Clock

MEMORY_MIB = 3584
"""Memory of the emulated PC: for its scratch storage, and for two guests of the usual shape on it, under Xen, too."""
CPU = "EPYC-Rome,-smap,-smep,-monitor,-xsave,-avx,-avx2,-fma,-f16c"
"""SMAP and SMEP stop a paravirtualized dom0, MONITOR an idle vCPU under Xen, and KVM here gives its guests no XSAVE and
so no AVX: off for all, so that every environment computes with the same instructions."""
ARGUMENTS = "mitigations=off norandmaps transparent_hugepage=never"
"""No mitigations: the emulated processor has nothing to mitigate. No random addresses: on these depends how many page
tables a process needs, and 1% of a fork's time. No huge pages: dom0, Xen's paravirtualized guests and User Mode Linux
have none either."""


class Testbed(Layer):
    """An AMD PC with virtualization extensions, emulated under instruction counting.

    A second in it is a fixed number of instructions: no caches, no TLB misses, and no cost of leaving a guest beyond
    the instructions that this causes. All that happens in it follows from what it is given, to the last bit, so it is
    opened from a snapshot where there is one. It is a baseline of its own.
    """

    name: ClassVar[str] = "testbed"
    technique: ClassVar[Technique] = Technique.TYPE_2
    summary: ClassVar[str] = "an emulated PC under instruction counting, on which KVM and Xen really run"
    picture: ClassVar[Picture | None] = PICTURES["testbed"]
    catalogue: ClassVar[str | None] = "vbench testbed"
    clock: ClassVar[Clock | None] = "instructions"
    exact: ClassVar[bool] = True
    own_machine: ClassVar[bool] = True
    takes_system: ClassVar[bool] = True
    needs: ClassVar[AddOn | None] = boot.PROGRAMS
    also: ClassVar[tuple[AddOn, ...]] = (boot.REST, boot.WHY)
    processor: ClassVar[str] = f"QEMU {CPU}"
    modules: ClassVar[tuple[str, ...]] = ("tun", "kvm_amd")
    slowdown: ClassVar[float] = 12.0
    saves: ClassVar[bool] = True
    """Whether the emulator can save the machine."""
    memory_mib: ClassVar[int] = MEMORY_MIB

    def __init__(self, system: System | None = None) -> None:
        super().__init__()
        self._system = system or System("", self.memory_mib, _linux)

    def probe(self, parent: Host) -> Available | Unavailable:
        """The capsule's QEMU must start, on the machine that vbench itself runs on; it needs no privilege."""
        if (lacking := misplaced(self.name, parent)) is not None:
            return lacking
        assert parent.payload is not None  # noqa: S101 - it would be lacking
        done = parent.run([*emulator(parent.payload), "--version"], check=False)
        if done.code != 0:
            return Unavailable(f"the capsule's QEMU does not run on {parent.name}: {done.stderr.decode()}")
        return Available(done.text.splitlines()[0])

    def baseline(self, parents: tuple[str, ...]) -> None:
        """None: its seconds are not its parent's."""

    @contextmanager
    def open(self, parent: Host, shape: Shape) -> Iterator[Host]:
        """Takes ten seconds from power-on, and next to nothing from a snapshot."""
        payload = self.require(parent)
        placement = Placement(
            vcpus=1,
            memory_mib=self._system.memory_mib,
            disk=Disk(Medium.TIMED_MEMORY),
            clock="instructions",
            cpu=self.processor,
            slowdown=self.slowdown,
        )
        inside = replace(payload, directory=guest.DIRECTORY)
        name = "/".join(filter(None, (parent.name, self.name, self._system.layer)))
        setting = Setting(name, inside, "/scratch", placement=placement)
        run, made_of = self._machine(parent, payload)
        with ExitStack() as opened:
            led = opened.enter_context(console(run, made_of, setting, saves=self.saves))
            key, client = HostKey.generate(led.chance), HostKey.generate(led.chance)
            led.run(["mkdir", "-p", "/root/.ssh", "/vbench"])
            led.put(f"{client.public}\n".encode(), "/root/.ssh/authorized_keys", 0o600)
            led.put(key.dropbear, "/vbench/hostkey", 0o600)
            server = ["dropbear", "-F", "-E", "-s", "-k", "-m", "-r", "/vbench/hostkey", "-p", "127.0.0.1:22"]
            process = opened.enter_context(led.spawn([*server, "-W", "1048576", "-K", "0", "-I", "0"]))

            def alive() -> None:
                if (code := process.poll()) is not None:
                    raise BootError(f"the testbed's SSH server ended with exit code {code}", process.tail())

            if self.takes_system:
                setting = replace(setting, reboot=lambda system: type(self)(system).open(parent, shape))
            host = opened.enter_context(
                hop.connect(
                    led,
                    ("127.0.0.1", 22),
                    setting,
                    host_key=key,
                    client_key=client,
                    outermost=True,
                    deadline=60,
                    alive=alive,
                )
            )
            guest.load_modules(host, *self.modules)
            move_scratch(host, 3 * shape.disk_mib)
            yield host

    def _machine(self, parent: Host, payload: Payload) -> tuple[Run, list[str]]:
        """What runs the machine, and what that is made of wherever that lies."""
        part = payload.add_ons[boot.PROGRAMS.name]
        programs = Path(part.directory) / "tree"
        rest = _program(payload, boot.REST, "rest.so")
        image = _in_whole_sections(Path(payload.image))
        system = self._system.boot(payload, ARGUMENTS)
        initrd = boot.initrd(payload, programs, Path(part.directory))
        # Xen is told by which names it and its modules were loaded, and reads them: paths of this machine would take it
        # some microseconds more or less on each.
        names = [part.replace(payload.boot(""), "") for part in (system.kernel, system.initrd)]
        files = {name: payload.boot(name) for name in ("vmlinux", "xen")} | {"initrd": str(initrd)}
        constant = [
            *("-M", "q35,usb=off,graphics=off,memory-backend=ram", "-accel", "tcg", "-cpu", CPU, "-smp", "1"),
            *("-icount", "shift=1,sleep=off", "-rtc", "base=2026-01-01,clock=vm", "-seed", str(parent.seed)),
            *("-m", f"{MEMORY_MIB}M,slots=2,maxmem=16G"),
            *(
                "-nodefaults",
                "-no-user-config",
                "-nographic",
                "-no-reboot",
                "-serial",
                "stdio",
                "-nic",
                "none",
            ),
            *("-device", "virtio-pmem-pci,memdev=image"),
        ]
        argv = [
            *emulator(payload),
            *constant,
            *("-kernel", names[0], "-append", system.arguments, "-initrd", names[1]),
            *("-object", _pmem(image)),
            # No part of what the machine is made of, as it answers the same without: only not each time.
            *("-plugin", str(rest)),
            *(
                ["-plugin", ",".join([str(_program(payload, boot.WHY, "why.so")), *parent.counts])]
                if parent.counts
                else []
            ),
        ]
        booted = [*names, system.arguments, initrd.name]
        made_of = [payload.digest, part.digest, str(image.stat().st_size), *constant, *booted]
        hardware = Hardware(tuple(argv), MEMORY_MIB, str(programs / "gate.so"), files)

        def run(work: Path, files: Path, saved: bool, private: bool) -> AbstractContextManager[Machine]:
            return running(parent, hardware, work, files, saved=saved, private=private)

        return run, made_of


def misplaced(name: str, parent: Host) -> Unavailable | None:
    """Why an emulated machine does not open there: it does on the machine that vbench itself runs on."""
    if parent.payload is None:
        return Unavailable(f"{parent.name} holds no capsule", "vbench capsule build")
    if "/" in parent.name:
        return Unavailable(f"{name} opens on the machine itself, not in an environment", f"use local/{name}")
    return None


def _linux(payload: Payload, like: str) -> Boot:
    """The capsule's own kernel."""
    return Boot(payload.boot("vmlinux"), command_line(like), payload.boot("initrd"))


def _program(payload: Payload, part: AddOn, name: str) -> Path:
    return Path(payload.add_ons[part.name].directory) / "tree" / name


def _pmem(image: Path) -> str:
    size = image.stat().st_size
    return f"memory-backend-file,id=image,size={size},mem-path={image},share=on,readonly=on"


def _in_whole_sections(image: Path) -> Path:
    """The capsule's image, whose size is made a multiple of 2 MiB, the kernel's unit of persistent memory."""
    if over := image.stat().st_size % _SECTION:
        image.chmod(0o644)
        os.truncate(image, image.stat().st_size - over + _SECTION)
        image.chmod(0o444)
    return image


_SECTION = 2 << 20

# A real device takes time to serve a request. A timer would let the emulated processor go idle, and an idle
# testbed's clock follows the outer machine's (500 reads then differ by 2% between runs). So the service time
# is work: the kernel's generic ChaCha20 over each block, about 200 us per 4 KiB, which repeats within 0.01%.
_CIPHER = f"capi:chacha20-generic-plain64 {'76' * 32}"


def move_scratch(host: Host, mebibytes: int) -> None:
    """Replace the testbed's scratch disk with storage in its own memory that has a fixed service time."""
    for module in (["brd", "rd_nr=1", f"rd_size={mebibytes * 1024}"], ["chacha_generic"], ["dm_crypt"]):
        host.run([*host.program("modprobe"), *module])
    table = f"0 {mebibytes * 2048} crypt {_CIPHER} 0 /dev/ram0 0 1 sector_size:4096\n"
    host.run([*host.program("dmsetup"), "create", "--noudevsync", "scratch"], input=table.encode())
    guest.make_ext4(host, "/dev/dm-0", timeout=600)
    host.run(["mount", "-o", "noatime", "/dev/dm-0", "/scratch"])
