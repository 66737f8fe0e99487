"""Podman, where it is installed: the same containers by the door that people use."""

from __future__ import annotations

from typing import ClassVar

from vbench.hosts.base import Host
from vbench.layers.base import Available, Unavailable
from vbench.layers.container import INSTALLED, Container
from vbench.layers.environment import Site
from vbench.layers.isolation import server
from vbench.technique import Picture


class Podman(Container):
    """A container by the parent's own Podman, with what that gives one unasked: its runtime, capabilities and filter.

    It keeps its state in the working folder, and so touches none of the user's containers and images. Memory and disk
    are the parent's.
    """

    name: ClassVar[str] = "podman"
    summary: ClassVar[str] = "a container by the Podman that is installed, as it makes one unasked"
    picture: ClassVar[Picture | None] = Picture("around", (("isolator", "Podman", "OCI container, seccomp"),))
    catalogue: ClassVar[str | None] = "Podman"
    processes: ClassVar[tuple[str, ...]] = ("conmon",)

    def probe(self, parent: Host) -> Available | Unavailable:
        """What a container needs, and Podman."""
        if isinstance(answer := super().probe(parent), Unavailable):
            return answer
        version = parent.run(["sh", "-c", "command -v podman > /dev/null && podman --version"], check=False)
        if version.code != 0:
            return Unavailable(
                f"{parent.name} has no Podman", "install podman, or use oci, which brings its runtimes"
            )
        if parent.run(["sh", "-c", "command -v crun"], check=False).code != 0:
            return Unavailable(f"{parent.name} has no crun, which Podman is to use", "install crun")
        return Available(f"{version.text}, crun")

    def manager(self, site: Site) -> list[str]:
        """It runs on the parent itself."""
        return ["sh", "-c", INSTALLED, "sh", site.payload.directory, site.work]

    def command(self, site: Site) -> list[str]:
        """The network is the namespace that it starts in; the control group is there already, which runc cannot use."""
        state = ["--root=/mnt/podman", "--runroot=/mnt/run", "--tmpdir=/mnt/tmp", "--storage-driver=vfs"]
        state += ["--events-backend=none", "--cgroup-manager=cgroupfs", "--runtime=crun"]
        run = [
            "--name=vbench",
            "--hostname=podman",
            "--network=host",
            "--cgroups=disabled",
            "--log-driver=none",
        ]
        run += ["--uts=private", "--pull=never", "--entrypoint=[]", "--rootfs", "/mnt/rootfs"]
        return ["podman", *state, "run", *run, *server(site.link)]
