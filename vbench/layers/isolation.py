"""What isolators share: namespaces, their own root over the capsule, and the SSH server in it."""

from __future__ import annotations

from vbench.errors import BootError, LayerUnavailable
from vbench.hosts.base import Host, Process
from vbench.hosts.command import script
from vbench.layers import guest
from vbench.layers.base import Unavailable
from vbench.layers.environment import Site
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


def lacks_network_namespaces(parent: Host) -> Unavailable | None:
    """The answer on a parent whose kernel gives no network namespace, else ``None``."""
    if parent.run(["unshare", "--net", "true"], check=False).code != 0:
        return Unavailable(f"{parent.name} forbids network namespaces", "is CONFIG_NET_NS in its kernel?")
    return None


def give_veth(site: Site, process: Process, name: str) -> None:
    """Put one end of a veth pair into the network namespace that a process begins with.

    Raises ``BootError`` if it ends, or has none of its own after ten seconds, and ``LayerUnavailable`` if the parent's
    kernel makes no such pairs or does not let it.
    """
    parent, link = site.parent, site.link
    ours = parent.run(["readlink", "/proc/self/ns/net"]).text
    end = parent.clock() + guest.patience(parent, 10)
    while True:
        theirs = parent.run(["readlink", f"/proc/{process.pid}/ns/net"], check=False).text
        if theirs not in ("", ours):
            break
        guest.alive(process, name)
        if parent.clock() > end:
            raise BootError(f"{name} on {parent.name} got no network namespace", process.tail())
        parent.pause(0.01)
    ip, pid = parent.program("ip"), str(process.pid)
    pair = ["type", "veth", "peer", "name", "eth0", "netns", pid]
    made = parent.run([*ip, "link", "add", link.interface, *pair], check=False)
    if made.code != 0:
        guest.alive(process, name)
        why = " ".join(made.stderr.decode(errors="replace").split()) or f"exit code {made.code}"
        raise LayerUnavailable(
            f"{parent.name} makes no pair of virtual Ethernet interfaces, by which {name} is reached: {why}",
            "use a layer on the parent's own network, such as chroot",
        )
    guest.configure_link(parent, link, process, site.seconds)
    inside = f"addr add {link.address}/30 dev eth0\nlink set lo up\nlink set eth0 up\n"
    inside += f"route add default via {link.gateway}\n"
    done = parent.run(["nsenter", "-t", pid, "-n", *ip, "-batch", "-"], input=inside.encode(), check=False)
    if done.code != 0:
        guest.alive(process, name)
        raise BootError(
            f"{name} on {parent.name}: {done.stderr.decode(errors='replace').strip()}", process.tail()
        )
