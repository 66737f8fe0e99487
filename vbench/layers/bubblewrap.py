"""bubblewrap: an unprivileged sandbox's namespaces around a root of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

from vbench.errors import BootError
from vbench.hosts.base import Host, Process
from vbench.hosts.keys import HostKey
from vbench.hosts.placement import Network, Way
from vbench.hosts.ssh.connect import SshHost
from vbench.layers import guest
from vbench.layers.base import Available, Layer, Shape, Technique, Unavailable
from vbench.layers.chroot import ROOT, needs_root, server

# bwrap itself runs inside the new root: it is the capsule's, with the capsule's own loader.
SANDBOX = [
    *("/usr/bin/bwrap", "--bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run"),
    *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", "bubblewrap", "--cap-add", "ALL"),
    *("--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin", "--die-with-parent"),
]


class Bubblewrap(Layer):
    """Mount, PID, IPC, UTS and network namespaces, set up by bubblewrap."""

    name: ClassVar[str] = "bubblewrap"
    technique: ClassVar[Technique] = Technique.ISOLATOR
    summary: ClassVar[str] = "namespaces as containers use them: mounts, processes, IPC, host name, network"

    def probe(self, parent: Host) -> Available | Unavailable:
        """Needs root, for the virtual Ethernet pair that leads to the sandbox."""
        if (answer := needs_root(parent, self.name)) is not None:
            return answer
        done = parent.run(["unshare", "--net", "true"], check=False)
        if done.code != 0:
            return Unavailable(f"{parent.name} forbids network namespaces", "is CONFIG_NET_NS in its kernel?")
        version = parent.run([*parent.program("bwrap"), "--version"], check=False)
        if version.code != 0:
            return Unavailable(
                f"the capsule's bwrap does not run on {parent.name}: {version.stderr.decode()}"
            )
        return Available(version.text)

    @contextmanager
    def open(self, parent: Host, shape: Shape) -> Iterator[SshHost]:
        """Takes well under a second. Memory and disk are the parent's own: shape's cannot be enforced."""
        payload = self.require(parent)
        key, link = HostKey.generate(), guest.private_link(parent)
        placement = replace(parent.placement, network=Network(Way.VETH))
        with guest.workdir(parent, self.name) as work:
            parent.put(guest.seed(key, self.name, link), f"{work}/seed", 0o600)
            argv = ["unshare", "--mount", "--net", "sh", "-c", ROOT, "sh", payload.directory, work]
            with parent.spawn([*argv, *SANDBOX, *server(link)]) as process:
                _lead_in(parent, link, process)
                deadline = guest.patience(parent, 20)
                name = f"{parent.name}/{self.name}"
                with guest.log_in(parent, name, link, key, process, placement, deadline) as host:
                    yield host


def _lead_in(parent: Host, link: guest.Link, process: Process) -> None:
    """Put one end of a virtual Ethernet pair into the sandbox's network namespace; it dies with that."""
    ours = parent.run(["readlink", "/proc/self/ns/net"]).text
    end = time.monotonic() + guest.patience(parent, 10)
    while True:
        theirs = parent.run(["readlink", f"/proc/{process.pid}/ns/net"], check=False).text
        if theirs not in ("", ours):
            break
        guest.alive(process, "bubblewrap")
        if time.monotonic() > end:
            raise BootError(f"the sandbox on {parent.name} got no network namespace", process.tail())
        time.sleep(0.01)
    ip, pid = parent.program("ip"), str(process.pid)
    parent.run([*ip, "link", "add", link.interface, "type", "veth", "peer", "name", "eth0", "netns", pid])
    guest.configure_link(parent, link, process, 5)
    inside = f"addr add {link.guest}/30 dev eth0\nlink set lo up\nlink set eth0 up\n"
    inside += f"route add default via {link.parent}\n"
    parent.run(["nsenter", "-t", pid, "-n", *ip, "-batch", "-"], input=inside.encode())
