"""Building blocks of environments: working files, seed, disks, network link, kernel options."""

from __future__ import annotations

import io
import logging
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vbench.errors import BootError, ConnectionLost, HostError, LayerUnavailable
from vbench.hosts.base import Host, Process
from vbench.hosts.keys import HostKey
from vbench.layers.base import Shape

log = logging.getLogger(__name__)

NO_LAZY = "lazy_itable_init=0,lazy_journal_init=0"
"""Leaves the kernel no deferred file system work that would run during a measurement."""

SIGN_OF_LIFE = "vbench: no disk found"
"""What the initrd of a guest without disks says: by then the kernel and its first process have run."""

SCRIPTS = Path(__file__).parent / "scripts"

DIRECTORY = "/capsule"
"""Location of the capsule inside every environment."""


@dataclass(frozen=True)
class Link:
    """A network link between an environment and its parent: its own /30, or the parent's loopback.

    On the parent, ``interface`` has the address ``parent``, and the environment answers at ``guest`` and
    ``port``. Inside, its own address is ``address``, and the parent answers at ``gateway``. Both views agree
    except with ``nat``: the environment then reaches its parent's network only through NAT, and cannot be
    reached itself.
    """

    interface: str
    parent: str
    guest: str
    port: int
    address: str
    gateway: str

    @property
    def nat(self) -> bool:
        """Whether there is NAT between the two."""
        return self.address != self.guest

    @property
    def shared(self) -> bool:
        """Whether the environment only has its parent's network."""
        return self.interface == "lo" and not self.nat


def private_link(host: Host) -> Link:
    """A link whose interface name and subnet are not in use on ``host``.

    Subnets come from 10.77.0.0/16 on the machine itself and from the next /16 at each level of nesting, so a
    guest's own link never collides with those it creates for its guests. Raises ``LayerUnavailable`` if the host does
    not show which are.
    """
    listed = host.run(["ls", "/sys/class/net"], check=False)
    if listed.code != 0:
        raise LayerUnavailable(
            f"{host.name} shows no network interfaces (/sys/class/net)",
            "use a layer on the parent's own network, such as chroot",
        )
    taken = listed.text.split()
    level = 77 + host.name.count("/")
    while True:
        number = host.chance.randrange(1, 16384)
        interface = f"vb{level}x{number}"
        if interface not in taken:
            prefix = f"10.{level}.{number >> 6}"
            offset = (number & 63) * 4
            parent, guest = f"{prefix}.{offset + 1}", f"{prefix}.{offset + 2}"
            return Link(interface, parent, guest, 22, guest, parent)


def loopback_link(host: Host) -> Link:
    """For an environment that shares its parent's network: a port on the parent's loopback."""
    return Link("lo", "127.0.0.1", "127.0.0.1", _port(host), "127.0.0.1", "127.0.0.1")


def translated_link(host: Host) -> Link:
    """For a guest on QEMU's user-mode network, behind a port on the parent's loopback."""
    return Link("lo", "127.0.0.1", "127.0.0.1", _port(host), "10.0.2.1", "10.0.2.2")


def _port(host: Host) -> int:
    return host.chance.randrange(20000, 32000)  # below the ephemeral ports


@contextmanager
def workdir(parent: Host, name: str) -> Iterator[str]:
    """A directory on the parent's scratch storage, removed on exit."""
    path = parent.run(["mktemp", "-d", f"{parent.scratch}/{name}.XXXXXX"]).text
    try:
        yield path
    finally:
        with suppress(ConnectionLost):  # the parent took it along
            parent.run(["rm", "-rf", "--one-file-system", path], check=False)


def seed(key: HostKey, name: str, link: Link, client: str) -> bytes:
    """What one environment gets in addition to the capsule: its SSH host key, who may log in, its address.

    A tar archive, padded to whole sectors so that it can serve as a disk.
    """
    config = f"NAME={name}\nADDRESS={link.address}/30\nGATEWAY={link.gateway}\n"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data, mode in (
            ("vbench/hostkey", key.dropbear, 0o600),
            ("vbench/seed.conf", config.encode(), 0o644),
            ("root/.ssh/authorized_keys", f"{client}\n".encode(), 0o600),
        ):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def scratch_disk(parent: Host, path: str, shape: Shape) -> None:
    """Create an empty ext4 disk image of the shape's size on the parent; sparse until written to."""
    parent.run(["truncate", "-s", f"{shape.disk_mib}M", path])
    make_ext4(parent, path, timeout=120)


@contextmanager
def loop_device(host: Host, path: str, *options: str) -> Iterator[str]:
    """A file or a device as a block device of its own."""
    device = host.run([*host.program("losetup"), "--find", "--show", *options, path]).text
    try:
        yield device
    finally:
        with suppress(ConnectionLost):
            host.run([*host.program("losetup"), "--detach", device], check=False)


def has_direct_io(host: Host, folder: str, size: int) -> bool:
    """Whether files there can be read and written past the page cache in blocks of so many bytes."""
    argv = ["dd", "if=/dev/zero", f"of={folder}/direct", f"bs={size}", "count=1", "oflag=direct"]
    return host.run(argv, check=False).code == 0


def has_file(host: Host, path: str) -> bool:
    """Whether a path is there; so too if the host cannot be asked any more."""
    try:
        return host.run(["test", "-e", path], check=False).code == 0
    except HostError:
        return True


def make_ext4(host: Host, path: str, *, timeout: float) -> None:
    """Make an ext4 file system in a file or on a device, with no work deferred to the kernel.

    Blocks are always 4 KiB; by default mke2fs uses smaller ones on a small disk.
    """
    argv = [*host.program("mke2fs"), "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-E", NO_LAZY]
    host.run([*argv, path], timeout=timeout)


def configure_link(parent: Host, link: Link, process: Process, deadline: float) -> None:
    """Give the parent's end of a link its address as soon as the interface exists.

    The environment's own process holds the interface, so it vanishes with the process.
    """
    commands = f"addr add {link.parent}/30 dev {link.interface}\nlink set {link.interface} up\n"
    end = parent.clock() + deadline
    while True:
        done = parent.run([*parent.program("ip"), "-batch", "-"], input=commands.encode(), check=False)
        if done.code == 0:
            return
        alive(process, f"the environment behind {link.interface}")
        if parent.clock() > end:
            error = done.stderr.decode(errors="replace").strip()
            raise BootError(f"cannot configure {link.interface} on {parent.name}: {error}", process.tail())
        parent.pause(0.02)


def alive(process: Process, name: str) -> None:
    """Raise ``BootError`` with the end of the console if the environment's process has ended."""
    if (code := process.poll()) is not None:
        raise BootError(f"{name} ended while starting, with exit code {code}", process.tail())


def out_of_memory(parent: Host) -> str:
    """What the kernel of a guest says of a process that it killed for want of memory; "" if it killed none.

    Of the machine itself it is not asked: what its log holds may be of any time and of anybody.
    """
    if "/" not in parent.name:
        return ""
    with suppress(HostError):
        said = parent.run([*parent.program("busybox"), "dmesg"], check=False, timeout=600).text
        log.debug("%s: the end of its kernel's log:\n%s", parent.name, "\n".join(said.splitlines()[-20:]))
        for line in reversed(said.splitlines()):
            if "Killed process" in line:
                return line.partition("] ")[2] or line
    return ""


_HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"


def huge_pages_as(parent: Host, host: Host) -> None:
    """Give a guest's kernel its parent's transparent huge page setting, where both have one.

    By default, a kernel with less than 512 MiB never uses them, others always do (Linux, mm/huge_memory.c).
    """
    if chosen := re.search(r"\[(\w+)\]", parent.run(["cat", _HUGE_PAGES], check=False).text):
        host.run(["sh", "-c", f"[ ! -e {_HUGE_PAGES} ] || echo {chosen[1]} > {_HUGE_PAGES}"])


def is_root(host: Host) -> bool:
    """Whether commands on ``host`` run as user 0."""
    return host.run(["id", "-u"]).text == "0"


CHOICES = ("mitigations=", "norandmaps", "transparent_hugepage=")


def kernel_choices(host: Host) -> str:
    """The parent's kernel options that a guest's kernel gets too: mitigations, ASLR, huge pages."""
    words = host.run(["cat", "/proc/cmdline"], check=False).text.split()
    return " ".join(word for word in words if word.startswith(CHOICES))


def has_tun(host: Host) -> bool:
    """Whether tap devices can be created on ``host``; loads the module if there is one."""
    load_modules(host, "tun")
    return host.run(["test", "-c", "/dev/net/tun"], check=False).code == 0


def load_modules(host: Host, *names: str) -> None:
    """Load kernel modules on ``host`` if root; built-in or missing ones are not an error."""
    if is_root(host):
        for name in names:
            host.run([*host.program("modprobe"), "-q", name], check=False)


def patience(parent: Host, seconds: float) -> float:
    """A timeout for something that takes at most ``seconds`` on hardware, extended on emulated parents."""
    return seconds * parent.placement.slowdown
