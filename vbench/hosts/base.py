"""Hosts: the machines that commands run on, however they are reached.

Everything in vbench that touches a machine goes through a :class:`Host`. A layer opens on a host and yields a
host, so nothing above this module knows whether a command runs here, in a chroot, or in a guest of a guest.
"""

from __future__ import annotations

import copy
import random
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Protocol, Self

from vbench.errors import HostError
from vbench.hosts.placement import Placement

_CHANCE = random.SystemRandom()

Argv = Sequence[str]
Address = tuple[str, int] | str
"""What to connect to: (IP address, TCP port), or the path of a Unix socket."""


class Connection(Protocol):
    """The part of the socket interface that an SSH transport needs; sockets and SSH channels both have it."""

    def send(self, data: bytes, /) -> int: ...  # noqa: D102
    def recv(self, size: int, /) -> bytes: ...  # noqa: D102
    def settimeout(self, timeout: float | None, /) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Usage:
    """What an environment has cost its parent so far: CPU seconds, and bytes resident now.

    ``switches`` counts context switches of its threads, ``read_bytes`` and ``written_bytes`` its storage I/O;
    ``None`` where the parent does not report it.
    """

    cpu_s: float
    rss_bytes: int
    switches: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None


@dataclass(frozen=True)
class Result:
    """A finished command.

    ``code`` follows the shell convention on every kind of host: 128 + n for a command killed by signal n.
    ``elapsed`` is in seconds on the harness's own monotonic clock. ``usage`` is the kernel's accounting of
    the command and its children if the host can provide it (a local one can), else ``None``.
    """

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes
    elapsed: float
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """Standard output as text, without trailing whitespace."""
        return self.stdout.decode(errors="replace").rstrip()

    @property
    def signal(self) -> str | None:
        """Name of the signal that killed the command, if any."""
        try:
            return signal.Signals(self.code - 128).name if self.code > 128 else None
        except ValueError:
            return None


class Process(ABC):
    """A long-running command on a host. Its output is drained, and only the tail is kept."""

    argv: tuple[str, ...]
    pid: int

    @abstractmethod
    def poll(self) -> int | None:
        """Exit code (as in :class:`Result`) if the process has ended, else ``None``."""

    @abstractmethod
    def wait(self, timeout: float) -> int:
        """Exit code; raises ``CommandTimeout`` if it is still running after ``timeout`` seconds."""

    @abstractmethod
    def kill(self, sig: int = signal.SIGKILL) -> None:
        """Send a signal to the whole process group; no error if it is gone."""

    @abstractmethod
    def tail(self) -> str:
        """The last 64 KiB of standard output and standard error combined, as text."""

    def usage(self) -> Usage | None:
        """CPU and memory of this process and all its descendants, or ``None`` if unknown."""
        return None

    def holds(self) -> dict[str, int] | None:
        """Memory in KiB, as ``pss``, of an environment that is more than processes of its parent.

        ``None`` if it is only those processes: their own accounting covers it.
        """
        return None


@dataclass(frozen=True)
class Program:
    """A capsule program: its path inside the tree, and whether it needs the tree's loader."""

    path: str
    dynamic: bool


@dataclass(frozen=True)
class Part:
    """A capsule add-on on the machine itself: ``directory`` holds ``tree/`` and ``add-on.tar``."""

    directory: str
    digest: str


@dataclass(frozen=True)
class Payload:
    """The capsule on one host: ``directory`` holds ``tree/`` and ``image``.

    ``files`` maps each path inside ``tree/`` that a measurement executes (programs, libraries, loader) to
    its SHA-256; ``digest`` is the capsule's. ``add_ons`` are the parts that layers need beyond the capsule,
    by name; their paths are on the machine itself, whatever the host. ``machine`` is the architecture that all of it is
    for, as ``uname -m`` says it, with memory in pages of so many bytes: where that is not the capsule's, it is not the
    capsule, but the same packages for it.
    """

    directory: str
    digest: str
    programs: Mapping[str, Program]
    files: Mapping[str, str]
    library_path: tuple[str, ...] = ("usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph")
    loader: str = "usr/lib64/ld-linux-x86-64.so.2"
    add_ons: Mapping[str, Part] = field(default_factory=dict)
    machine: str = "x86_64"
    page: int = 4096

    @property
    def tree(self) -> str:
        """The unpacked root tree."""
        return f"{self.directory}/tree"

    @property
    def image(self) -> str:
        """The same tree as a read-only ext4 image; in a guest, a block device."""
        return f"{self.directory}/image"

    def boot(self, name: str) -> str:
        """Path of a boot file in the tree: ``vmlinux``, ``initrd`` ..."""
        return f"{self.tree}/boot/vbench/{name}"

    def command(self, name: str) -> list[str]:
        """The argv prefix that runs a capsule program here with the capsule's own loader and libraries.

        This way, the same bytes run on a bare host of any distribution and in every guest.
        Raises ``HostError`` for a program that is not in the capsule.
        """
        program = self.programs.get(name)
        if program is None:
            raise HostError(f"the capsule holds no program {name!r}", "see: vbench capsule show")
        path = f"{self.tree}/{program.path}"
        if not program.dynamic:
            return [path]
        # Some programs check the name they were called by.
        return self.loaded(program.path, "--argv0", f"{self.tree}/{name}")

    def loaded(self, path: str, *options: str) -> list[str]:
        """The argv prefix that runs a program of the tree with the tree's loader, which takes these options."""
        libraries = ":".join(f"{self.tree}/{part}" for part in self.library_path)
        return [f"{self.tree}/{self.loader}", *options, "--library-path", libraries, f"{self.tree}/{path}"]


@dataclass(frozen=True)
class Boot:
    """What an emulated machine boots: a kernel, its command line, and an initrd."""

    kernel: str
    arguments: str
    initrd: str


@dataclass(frozen=True)
class System:
    """What an emulated machine is booted with in place of its own kernel.

    ``layer`` is the name of the layer this adds; ``memory_mib`` is what remains for its operating system;
    ``boot`` picks kernel and arguments from a capsule, given the command-line options to take over for
    comparability.
    """

    layer: str
    memory_mib: int
    boot: Callable[[Payload, str], Boot]


Reboot = Callable[[System], AbstractContextManager["Host"]]
"""Boots a machine again with another system; the new one runs beside the original."""
Admit = Callable[["Host", str], AbstractContextManager[bool]]
"""Routes a network behind a host to the host's peer, and says whether that worked."""


@dataclass(frozen=True, eq=False)
class Setting:
    """What is known about a machine before connecting to it; fixed for the host's lifetime.

    ``name`` is the stack path (``local/uml``). ``scratch`` is a directory for this run's files, on the
    storage that disk workloads measure. ``peer`` is the parent's address as seen from here; ``bind`` is the
    address a server on the parent listens on to be reachable there.
    ``peer_at`` names the host that runs the other end of network workloads, "" for this host itself.
    ``admit`` is ``None`` in that machine's own network.
    ``placement`` is how the layer allocated its resources; it feeds the fairness checks. ``reboot`` is set on
    machines that vbench emulates, for layers below the operating system. ``process`` is the parent's process
    that runs the environment, if there is one. ``seed`` is what a deterministic machine opened here begins with;
    ``counts``, what the plugin is told that counts what it executes, if somebody wants to know.
    """

    name: str
    payload: Payload | None = None
    scratch: str = "/tmp"  # noqa: S108
    peer: str = "127.0.0.1"
    bind: str = "127.0.0.1"
    peer_at: str = ""
    admit: Admit | None = None
    placement: Placement = field(default_factory=Placement)
    reboot: Reboot | None = None
    process: Process | None = None
    seed: int = 1
    counts: tuple[str, ...] = ()


class Host(Setting, ABC):
    """A machine, or what looks like one from inside: a setting, and a way to run commands in it.

    A host is equal only to itself.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(**{each.name: getattr(setting, each.name) for each in fields(Setting)})

    def but(self, **changes: object) -> Self:
        """This machine over the same connection, with some of its setting changed."""
        other = copy.copy(self)
        other.__dict__ |= changes
        return other

    @abstractmethod
    def run(
        self, argv: Argv, *, check: bool = True, timeout: float | None = 60.0, input: bytes | None = None
    ) -> Result:
        """Run a command to completion; standard input is ``input``, or empty.

        Both streams are drained as output arrives. What is left of its process group at the end is killed.
        After ``timeout`` seconds (``None``: no limit) the whole group is killed and ``CommandTimeout``
        raised. With ``check``, a non-zero exit code raises ``CommandFailed``. Output beyond 64 MiB per stream
        raises ``HostError``. A command that is not found gives code 127. Raises ``ConnectionLost`` if the
        environment is gone.
        """

    @abstractmethod
    def spawn(self, argv: Argv) -> AbstractContextManager[Process]:
        """Start a command; leaving the block ends its process group (TERM, then KILL) and verifies that."""

    @abstractmethod
    def put(self, data: bytes, path: str, mode: int = 0o644) -> None:
        """Write a file atomically: a reader sees the old content or the new, never a part."""

    @abstractmethod
    def get(self, path: str) -> bytes:
        """Read a file; ``HostError`` if it cannot be read."""

    @abstractmethod
    def dial(self, address: Address, timeout: float = 10.0) -> Connection:
        """Connect to an address as seen from this host; ``HostError`` if nothing answers there."""

    @property
    def chance(self) -> random.Random:
        """Where names and keys of what is made on this host come from. A deterministic machine has its own."""
        return _CHANCE

    def clock(self) -> float:
        """Seconds by the clock that deadlines are held against: the harness's own, or a deterministic machine's."""
        return time.monotonic()

    def date(self) -> datetime:
        """The time of day by that clock."""
        return datetime.now(UTC)

    def pause(self, seconds: float) -> None:
        """Let time pass before looking again."""
        time.sleep(seconds)

    def discard(self) -> None:
        """Give up a machine that is ours with all in it, where that is a machine that can be switched off."""

    def usage(self) -> Usage | None:
        """What this environment has cost its parent since it opened, or ``None`` if unknown."""
        return self.process.usage() if self.process else None

    def program(self, name: str) -> list[str]:
        """The argv prefix of a capsule program on this host."""
        if self.payload is None:
            raise HostError(f"{self.name} holds no capsule", "build one with: vbench capsule build")
        return self.payload.command(name)
