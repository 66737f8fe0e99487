"""How an environment got its resources, as values: what it takes from its parent compares equal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vbench.terms import Clock


class Medium(StrEnum):
    """What backs an environment's scratch storage on its parent."""

    FOLDER = "folder"
    """On the root host's file system."""
    RAW_FILE = "raw-file"
    LOOP_DEVICE = "loop-device"
    TIMED_MEMORY = "timed-memory"
    """The testbed's own memory, with a fixed service time."""


class Cache(StrEnum):
    """How the parent caches a guest's disk: not at all, or in its page cache, and when it writes that to storage."""

    NONE = "none"
    WRITEBACK = "writeback"
    WRITETHROUGH = "writethrough"
    UNSAFE = "unsafe"
    """Flushes of the guest's are not carried out."""


@dataclass(frozen=True)
class Disk:
    """The path to scratch storage. ``driver``: the guest's, for its own disk; ``cache``: the parent's."""

    medium: Medium = Medium.FOLDER
    driver: str = ""
    cache: Cache | None = None


class Way(StrEnum):
    """How packets leave an environment."""

    LOOPBACK = "loopback"
    """It shares the root host's network."""
    VETH = "veth"
    TAP = "tap"
    USER_MODE = "user-mode"
    """QEMU's own network, which needs no privilege."""
    NAT = "nat"
    """A network of the hypervisor's own, by which it hands on connections."""
    VIF = "vif"
    """Xen's backend in dom0."""


@dataclass(frozen=True)
class Network:
    """The path to the other end of network workloads. ``driver``: the guest's, for its own interface."""

    path: Way = Way.LOOPBACK
    driver: str = ""


@dataclass(frozen=True)
class Placement:
    """How an environment got its resources. What a layer leaves alone equals its parent's.

    ``vcpus`` and ``memory_mib``: ``None`` if not limited. ``cpu``: the model that is emulated or exposed,
    empty for the machine's own. ``slowdown``: how many times longer than on hardware things may take here
    before they count as hung.
    """

    vcpus: int | None = None
    memory_mib: int | None = None
    disk: Disk = Disk()
    network: Network = Network()
    cpu: str = ""
    clock: Clock = "wall"
    slowdown: float = 1.0
