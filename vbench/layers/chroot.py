"""chroot: another root directory, and nothing else that a workload could notice."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar

from vbench.hosts.base import Host, Process
from vbench.layers import guest
from vbench.layers.base import Available, Unavailable
from vbench.layers.environment import EnvironmentLayer, Site
from vbench.layers.guest import Link
from vbench.layers.isolation import NAMESPACES, ROOT, needs_root, server
from vbench.technique import PICTURES, Picture, Technique


class Chroot(EnvironmentLayer):
    """Another root directory. Memory, disk and network are the parent's: a shape cannot be enforced.

    The processes also get a mount and a PID namespace. chroot(2) provides neither; vbench adds them so that
    nothing outlives the environment. No workload measures either.
    """

    name: ClassVar[str] = "chroot"
    technique: ClassVar[Technique] = Technique.ISOLATOR
    summary: ClassVar[str] = "another root directory on the same kernel and network"
    picture: ClassVar[Picture | None] = PICTURES["chroot"]
    catalogue: ClassVar[str | None] = "chroot"

    def probe(self, parent: Host) -> Available | Unavailable:
        """Needs root and permission to create namespaces."""
        return needs_root(parent, self.name) or Available("chroot(2) in a mount namespace")

    def link(self, parent: Host) -> Link:
        """A port on the network it shares with its parent."""
        return guest.loopback_link(parent)

    def start(self, site: Site) -> AbstractContextManager[Process]:
        """Takes well under a second."""
        root = ["sh", "-c", ROOT, "sh", site.payload.directory, site.work]
        return site.parent.spawn([*NAMESPACES, *root, *server(site.link)])
