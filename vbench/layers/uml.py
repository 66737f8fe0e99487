"""User Mode Linux: a Linux kernel that is an ordinary process, its guests' processes traced by ptrace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

from vbench.hosts.base import Host
from vbench.hosts.command import script
from vbench.hosts.keys import HostKey
from vbench.hosts.placement import Cache, Disk, Medium, Network, Way
from vbench.hosts.ssh.connect import SshHost
from vbench.layers import guest
from vbench.layers.base import Available, Layer, Shape, Technique, Unavailable
from vbench.layers.chroot import needs_root

SCRIPT = script(guest.SCRIPTS / "uml.sh")


class Uml(Layer):
    """A kernel in user space; one CPU only, its disks through the parent's page cache."""

    name: ClassVar[str] = "uml"
    technique: ClassVar[Technique] = Technique.USER_KERNEL
    summary: ClassVar[str] = "User Mode Linux: a kernel run as a process of the parent"

    def probe(self, parent: Host) -> Available | Unavailable:
        """Needs root, for the tap device."""
        if (answer := needs_root(parent, self.name)) is not None:
            return answer
        if not guest.has_tun(parent):
            return Unavailable(f"{parent.name} has no /dev/net/tun", "load the tun module")
        assert parent.payload is not None  # noqa: S101 - needs_root would have failed first
        release = parent.run(["ls", f"{parent.payload.tree}/usr/lib/uml/modules"], check=False).text
        return Available(f"User Mode Linux {release}")

    @contextmanager
    def open(self, parent: Host, shape: Shape) -> Iterator[SshHost]:
        """Takes about two seconds on hardware."""
        payload = self.require(parent)
        key, link = HostKey.generate(), guest.private_link(parent)
        placement = replace(
            parent.placement,
            vcpus=1,
            memory_mib=shape.memory_mib,
            disk=Disk(Medium.RAW_FILE, "ubd", Cache.WRITEBACK),
            network=Network(Way.TAP, "vector"),
        )
        with guest.workdir(parent, self.name) as work:
            parent.put(guest.seed(key, self.name, link), f"{work}/seed", 0o600)
            guest.scratch_disk(parent, f"{work}/scratch", shape)
            arguments = [
                f"mem={shape.memory_mib}M",
                f"initrd=/capsule/tree/{_relative(parent)}",
                *("ubd0r=/capsule/image", "ubd1r=/mnt/seed", "ubd2=/mnt/scratch"),
                f"vec0:transport=tap,ifname={link.interface},depth=128,gro=1",
                *("con=null", "con0=null,fd:1", "ssl=null", "uml_dir=/mnt/uml", "umid=guest"),
                *("panic=-1", "quiet"),
            ]
            namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
            argv = [*namespaces, "sh", "-c", SCRIPT, "sh", payload.directory, work, *arguments]
            with parent.spawn(argv) as process:
                deadline = guest.patience(parent, 30)
                guest.configure_link(parent, link, process, deadline)
                name = f"{parent.name}/{self.name}"
                with guest.log_in(parent, name, link, key, process, placement, deadline) as host:
                    yield host


def _relative(parent: Host) -> str:
    assert parent.payload is not None  # noqa: S101 - callers have checked
    return parent.payload.boot("initrd").removeprefix(f"{parent.payload.tree}/")
