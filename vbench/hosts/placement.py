"""How an environment was given its resources, as values: what is the parent's own compares equal to the parent's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vbench.terms import Clock


class Medium(StrEnum):
    """What an environment's scratch storage is on its parent."""

    FOLDER = "folder"
    """Of the root host's file system."""
    RAW_FILE = "raw-file"
    LOOP_DEVICE = "loop-device"
    TIMED_MEMORY = "timed-memory"
    """The testbed's own memory, with a fixed service time."""


class Cache(StrEnum):
    """What the parent keeps in memory of a guest's disk: nothing, or what its page cache takes."""

    NONE = "none"
    WRITEBACK = "writeback"


@dataclass(frozen=True)
class Disk:
    """The way to scratch storage. ``driver``: the guest's, of a disk of its own; ``cache``: the parent's, of it."""

    medium: Medium = Medium.FOLDER
    driver: str = ""
    cache: Cache | None = None


class Way(StrEnum):
    """Over what an environment's packets leave it."""

    LOOPBACK = "loopback"
    """It shares the root host's network."""
    VETH = "veth"
    TAP = "tap"
    USER_MODE = "user-mode"
    """QEMU's own network, which needs no privilege."""
    VIF = "vif"
    """Xen's back end in dom0."""


@dataclass(frozen=True)
class Network:
    """The way to the other end of network workloads. ``driver``: the guest's, of an interface of its own."""

    path: Way = Way.LOOPBACK
    driver: str = ""


@dataclass(frozen=True)
class Placement:
    """How an environment was given its resources. What a layer leaves alone is its parent's, and equals it.

    ``vcpus`` and ``memory_mib``: ``None`` where they are not limited. ``cpu``: the model that is emulated or shown,
    empty for the machine's own. ``slowdown``: how much longer than on hardware things may take here before they
    count as hung.
    """

    vcpus: int | None = None
    memory_mib: int | None = None
    disk: Disk = Disk()
    network: Network = Network()
    cpu: str = ""
    clock: Clock = "wall"
    slowdown: float = 1.0
