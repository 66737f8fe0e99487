"""Stacks: a root host and the layers opened on it, written as a path such as ``local/kvm/bubblewrap``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches

from vbench.capsule import add_on
from vbench.capsule.capsule import Capsule
from vbench.errors import UsageError
from vbench.exact.opening import settled, trail_of
from vbench.hosts.base import Host
from vbench.hosts.declared import LOCAL
from vbench.layers.base import Layer, Shape, layer_classes, make_layer
from vbench.layers.parameters import told
from vbench.layers.roots import open_root
from vbench.technique import Picture, layer_of
from vbench.terms import Clock

DEEPEST = 8
"""Maximum layers in a stack: more than any that opens; each level has its own address range."""
_REMOTE = re.compile(r"[\w.-]+@[\w.:\[\]-]+")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Stack:
    """A root (``local`` or ``user@host[:port]``) and layers from the bottom up, each as a path names it."""

    root: str
    layers: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Stack:
        """Parse a stack path; the leading ``local/`` may be omitted. Raises ``UsageError``."""
        parts = text.strip("/").split("/")
        if not all(parts):
            raise UsageError(
                f"{text!r} is not a stack path", "write, for example, local/uml or local/kvm/chroot"
            )
        root = LOCAL
        if parts[0] == LOCAL or _is_machine(parts[0]):
            root, parts = parts[0], parts[1:]
        if len(parts) > DEEPEST:
            raise UsageError(f"{text[:60]!r}... has {len(parts)} layers, the maximum is {DEEPEST}")
        return cls(root, tuple(make_layer(word).word for word in parts))

    @classmethod
    def asked(cls, text: str, machines: Collection[str] = ()) -> Stack:
        """Parse a stack path as a user writes it, who may have misspelt a layer.

        ``machines`` are those of the hosts file. Raises ``UsageError`` if its first word is no layer, and no machine
        that is known.
        """
        stack = cls.parse(text)
        if stack.root != LOCAL and stack.root not in machines and not _REMOTE.fullmatch(stack.root):
            from vbench.hosts.ssh.login import way  # noqa: PLC0415 - what it imports takes long

            try:
                way(stack.root)
            except UsageError as error:
                near = get_close_matches(stack.root, [*layer_classes(), *machines], 1)
                raise UsageError(error.message, f"did you mean {near[0]}?" if near else error.hint) from None
        return stack

    @property
    def path(self) -> str:
        """The full path, root included."""
        return "/".join((self.root, *self.layers))

    @property
    def depth(self) -> int:
        """The number of layers."""
        return len(self.layers)

    def prefix(self, depth: int) -> Stack:
        """The stack of the bottom ``depth`` layers."""
        return Stack(self.root, self.layers[:depth])

    def top(self) -> Layer | None:
        """The top layer, or ``None`` for a bare root."""
        return make_layer(self.layers[-1]) if self.layers else None

    def technique(self) -> str:
        """The top layer's technique; "none" for a bare root."""
        layer = self.top()
        return layer.technique.value if layer else "none"

    def baseline(self) -> Stack | None:
        """The stack this one's overhead is measured against; ``None`` for a baseline."""
        layer = self.top()
        if layer is None:
            return None
        path = layer.baseline((self.root, *self.layers[:-1]))
        return Stack.parse(path) if path else None

    def clock(self) -> Clock:
        """What a second means in this stack."""
        for word in reversed(self.layers):
            if (clock := make_layer(word).clock) is not None:
                return clock
        return "wall"

    def exact(self) -> bool:
        """Whether it is on a machine whose figures repeat to the last digit."""
        return any(make_layer(word).exact for word in self.layers)


def pictures_of(stacks: Iterable[Stack]) -> dict[str, Picture]:
    """Pictures of the layers in these stacks, by name; layers without one are drawn by their technique."""
    words = {word for stack in stacks for word in stack.layers}
    return {word: picture for word in sorted(words) if (picture := make_layer(word).drawn()) is not None}


def parameters_of(stacks: Iterable[Stack]) -> list[str]:
    """What the layers in these stacks take, a line each, as it is written in a path."""
    classes = layer_classes()
    names = dict.fromkeys(layer_of(word) for stack in stacks for word in stack.layers)
    return [f"{name}:{told(each)}  {each.what}" for name in names for each in classes[name].parameters]


def add_ons_of(stacks: Iterable[Stack]) -> dict[str, dict[str, str]]:
    """Digests of the add-ons these stacks' layers need, by name, under the key ``add_ons``; empty if none."""
    needs = [make_layer(word).needs for word in sorted({word for stack in stacks for word in stack.layers})]
    found = add_on.parts(each for each in needs if each is not None)
    return {"add_ons": {name: part.digest for name, part in found.items()}} if found else {}


def _is_machine(word: str) -> bool:
    """Whether the first word of a path is a machine and no layer: an address, or a name that no layer has."""
    return bool(_REMOTE.fullmatch(word)) or (bool(_NAME.fullmatch(word)) and word not in layer_classes())


@contextmanager
def open_layers(stack: Stack, capsule: Capsule, shape: Shape, *, address: str = "") -> Iterator[list[Host]]:
    """Open every layer of a stack: its hosts from the root up. They are closed in reverse order on exit."""
    with ExitStack() as stacked:
        pinned = stack.clock() == "wall"
        hosts = [stacked.enter_context(open_root(stack.root, capsule, shape, pinned=pinned, address=address))]
        for word in stack.layers:
            open_layer(stacked, hosts, make_layer(word), shape)
        if (trail := trail_of(hosts[-1])) is not None:
            trail.back_to(trail.state)
        yield hosts


def open_layer(opened: ExitStack, hosts: list[Host], layer: Layer, shape: Shape) -> list[Host]:
    """Open one layer more on the last of some hosts, and add its host to them.

    A deterministic machine is saved when it has come to rest there, as other stacks begin with the same layers. Those
    of its hosts that did not come to rest are returned.
    """
    hosts.append(opened.enter_context(layer.open(hosts[-1], shape)))
    if (trail := trail_of(hosts[-1])) is not None:
        opened.callback(trail.discard)  # nothing in it has to be closed
    return settled(hosts)


@contextmanager
def open_stack(stack: Stack, capsule: Capsule, shape: Shape, *, address: str = "") -> Iterator[Host]:
    """Open every layer of a stack, for its uppermost host; ``address`` is how its root is logged in to."""
    with open_layers(stack, capsule, shape, address=address) as hosts:
        yield hosts[-1]
