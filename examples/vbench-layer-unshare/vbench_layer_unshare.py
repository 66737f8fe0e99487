"""unshare: namespaces around its own root, created by util-linux rather than a sandbox."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar

from vbench.hosts.base import Host, Process
from vbench.layers import guest
from vbench.layers.base import Available, Unavailable
from vbench.layers.environment import EnvironmentLayer, Site
from vbench.layers.guest import Link
from vbench.layers.isolation import NAMESPACES, ROOT, needs_root, server
from vbench.technique import Picture, Technique


class Unshare(EnvironmentLayer):
    """Mount, PID, IPC and UTS namespaces. Memory, disk and network are the parent's."""

    name: ClassVar[str] = "unshare"
    technique: ClassVar[Technique] = Technique.ISOLATOR
    summary: ClassVar[str] = "namespaces created by util-linux: mount, PID, IPC, UTS"
    picture: ClassVar[Picture | None] = Picture("around", (("isolator", "unshare", "plain namespaces"),))

    def probe(self, parent: Host) -> Available | Unavailable:
        """Needs root and permission to create namespaces."""
        if (answer := needs_root(parent, self.name)) is not None:
            return answer
        done = parent.run(["unshare", "--ipc", "--uts", "true"], check=False)
        return Available("unshare(1)") if done.code == 0 else Unavailable(done.stderr.decode().strip())

    def link(self, parent: Host) -> Link:
        """A port on the network it shares with its parent."""
        return guest.loopback_link(parent)

    def start(self, site: Site) -> AbstractContextManager[Process]:
        """Takes well under a second."""
        root = ["sh", "-c", ROOT, "sh", site.payload.directory, site.work]
        return site.parent.spawn([*NAMESPACES, "--ipc", "--uts", *root, *server(site.link)])
