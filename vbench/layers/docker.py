"""Docker, where it is installed: the same containers by the door that most people use."""

from __future__ import annotations

from typing import ClassVar

from vbench.hosts.base import Host
from vbench.hosts.command import script
from vbench.layers import guest
from vbench.layers.base import Available, Unavailable
from vbench.layers.container import INSTALLED, Container, group
from vbench.layers.environment import Site
from vbench.layers.isolation import server
from vbench.technique import Picture

_DAEMON = script(guest.SCRIPTS / "docker.sh")


class Docker(Container):
    """A container by the parent's own Docker, with what that gives one unasked: its runtime, capabilities and filter.

    A daemon of ours makes it, so that the user's own, its containers and images are not touched. Memory and disk are
    the parent's.
    """

    name: ClassVar[str] = "docker"
    summary: ClassVar[str] = "a container by the Docker that is installed, as it makes one unasked"
    picture: ClassVar[Picture | None] = Picture("around", (("isolator", "Docker", "OCI container, seccomp"),))
    catalogue: ClassVar[str | None] = "Docker"
    processes: ClassVar[tuple[str, ...]] = (r"containerd-shim(-runc-v[12])?",)

    def probe(self, parent: Host) -> Available | Unavailable:
        """What a container needs, and Docker's daemon."""
        if isinstance(answer := super().probe(parent), Unavailable):
            return answer
        for wanted in ("docker", "dockerd", "containerd"):
            if parent.run(["sh", "-c", f"command -v {wanted}"], check=False).code != 0:
                return Unavailable(
                    f"{parent.name} has no {wanted}",
                    "install docker.io or docker-ce, or use oci, which brings its runtimes",
                )
        return Available(parent.run(["dockerd", "--version"]).text)

    def manager(self, site: Site) -> list[str]:
        """It runs on the parent itself."""
        return ["sh", "-c", INSTALLED, "sh", site.payload.directory, site.work]

    def command(self, site: Site) -> list[str]:
        """The network is the namespace that the daemon starts in."""
        return ["sh", "-c", _DAEMON, "sh", f"{group(site)}-in", *server(site.link)]
