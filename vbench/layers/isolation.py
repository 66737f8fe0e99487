"""What isolators share: namespaces, their own root over the capsule, and the SSH server in it."""

from __future__ import annotations

from vbench.hosts.base import Host
from vbench.hosts.command import script
from vbench.layers import guest
from vbench.layers.base import Unavailable
from vbench.layers.guest import Link

ROOT = script(guest.SCRIPTS / "root.sh")
"""Sets up a root over the capsule and runs in it the command after the two directories; see the file."""

NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
"""Command prefix: the command's mounts and processes vanish with it."""


def server(link: Link) -> list[str]:
    """The SSH server inside an environment that has no init of its own."""
    address = "127.0.0.1" if link.interface == "lo" else "0.0.0.0"  # noqa: S104 - inside a private namespace
    options = ["-F", "-E", "-s", "-k", "-m", "-W", "1048576", "-P", "/run/sshd.pid"]
    return ["/usr/sbin/dropbear", *options, "-r", "/vbench/hostkey", "-p", f"{address}:{link.port}"]


def needs_root(parent: Host, name: str) -> Unavailable | None:
    """An isolator's probe answer on a parent where it cannot work at all, else ``None``."""
    if not guest.is_root(parent):
        return Unavailable(
            f"{name} with a root of its own needs root on {parent.name}", "run vbench as root, or with sudo"
        )
    if parent.run(["sh", "-c", "command -v unshare"], check=False).code != 0:
        return Unavailable(f"{parent.name} has no unshare", "install util-linux")
    if parent.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False).code != 0:
        return Unavailable(f"{parent.name} forbids new namespaces", "vbench itself may run in a container")
    return None
