"""User Mode Linux: a Linux kernel as an ordinary process that traces the guest's processes with ptrace."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import ClassVar

from vbench.hosts.base import Host, Payload, Process
from vbench.hosts.command import script
from vbench.hosts.placement import Cache, Disk, Medium, Network, Placement, Way
from vbench.layers import guest
from vbench.layers.base import Available, Unavailable
from vbench.layers.environment import EnvironmentLayer, Site
from vbench.layers.isolation import NAMESPACES, needs_root
from vbench.technique import PICTURES, Picture, Technique

SCRIPT = script(guest.SCRIPTS / "uml.sh")


class Uml(EnvironmentLayer):
    """A user-space kernel; one CPU only, disks through the parent's page cache."""

    name: ClassVar[str] = "uml"
    technique: ClassVar[Technique] = Technique.USER_KERNEL
    summary: ClassVar[str] = "User Mode Linux: a kernel running as a process on the parent"
    picture: ClassVar[Picture | None] = PICTURES["uml"]
    catalogue: ClassVar[str | None] = "User Mode Linux"
    boots_image: ClassVar[bool] = True
    processes: ClassVar[tuple[str, ...]] = (r"linux\.uml",)
    seconds: ClassVar[float] = 30

    def probe(self, parent: Host) -> Available | Unavailable:
        """Needs root for the tap device, and a processor whose registers it can hold, tried for real in doubt."""
        if (answer := needs_root(parent, self.name)) is not None:
            return answer
        if not guest.has_tun(parent):
            return Unavailable(f"{parent.name} has no /dev/net/tun", "load the tun module")
        assert parent.payload is not None  # noqa: S101 - needs_root would have failed first
        release = parent.run(["ls", f"{parent.payload.tree}/usr/lib/uml/modules"], check=False).text
        if not release:
            machine = parent.payload.machine
            return Unavailable(f"the packages for {machine}, as {parent.name} is, have no User Mode Linux")
        amx = parent.run(["grep", "-qw", "amx_tile", "/proc/cpuinfo"], check=False).code == 0
        if amx and (why := self._trouble(parent, parent.payload)) is not None:
            return Unavailable(
                f"User Mode Linux {release} does not run on this processor, which has AMX: {why}",
                "use a processor without AMX, or testbed/uml",
            )
        return Available(f"User Mode Linux {release}")

    def _trouble(self, parent: Host, payload: Payload) -> str | None:
        """Why a kernel does not come to its first process here; ``None`` if it does.

        It has room of a fixed size for a process's extended registers (Linux 6.1, arch/x86/um). With AMX they are
        larger, the host takes nothing less, and the kernel ends where it first runs a process.
        """
        with guest.workdir(parent, self.name) as work:
            arguments = [*_CONSOLE, "mem=64M", f"initrd={_initrd(payload)}"]
            argv = [*NAMESPACES, "sh", "-c", SCRIPT, "sh", payload.directory, work, *arguments]
            end = parent.clock() + guest.patience(parent, self.seconds)
            with parent.spawn(argv) as process:
                while guest.SIGN_OF_LIFE not in (console := process.tail()):
                    if (code := process.poll()) is not None:
                        return f"its first process ended it, with exit code {code}"
                    if parent.clock() > end:
                        return f"it printed {len(console)} characters and no more"
                    parent.pause(0.02)
        return None

    def place(self, site: Site) -> Placement:
        """One CPU; memory and disk of the shape's size."""
        return replace(
            site.parent.placement,
            vcpus=1,
            memory_mib=site.shape.memory_mib,
            disk=Disk(Medium.RAW_FILE, "ubd", Cache.WRITEBACK),
            network=Network(Way.TAP, "vector"),
        )

    def start(self, site: Site) -> AbstractContextManager[Process]:
        """Takes about two seconds on hardware."""
        payload, work = site.payload, site.work
        guest.scratch_disk(site.parent, f"{work}/scratch", site.shape)
        arguments = [
            f"mem={site.shape.memory_mib}M",
            f"initrd={_initrd(payload)}",
            *("ubd0r=/capsule/image", "ubd1r=/mnt/seed", "ubd2=/mnt/scratch"),
            f"vec0:transport=tap,ifname={site.link.interface},depth=128,gro=1",
            *_CONSOLE,
        ]
        return site.parent.spawn([*NAMESPACES, "sh", "-c", SCRIPT, "sh", payload.directory, work, *arguments])


_CONSOLE = ("con=null", "con0=null,fd:1", "ssl=null", "uml_dir=/mnt/uml", "umid=guest", "panic=-1", "quiet")


def _initrd(payload: Payload) -> str:
    """The initrd's path in the kernel's own root."""
    return "/capsule/tree/" + payload.boot("initrd").removeprefix(f"{payload.tree}/")
