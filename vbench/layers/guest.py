"""What every environment opened from the capsule shares: working files, seed, network link, SSH."""

from __future__ import annotations

import io
import random
import re
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from vbench.errors import BootError, HostError
from vbench.hosts.base import Host, Payload, Process
from vbench.hosts.keys import HostKey, client_public_key
from vbench.hosts.placement import Placement
from vbench.hosts.ssh.connect import SshHost, connect
from vbench.layers.base import Shape

NO_LAZY = "lazy_itable_init=0,lazy_journal_init=0"
"""A file system that the kernel has no work left to do on, which would run beside a measurement."""

SCRIPTS = Path(__file__).parent / "scripts"

DIRECTORY = "/capsule"
"""Where the capsule lies inside every environment."""


@dataclass(frozen=True)
class Link:
    """A network link between an environment and its parent: a /30 of our own, or the parent's loopback.

    ``nat``: what is inside reaches the parent's network by translated addresses only, and is not reached itself.
    """

    interface: str
    parent: str
    guest: str
    port: int = 22
    nat: bool = False


def private_link(host: Host) -> Link:
    """A link whose interface name and subnet are in use nowhere on ``host``.

    Subnets come from 10.77.0.0/16 on the machine itself and from the next /16 at each level below, so that
    a guest's own link never meets those it makes for its guests.
    """
    taken = host.run(["ls", "/sys/class/net"]).text.split()
    level = 77 + host.name.count("/")
    while True:
        number = random.randrange(1, 16384)  # noqa: S311 - a name, not a secret
        interface = f"vb{level}x{number}"
        if interface not in taken:
            prefix = f"10.{level}.{number >> 6}"
            offset = (number & 63) * 4
            return Link(interface, f"{prefix}.{offset + 1}", f"{prefix}.{offset + 2}")


def loopback_link(*, nat: bool = False) -> Link:
    """For an environment that shares its parent's network, or hides behind it: a port of the parent's loopback."""
    port = random.randrange(20000, 32000)  # noqa: S311 - below the ports that kernels give out by themselves
    return Link("lo", "127.0.0.1", "127.0.0.1", port, nat)


@contextmanager
def workdir(parent: Host, name: str) -> Iterator[str]:
    """A folder on the parent's scratch storage, gone on leaving."""
    path = parent.run(["mktemp", "-d", f"{parent.scratch}/{name}.XXXXXX"]).text
    try:
        yield path
    finally:
        parent.run(["rm", "-rf", "--one-file-system", path], check=False)


def seed(key: HostKey, name: str, link: Link) -> bytes:
    """What one environment is given beyond the capsule: its SSH host key, who may log in, its address.

    A tar archive, padded to whole sectors so that it can stand as a disk.
    """
    config = f"NAME={name}\nADDRESS={link.guest}/30\nGATEWAY={link.parent}\n"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data, mode in (
            ("vbench/hostkey", key.dropbear, 0o600),
            ("vbench/seed.conf", config.encode(), 0o644),
            ("root/.ssh/authorized_keys", f"{client_public_key()}\n".encode(), 0o600),
        ):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), mode
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def scratch_disk(parent: Host, path: str, shape: Shape) -> None:
    """An empty ext4 disk image of the shape's size, made on the parent; sparse until written to."""
    parent.run(["truncate", "-s", f"{shape.disk_mib}M", path])
    make_ext4(parent, path, timeout=120)


def make_ext4(host: Host, path: str, *, timeout: float) -> None:
    """Make an ext4 file system that the kernel has no work left to do on, in a file or on a device.

    Its blocks are 4 KiB on every storage; by itself mke2fs takes smaller ones on a small disk.
    """
    argv = [*host.program("mke2fs"), "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-E", NO_LAZY]
    host.run([*argv, path], timeout=timeout)


def configure_link(parent: Host, link: Link, process: Process, deadline: float) -> None:
    """Give the parent's end of a link its address as soon as the interface is there.

    The environment's own process holds the interface, so it vanishes with the process.
    """
    commands = f"addr add {link.parent}/30 dev {link.interface}\nlink set {link.interface} up\n"
    end = time.monotonic() + deadline
    while True:
        done = parent.run([*parent.program("ip"), "-batch", "-"], input=commands.encode(), check=False)
        if done.code == 0:
            return
        alive(process, f"the environment behind {link.interface}")
        if time.monotonic() > end:
            error = done.stderr.decode(errors="replace").strip()
            raise BootError(f"cannot configure {link.interface} on {parent.name}: {error}", process.tail())
        time.sleep(0.02)


def alive(process: Process, name: str) -> None:
    """Raise ``BootError`` with the end of the console if the environment's process has ended."""
    if (code := process.poll()) is not None:
        raise BootError(f"{name} ended while starting, with exit code {code}", process.tail())


@contextmanager
def log_in(
    parent: Host,
    name: str,
    link: Link,
    key: HostKey,
    process: Process,
    placement: Placement,
    deadline: float,
) -> Iterator[SshHost]:
    """The SSH connection to an environment just started, which is then the host that its layer yields.

    The process is the environment: what it uses, the environment costs, and who kills it kills that.
    """
    if parent.payload is None:
        raise BootError(f"{parent.name} holds no capsule")
    here = parent.payload
    with ExitStack() as opened:
        try:
            host = opened.enter_context(
                connect(
                    parent,
                    (link.guest, link.port),
                    name=name,
                    host_key=key,
                    payload=Payload(DIRECTORY, here.digest, here.programs, here.files),
                    scratch="/scratch",
                    peer=link.parent,
                    placement=placement,
                    deadline=deadline,
                    alive=lambda: alive(process, name),
                    usage=process.usage,
                )
            )
        except BootError:
            raise
        except HostError as error:
            raise BootError(error.message, process.tail()) from error
        host.process = process
        over = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process, over, opened.close), daemon=True)
        watcher.start()
        try:
            with _meeting_peer(parent, link, host):
                yield host
        finally:
            over.set()
            watcher.join()


@contextmanager
def _meeting_peer(parent: Host, link: Link, host: Host) -> Iterator[None]:
    """Let an environment's network workloads meet the peer that its parent's meet, where that can be reached.

    All environments on one machine then have the same peer: what a layer in a guest costs is not read from a path
    that never leaves the guest, held against one that does.
    """

    @contextmanager
    def admit(network: str) -> Iterator[bool]:
        forward = ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]
        ip, route = parent.program("ip"), [network, "via", link.guest, "dev", link.interface]
        led = host.run(forward, check=False).code == 0
        led = led and parent.run([*ip, "route", "add", *route], check=False).code == 0
        try:
            with parent.admit(network) if led and parent.admit else nullcontext(led) as reached:
                yield reached
        finally:
            if led:
                with suppress(HostError):  # the parent itself may be gone, and its routes with it
                    parent.run([*ip, "route", "del", *route], check=False)

    shared = link.interface == "lo" and not link.nat
    host.admit = parent.admit if shared else admit if not link.nat else lambda network: nullcontext(False)
    host.peer, host.bind, host.peer_at = link.parent, link.parent, parent.name
    if parent.admit is None:  # in the network of the machine itself
        host.peer_at = parent.peer_at or parent.name
        yield
    elif shared:
        host.peer, host.bind, host.peer_at = parent.peer, parent.bind, parent.peer_at
        yield
    else:
        with nullcontext(False) if link.nat else parent.admit(f"{link.guest}/32") as reached:
            if reached:
                host.peer, host.bind, host.peer_at = parent.peer, parent.bind, parent.peer_at
            yield


def _watch(process: Process, over: threading.Event, hang_up: Callable[[], None]) -> None:
    """Hang up when an environment's process ends: TCP does not notice that the far end of a tap is gone."""
    while not over.wait(0.25):
        try:
            if process.poll() is None:
                continue
        except HostError:
            pass  # the parent itself is gone
        hang_up()
        return


_HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"


def huge_pages_as(parent: Host, host: Host) -> None:
    """Give a guest's kernel its parent's choice of transparent huge pages, where both have one.

    Left alone, a kernel with less than 512 MiB takes none, and one with more always (Linux, mm/huge_memory.c).
    """
    if chosen := re.search(r"\[(\w+)\]", parent.run(["cat", _HUGE_PAGES], check=False).text):
        host.run(["sh", "-c", f"[ ! -e {_HUGE_PAGES} ] || echo {chosen[1]} > {_HUGE_PAGES}"])


def is_root(host: Host) -> bool:
    """Whether commands on ``host`` run as user 0."""
    return host.run(["id", "-u"]).text == "0"


CHOICES = ("mitigations=", "norandmaps", "transparent_hugepage=")


def kernel_choices(host: Host) -> str:
    """What a guest's kernel is told as its parent's was, to be alike: mitigations, random addresses, huge pages."""
    words = host.run(["cat", "/proc/cmdline"], check=False).text.split()
    return " ".join(word for word in words if word.startswith(CHOICES))


def has_tun(host: Host) -> bool:
    """Whether tap devices can be made on ``host``, after loading the module where there is one."""
    load_modules(host, "tun")
    return host.run(["test", "-c", "/dev/net/tun"], check=False).code == 0


def load_modules(host: Host, *names: str) -> None:
    """Ask the kernel of ``host`` for modules; those it has built in, or has not, are no error."""
    if is_root(host):
        for name in names:
            host.run([*host.program("modprobe"), "-q", name], check=False)


def patience(parent: Host, seconds: float) -> float:
    """A deadline for something that takes ``seconds`` at most on hardware, stretched on emulated parents."""
    return seconds * parent.placement.slowdown
