"""What containers share: a manager on the parent, a control group, a veth pair."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import ClassVar

from vbench.hosts.base import Host, Process
from vbench.hosts.command import script
from vbench.hosts.placement import Network, Placement, Way
from vbench.layers import guest
from vbench.layers.base import Available, Unavailable
from vbench.layers.environment import EnvironmentLayer, Site, add_on
from vbench.layers.isolation import NAMESPACES, give_veth, lacks_network_namespaces, needs_root
from vbench.technique import Technique

GROUPS = script(guest.SCRIPTS / "groups.sh")
_ROOT = script(guest.SCRIPTS / "container-root.sh")
MANAGER = _ROOT + script(guest.SCRIPTS / "manager.sh")
INSTALLED = _ROOT + script(guest.SCRIPTS / "installed.sh")
FOLDER = "/container"
"""Where the manager finds the container's root, ``rootfs``, and what :meth:`Container.files` gives it."""


def group(site: Site) -> str:
    """The control group of a container and its manager, which nobody else on the machine has."""
    return f"vbench-{site.link.interface}"


class Container(EnvironmentLayer):
    """A container by a manager that comes as an add-on. Memory and disk are the parent's: a shape cannot be enforced.

    The manager runs in a root of its own, over its packages and the capsule, so that it is the same program on every
    parent. The container is in a control group with its controllers on, as containers are, and without limits.
    """

    technique: ClassVar[Technique] = Technique.ISOLATOR
    seconds: ClassVar[float] = 30

    def probe(self, parent: Host) -> Available | Unavailable:
        """Needs root, for namespaces, a control group and the veth pair."""
        if answer := needs_root(parent, self.name) or lacks_network_namespaces(parent):
            return answer
        filesystems = parent.run(["cat", "/proc/filesystems"], check=False).text.split()
        if "overlay" not in filesystems:
            guest.load_modules(parent, "overlay")
        if "cgroup2" not in filesystems and "cgroup" not in filesystems:
            return Unavailable(
                f"the kernel of {parent.name} has no control groups", "use chroot, or another kernel"
            )
        return Available(self.said())

    def said(self) -> str:
        """What it works with, for the doctor."""
        return ""

    def files(self, site: Site) -> Mapping[str, bytes]:
        """What the manager finds in its folder beside the root, by name."""
        return {}

    def command(self, site: Site) -> list[str]:
        """What runs the container, in the foreground, in the manager's root."""
        raise NotImplementedError

    def place(self, site: Site) -> Placement:
        """The parent's, except for the network."""
        return replace(site.parent.placement, network=Network(Way.VETH))

    def start(self, site: Site) -> AbstractContextManager[Process]:
        """Takes about a second."""
        grouped = [
            "unshare",
            "--mount",
            "--net",
            "sh",
            "-c",
            GROUPS,
            "sh",
            site.work,
            group(site),
        ]
        return site.parent.spawn([*grouped, *NAMESPACES, *self.manager(site), *self.command(site)])

    def manager(self, site: Site) -> list[str]:
        """What prepares the manager's root and the container's, and then runs the command after it."""
        assert self.needs is not None  # noqa: S101 - a manager is an add-on, unless this method is another
        parent, work = site.parent, site.work
        parent.run(["mkdir", f"{work}/container"])
        for name, data in self.files(site).items():
            parent.put(data, f"{work}/container/{name}")
        tree = add_on(site, self.needs.name)
        return ["sh", "-c", MANAGER, "sh", site.payload.directory, work, tree]

    def join(self, site: Site, process: Process) -> None:
        """Put one end of a veth pair into the network namespace; it vanishes with the namespace."""
        give_veth(site, process, self.name)
