"""chroot: another root directory, and nothing else of its own that a workload could feel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from vbench.hosts.base import Host
from vbench.hosts.command import script
from vbench.hosts.keys import HostKey
from vbench.hosts.ssh.connect import SshHost
from vbench.layers import guest
from vbench.layers.base import Available, Layer, Shape, Technique, Unavailable

ROOT = script(guest.SCRIPTS / "root.sh")
"""Makes a root of its own over the capsule, and runs in it what follows the two folders: see the file."""


def server(link: guest.Link) -> list[str]:
    """The SSH server inside an environment that has no first process of its own."""
    address = "127.0.0.1" if link.interface == "lo" else "0.0.0.0"  # noqa: S104 - inside a private namespace
    options = ["-F", "-E", "-s", "-k", "-m", "-W", "1048576", "-P", "/run/sshd.pid"]
    return ["/usr/sbin/dropbear", *options, "-r", "/vbench/hostkey", "-p", f"{address}:{link.port}"]


def needs_root(parent: Host, name: str) -> Unavailable | None:
    """The answer of an isolator's probe on a parent where it cannot work at all."""
    if not guest.is_root(parent):
        return Unavailable(
            f"{name} with a root of its own needs root on {parent.name}", "run vbench as root, or with sudo"
        )
    if parent.run(["sh", "-c", "command -v unshare"], check=False).code != 0:
        return Unavailable(f"{parent.name} has no unshare", "install util-linux")
    if parent.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False).code != 0:
        return Unavailable(f"{parent.name} forbids new namespaces", "vbench itself may run in a container")
    return None


class Chroot(Layer):
    """Another root directory.

    The processes also get a mount and a PID namespace. chroot(2) has neither; vbench adds them so that
    nothing outlives the environment, and no workload measures either.
    """

    name: ClassVar[str] = "chroot"
    technique: ClassVar[Technique] = Technique.ISOLATOR
    summary: ClassVar[str] = "another root directory on the same kernel and network"

    def probe(self, parent: Host) -> Available | Unavailable:
        """Needs root and the right to make namespaces."""
        return needs_root(parent, self.name) or Available("chroot(2) in a mount namespace")

    @contextmanager
    def open(self, parent: Host, shape: Shape) -> Iterator[SshHost]:
        """Takes well under a second. Memory, disk and network are the parent's own: shape's cannot be enforced."""
        payload = self.require(parent)
        key, link = HostKey.generate(), guest.loopback_link()
        with guest.workdir(parent, self.name) as work:
            parent.put(guest.seed(key, self.name, link), f"{work}/seed", 0o600)
            namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
            argv = [*namespaces, "sh", "-c", ROOT, "sh", payload.directory, work, *server(link)]
            with (
                parent.spawn(argv) as process,
                guest.log_in(
                    parent,
                    f"{parent.name}/{self.name}",
                    link,
                    key,
                    process,
                    parent.placement,
                    guest.patience(parent, 20),
                ) as host,
            ):
                yield host
