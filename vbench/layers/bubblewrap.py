"""bubblewrap: the namespaces of an unprivileged sandbox, around its own root."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import ClassVar

from vbench.hosts.base import Host, Process
from vbench.hosts.placement import Network, Placement, Way
from vbench.layers.base import Available, Unavailable
from vbench.layers.environment import EnvironmentLayer, Site
from vbench.layers.isolation import ROOT, give_veth, lacks_network_namespaces, needs_root, server
from vbench.technique import PICTURES, Picture, Technique

# bwrap itself runs inside the new root: the capsule's bwrap, with the capsule's own loader.
SANDBOX = [
    *("/usr/bin/bwrap", "--bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run"),
    *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", "bubblewrap", "--cap-add", "ALL"),
    *("--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin", "--die-with-parent"),
]


class Bubblewrap(EnvironmentLayer):
    """Mount, PID, IPC, UTS and network namespaces, set up by bubblewrap.

    Memory and disk are the parent's: a shape cannot be enforced.
    """

    name: ClassVar[str] = "bubblewrap"
    technique: ClassVar[Technique] = Technique.ISOLATOR
    summary: ClassVar[str] = "the namespaces containers use: mount, PID, IPC, UTS, network"
    picture: ClassVar[Picture | None] = PICTURES["bubblewrap"]
    catalogue: ClassVar[str | None] = "bubblewrap"

    def probe(self, parent: Host) -> Available | Unavailable:
        """Needs root for the veth pair that connects the sandbox."""
        if (answer := needs_root(parent, self.name)) is not None:
            return answer
        if (answer := lacks_network_namespaces(parent)) is not None:
            return answer
        version = parent.run([*parent.program("bwrap"), "--version"], check=False)
        if version.code != 0:
            return Unavailable(
                f"the capsule's bwrap does not run on {parent.name}: {version.stderr.decode()}"
            )
        return Available(version.text)

    def place(self, site: Site) -> Placement:
        """The parent's, except for the network."""
        return replace(site.parent.placement, network=Network(Way.VETH))

    def start(self, site: Site) -> AbstractContextManager[Process]:
        """Takes well under a second."""
        root = ["unshare", "--mount", "--net", "sh", "-c", ROOT, "sh", site.payload.directory, site.work]
        return site.parent.spawn([*root, *SANDBOX, *server(site.link)])

    def join(self, site: Site, process: Process) -> None:
        """Put one end of a veth pair into the sandbox's network namespace; it vanishes with the namespace."""
        give_veth(site, process, self.name)
