"""Roots: the machine on which a stack's first layer opens - this one, or one of the user's over SSH."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vbench.capsule import add_on
from vbench.capsule.capsule import Capsule
from vbench.capsule.delivery import deliver
from vbench.errors import HostError, UsageError
from vbench.hosts.base import Host
from vbench.hosts.declared import LOCAL
from vbench.hosts.local import LocalHost
from vbench.hosts.placement import Placement
from vbench.hosts.ssh.host import SshHost
from vbench.hosts.ssh.wrapper import Leader
from vbench.hosts.workspace import session
from vbench.layers.base import Shape, needed
from vbench.technique import AddOn

LEADER = AddOn("lead", sources={"lead": (Path(add_on.__file__).parent / "sources/lead.c", ("-static",))})
"""The program that runs commands on machines over SSH."""


def cpus_for(
    shape: Shape, usable: Iterable[int] | None = None, name: str = "this machine"
) -> tuple[frozenset[int], frozenset[int]]:
    """The CPUs that environments share, and the CPUs for everything else.

    Every environment in a run, including the baseline, is pinned to the same CPUs, one per vCPU of its shape.
    User-space kernels are several times faster when not spread over CPUs, so leaving this to chance would
    measure the scheduler. ``usable``: by default those that this process may run on.
    """
    there = sorted(os.sched_getaffinity(0) if usable is None else usable)
    if shape.vcpus > len(there):
        raise UsageError(f"shape: {shape.vcpus} vCPUs requested, {name} has {len(there)} CPUs")
    inside = frozenset(there[-shape.vcpus :])
    return inside, frozenset(there) - inside or inside


@contextmanager
def open_root(
    root: str,
    capsule: Capsule,
    shape: Shape,
    *,
    pinned: bool = True,
    seed: int = 1,
    address: str = "",
) -> Iterator[Host]:
    """The root host of a stack, with the capsule and a scratch directory.

    ``address``: how it is logged in to, by default its name.

    It is pinned to the shape's CPUs, except for stacks whose results do not depend on the CPU.
    """
    if root != LOCAL:
        with _over_ssh(root, address or root, capsule, shape, pinned, seed) as host:
            yield host
        return
    with session() as folder:
        inside, _ = cpus_for(shape)
        scratch = folder / "scratch"
        scratch.mkdir()
        payload = replace(capsule.payload(), add_ons=add_on.parts(needed()))
        yield LocalHost(
            LOCAL,
            payload,
            str(scratch),
            inside if pinned else None,
            Placement(vcpus=shape.vcpus),
            seed,
        )


def outside(root: Host, capsule: Capsule, shape: Shape) -> Host:
    """The same machine on the CPUs that no environment is pinned to: there the other end of network workloads runs."""
    if isinstance(root, SshHost):
        assert root.leader is not None  # noqa: S101 - every root has one
        _, rest = cpus_for(shape, root.leader.usable, root.name)
        return root.but(name="outside", leader=replace(root.leader, cpus=rest))
    return LocalHost("outside", capsule.payload(), cpus=cpus_for(shape)[1])


@contextmanager
def _over_ssh(
    root: str, address: str, capsule: Capsule, shape: Shape, pinned: bool, seed: int
) -> Iterator[Host]:
    from vbench.hosts.ssh.keeper import keep  # noqa: PLC0415 - what they import takes long
    from vbench.hosts.ssh.login import log_in, way  # noqa: PLC0415

    with log_in(replace(way(address), name=root)) as login:
        payload = deliver(capsule, login)
        lead = _leader(login, payload.directory)
        usable = _usable(login)
        inside, _ = cpus_for(shape, usable, root)
        cache = payload.directory.rpartition("/capsules/")[0]
        with keep(login, payload.command("busybox"), cache, alone=pinned) as kept:
            yield login.but(
                payload=replace(payload, add_ons=add_on.parts(needed())),
                scratch=kept.folder,
                peer="127.0.0.1",
                placement=Placement(vcpus=shape.vcpus),
                seed=seed,
                leader=Leader(lead, kept.mark, usable, inside if pinned else None),
            )


def cache_of(login: Host) -> str:
    """The user's cache on a machine over SSH, as ``capsule/scripts/look.sh`` finds it."""
    return login.run(["sh", "-c", 'echo "${XDG_CACHE_HOME:-$HOME/.cache}/vbench"']).text


def _leader(login: Host, home: str) -> str:
    """The program that runs commands, on that machine."""
    part = add_on.parts([LEADER]).get(LEADER.name)
    if part is None:
        raise HostError(
            "the program that runs commands on other machines could not be built", "vbench -v says why"
        )
    path = f"{home}-lead-{part.digest[:16]}"
    if login.run(["test", "-x", path], check=False).code:
        login.put((Path(part.directory) / "tree/lead").read_bytes(), path, 0o755)
    return path


def _usable(login: Host) -> frozenset[int]:
    """The CPUs that a login may run on: a range or a number each (proc(5), Cpus_allowed_list)."""
    lines = login.run(["cat", "/proc/self/status"]).text.splitlines()
    listed = next(line.partition(":")[2].strip() for line in lines if line.startswith("Cpus_allowed_list:"))
    found: set[int] = set()
    for part in listed.split(","):
        first, _, last = part.partition("-")
        found |= {*range(int(first), int(last or first) + 1)}
    return frozenset(found)
