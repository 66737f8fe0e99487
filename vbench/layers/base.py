"""Layers: a layer opens on a host and yields a host."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from typing import ClassVar

from vbench.errors import LayerUnavailable, UsageError, VbenchError, missing_extra
from vbench.hosts.base import Host, Payload
from vbench.layers.parameters import Parameter, spelt, values_of
from vbench.technique import AddOn, Picture, Technique, layer_of
from vbench.terms import Clock


@dataclass(frozen=True)
class Shape:
    """The resources of every environment in a run: vCPUs, memory and disk in MiB."""

    vcpus: int = 1
    memory_mib: int = 512
    disk_mib: int = 512

    def __post_init__(self) -> None:
        for name, least in (("vcpus", 1), ("memory_mib", 192), ("disk_mib", 128)):
            if getattr(self, name) < least:
                raise UsageError(f"shape: {name} is {getattr(self, name)}, the minimum is {least}")


@dataclass(frozen=True)
class Available:
    """The layer works here; ``detail`` says with what."""

    detail: str = ""


@dataclass(frozen=True)
class Unavailable:
    """The layer does not work here: why, and how to fix it."""

    reason: str
    hint: str = ""


class Layer(ABC):
    """One technique. All it takes is a subclass in one file and one entry-point line.

    What other modules need to know about the technique is also stated here.
    """

    name: ClassVar[str]
    technique: ClassVar[Technique]
    summary: ClassVar[str]
    picture: ClassVar[Picture | None] = None
    """Its boxes in a diagram; if ``None``, it is drawn by its technique. Bundles record it."""
    catalogue: ClassVar[str | None] = None
    """Its entry in the catalogue (``vbench catalog``), if any."""
    processes: ClassVar[tuple[str, ...]] = ()
    """Program name patterns that identify other people's guests, which disturb measurements."""
    clock: ClassVar[Clock | None] = None
    """What a second means inside; ``None``: same as in the parent."""
    exact: ClassVar[bool] = False
    """All that happens on its machine follows from what that is given, so that a figure repeats to the last digit."""
    own_machine: ClassVar[bool] = False
    """Whether it is a machine with its own time, in which the parent's end of a network cannot answer."""

    needs: ClassVar[AddOn | None] = None
    """What it needs on its parent in addition to the capsule."""
    also: ClassVar[tuple[AddOn, ...]] = ()
    """Further add-ons that it needs, of sources of ours; no figure depends on what they are, so bundles do not say."""
    takes_system: ClassVar[bool] = False
    """Whether it can boot another system under or instead of its kernel: its host has a ``reboot``."""
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    """What is left to the user, who writes it in the stack path."""

    def __init__(self, chosen: Mapping[str, str] | None = None) -> None:
        self.chosen = {each.name: each.choices[0] for each in self.parameters} | dict(chosen or {})
        """The value of each parameter."""

    @property
    def word(self) -> str:
        """Its name in a stack path, with the parameters that were chosen."""
        return spelt(self.name, self.parameters, self.chosen)

    def drawn(self) -> Picture | None:
        """Its picture, with the parameters that were chosen in the note of its uppermost box."""
        if self.picture is None or self.word == self.name:
            return self.picture
        *lower, (kind, label, note) = self.picture.boxes
        said = self.word.partition(":")[2].replace(",", ", ")
        return replace(self.picture, boxes=(*lower, (kind, label, f"{note}, {said}" if note else said)))

    @abstractmethod
    def probe(self, parent: Host) -> Available | Unavailable:
        """Whether the layer works on ``parent``; tries it for real where looking is not enough."""

    @abstractmethod
    def open(self, parent: Host, shape: Shape) -> AbstractContextManager[Host]:
        """Open the layer; on exit, nothing of it remains on the parent.

        Raises ``BootError`` with the end of the console if the environment does not come up.
        """

    def require(self, parent: Host) -> Payload:
        """The parent's capsule, provided the layer's probe succeeds there.

        Otherwise raises ``LayerUnavailable`` with the probe's reason.
        """
        if isinstance(answer := self.lacks(parent) or self.probe(parent), Unavailable):
            raise LayerUnavailable(answer.reason, answer.hint)
        if parent.payload is None:
            raise LayerUnavailable(f"{parent.name} holds no capsule", "build one with: vbench capsule build")
        return parent.payload

    def lacks(self, parent: Host) -> Unavailable | None:
        """The answer if the add-on it needs is not for the parent, or not built on this machine, else ``None``."""
        held = parent.payload.add_ons if parent.payload else {}
        lacking = next((each.name for each in self.add_ons() if each.name not in held), None)
        if lacking is None:
            return None
        if parent.payload is not None and parent.payload.machine != Payload.machine:
            return Unavailable(
                f"the add-on {lacking} is for {Payload.machine}, and {parent.name} is {parent.payload.machine}"
            )
        return Unavailable(f"the add-on {lacking} has not been built here", f"vbench capsule build {lacking}")

    @classmethod
    def add_ons(cls) -> tuple[AddOn, ...]:
        """All that it needs on its parent in addition to the capsule."""
        return (*((cls.needs,) if cls.needs else ()), *cls.also)

    def baseline(self, parents: tuple[str, ...]) -> str | None:
        """Path of the stack this layer's overhead is measured against; ``parents`` is the path below it.

        This is the parent, unless the technique sits under the operating system it is opened from; ``None``
        for a layer that is its own baseline.
        """
        return "/".join(parents)


@cache
def layer_classes() -> dict[str, type[Layer]]:
    """All known layers by name: vbench's own and those registered by other distributions."""
    found: dict[str, type[Layer]] = {}
    for entry in sorted(entry_points(group="vbench.layers"), key=lambda entry: entry.name):
        try:
            found[entry.name] = entry.load()
        except ImportError as error:
            raise missing_extra(error) or VbenchError(
                f"layer {entry.name} ({entry.value}) cannot be loaded: {error}", "reinstall its distribution"
            ) from error
    return found


def needed() -> list[AddOn]:
    """The add-ons needed by the known layers."""
    return [each for layer in layer_classes().values() for each in layer.add_ons()]


def make_layer(word: str) -> Layer:
    """The layer that a word of a stack path names, with its parameters.

    Raises ``UsageError`` with the closest known name, or value of a parameter, if there is none.
    """
    known, name = layer_classes(), layer_of(word)
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known layers: {', '.join(known)}"
        raise UsageError(f"there is no layer {name!r}", hint)
    if name == word:
        return known[name]()
    if word.endswith(":"):
        raise UsageError(f"{word!r} names no parameter", f"write {name}")
    return known[name](values_of(name, known[name].parameters, word.partition(":")[2]))
