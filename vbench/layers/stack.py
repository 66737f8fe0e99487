"""Stacks: a root host and the layers opened on it, written as a path such as ``local/kvm/bubblewrap``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from vbench.capsule import add_on
from vbench.capsule.capsule import Capsule
from vbench.errors import UsageError, VbenchError
from vbench.hosts.base import Host
from vbench.hosts.local import LocalHost
from vbench.hosts.placement import Placement
from vbench.hosts.workspace import session
from vbench.layers.base import Layer, Shape, layer_classes, make_layer, needed
from vbench.technique import Picture
from vbench.terms import Clock

LOCAL = "local"
DEEPEST = 8
"""Most layers of a stack: beyond any that opens, and each has its own range of addresses."""
_REMOTE = re.compile(r"[\w.-]+@[\w.:\[\]-]+")


@dataclass(frozen=True)
class Stack:
    """A root (``local`` or ``user@host[:port]``) and layer names from the bottom up."""

    root: str
    layers: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Stack:
        """Read a stack path; the leading ``local/`` may be left out. Raises ``UsageError``."""
        parts = text.strip("/").split("/")
        if not all(parts):
            raise UsageError(
                f"{text!r} is not a stack path", "write for example local/uml or local/kvm/chroot"
            )
        if parts[0] == LOCAL:
            parts = parts[1:]
            root = LOCAL
        elif _REMOTE.fullmatch(parts[0]):
            root, parts = parts[0], parts[1:]
        else:
            root = LOCAL
        if len(parts) > DEEPEST:
            raise UsageError(f"{text[:60]!r}... stacks {len(parts)} layers, the most is {DEEPEST}")
        for name in parts:
            make_layer(name)
        return cls(root, tuple(parts))

    @property
    def path(self) -> str:
        """The full path, root included."""
        return "/".join((self.root, *self.layers))

    @property
    def depth(self) -> int:
        """How many layers are stacked."""
        return len(self.layers)

    def prefix(self, depth: int) -> Stack:
        """The stack of the lowest ``depth`` layers."""
        return Stack(self.root, self.layers[:depth])

    def top(self) -> Layer | None:
        """The uppermost layer, or ``None`` for a bare root."""
        return make_layer(self.layers[-1]) if self.layers else None

    def technique(self) -> str:
        """The uppermost layer's technique; a bare root has none."""
        layer = self.top()
        return layer.technique.value if layer else "none"

    def baseline(self) -> Stack | None:
        """The stack that this one's overhead is measured against; ``None`` for a baseline."""
        layer = self.top()
        if layer is None:
            return None
        path = layer.baseline((self.root, *self.layers[:-1]))
        return Stack.parse(path) if path else None

    def clock(self) -> Clock:
        """What a second means in this stack."""
        for name in reversed(self.layers):
            if (clock := make_layer(name).clock) is not None:
                return clock
        return "wall"


def pictures_of(stacks: Iterable[Stack]) -> dict[str, Picture]:
    """How the layers of some stacks are drawn, by name; those that do not say are drawn by their technique."""
    classes = layer_classes()
    names = {name for stack in stacks for name in stack.layers}
    return {name: picture for name in sorted(names) if (picture := classes[name].picture) is not None}


def add_ons_of(stacks: Iterable[Stack]) -> dict[str, dict[str, str]]:
    """The digests of the add-ons that layers of some stacks need, by name, under one key; nothing where none does."""
    classes = layer_classes()
    needs = [classes[name].needs for name in sorted({name for stack in stacks for name in stack.layers})]
    found = add_on.parts(each for each in needs if each is not None)
    return {"add_ons": {name: part.digest for name, part in found.items()}} if found else {}


def cpus_for(shape: Shape) -> tuple[frozenset[int], frozenset[int]]:
    """The CPUs that environments share, and those for everything else.

    Every environment of a run, the baseline included, is confined to the same CPUs: as many as its shape
    has virtual ones. Kernels in user space are several times faster when they are not spread over CPUs, so
    leaving this to chance would measure the scheduler.
    """
    usable = sorted(os.sched_getaffinity(0))
    if shape.vcpus > len(usable):
        raise UsageError(f"shape: {shape.vcpus} vCPUs asked for, this machine has {len(usable)} CPUs")
    inside = frozenset(usable[-shape.vcpus :])
    return inside, frozenset(usable) - inside or inside


@contextmanager
def open_root(root: str, capsule: Capsule, shape: Shape, *, pinned: bool = True) -> Iterator[Host]:
    """The root host of a stack, with the capsule and a scratch folder.

    It is confined to the shape's CPUs, but for stacks whose figures no CPU can change.
    """
    if root != LOCAL:
        raise VbenchError(
            f"cannot open {root}: remote roots are not supported yet", "run vbench on that machine"
        )
    with session() as folder:
        inside, _ = cpus_for(shape)
        scratch = folder / "scratch"
        scratch.mkdir()
        payload = replace(capsule.payload(), add_ons=add_on.parts(needed()))
        yield LocalHost(
            LOCAL, payload, str(scratch), inside if pinned else None, Placement(vcpus=shape.vcpus)
        )


@contextmanager
def open_stack(stack: Stack, capsule: Capsule, shape: Shape) -> Iterator[Host]:
    """Open every layer of a stack from the root up; leaving closes them in reverse."""
    with ExitStack() as stacked:
        pinned = stack.clock() == "wall"
        host: Host = stacked.enter_context(open_root(stack.root, capsule, shape, pinned=pinned))
        for name in stack.layers:
            host = stacked.enter_context(make_layer(name).open(host, shape))
        yield host
