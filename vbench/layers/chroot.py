"""chroot: another root directory, and nothing else of its own that a workload could feel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from vbench.hosts.base import Host
from vbench.hosts.keys import HostKey
from vbench.hosts.ssh.connect import SshHost
from vbench.layers import guest
from vbench.layers.base import Available, Layer, Shape, Technique, Unavailable

# Run by the parent's shell in a private mount namespace: a copy-on-write root over the capsule's tree, held
# in memory, with the parent's devices in it. $1 capsule folder, $2 working folder, then what to run, in
# which ROOT stands for the new root. Every mount is gone with the namespace.
ROOT_SCRIPT = """
capsule=$1 work=$2; shift 2
mkdir -p "$work/mnt" "$work/scratch"
mount -t tmpfs -o mode=755 vbench "$work/mnt"
mkdir "$work/mnt/data" "$work/mnt/work" "$work/mnt/root"
root=$work/mnt/root
mount -t overlay -o "lowerdir=$capsule/tree,upperdir=$work/mnt/data,workdir=$work/mnt/work" vbench "$root"
mkdir -p "$root/capsule" "$root/scratch"
tar -xf "$work/seed" -C "$root"
mount --rbind "$capsule" "$root/capsule"
mount -o remount,bind,ro "$root/capsule"
mount --bind "$work/scratch" "$root/scratch"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
"""


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
            script = f'set -e\n{ROOT_SCRIPT}\nexec chroot "$root" "$@"'
            namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
            argv = [*namespaces, "sh", "-c", script, "sh", payload.directory, work, *server(link)]
            with (
                parent.spawn(argv) as process,
                guest.log_in(
                    parent,
                    f"{parent.name}/{self.name}",
                    link,
                    key,
                    process,
                    dict(parent.traits),
                    guest.patience(parent, 20),
                ) as host,
            ):
                yield host
