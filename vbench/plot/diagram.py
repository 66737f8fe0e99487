"""Stack diagrams: which boxes a stack is made of, from the hardware up, and their drawing as text.

After the diagrams by Primalmotion on Wikimedia Commons (Diagramme ArchiIsolateur, ArchiKernelUserSpace,
ArchiEmulateur, ArchiHyperviseur): what runs lower stands lower, environments on one host stand side by side,
and stacks are compared column by column. Only names are needed, so a bundle's stacks can be drawn anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

Kind = Literal["hardware", "kernel", "hypervisor", "isolator", "applications"]


@dataclass(frozen=True)
class Adds:
    """The boxes that a layer adds, from the bottom up, each (kind, label, note), and where.

    ``around``: a line around programs on the same kernel. ``on``: on top of the kernel, as a process of it.
    ``under``: beneath the kernel that it is opened from. ``beside``: next to that kernel, on its hypervisor.
    ``kernel`` is the note of the kernel that it is opened from, once its part in it has changed.
    """

    where: Literal["around", "on", "under", "beside"]
    boxes: tuple[tuple[Kind, str, str], ...]
    kernel: str = ""
    hypervisor: bool = False
    """Whether the kernel that it is opened from becomes the hypervisor."""


LAYERS = {
    "chroot": Adds("around", (("isolator", "chroot", "another root directory"),)),
    "bubblewrap": Adds("around", (("isolator", "bubblewrap", "namespaces"),)),
    "uml": Adds("on", (("kernel", "User Mode Linux", "guest kernel, a process"),)),
    "qemu": Adds(
        "on", (("hypervisor", "QEMU", "emulates the processor"), ("kernel", "Guest kernel", "unmodified"))
    ),
    "kvm": Adds(
        "on", (("kernel", "Guest kernel", "devices by QEMU"),), "with KVM: the hypervisor", hypervisor=True
    ),
    "testbed": Adds(
        "on",
        (
            ("hypervisor", "QEMU", "counts instructions"),
            ("hardware", "Emulated PC", "AMD-V, nested paging"),
            ("kernel", "Testbed's kernel", "operating system"),
        ),
    ),
    "xen": Adds("under", (("hypervisor", "Xen", "hypervisor, type 1"),), "dom0"),
    "pv": Adds("beside", (("kernel", "Guest kernel", "domU, paravirtualized"),)),
    "pvh": Adds("beside", (("kernel", "Guest kernel", "domU, hardware-assisted"),)),
    "hvm": Adds("beside", (("kernel", "Guest kernel", "domU, devices by QEMU"),)),
}
"""What vbench's own layers add, by name."""

TECHNIQUES = {
    "isolator": Adds("around", (("isolator", "{}", "isolator"),)),
    "user-space kernel": Adds("on", (("kernel", "{}", "guest kernel, a process"),)),
    "type 2": Adds("on", (("hypervisor", "{}", "hypervisor, type 2"), ("kernel", "Guest kernel", ""))),
    "type 1": Adds("beside", (("kernel", "Guest kernel", "under {}"),)),
    "paravirtualization": Adds("beside", (("kernel", "Guest kernel", "paravirtualized, {}"),)),
}
"""What a layer of which only the technique is known adds; {} is its name."""


@dataclass
class Box:
    """One box and what stands on it, left to right.

    ``layer`` is the path of the stack whose uppermost layer added it, ``stack`` the path whose programs run in
    it (only applications have one), ``factor`` what was measured of the layer (set where there is a bundle).
    """

    kind: Kind
    label: str
    note: str = ""
    layer: str = ""
    stack: str = ""
    factor: str = ""
    on: list[Box] = field(default_factory=list)
    _key: str = field(default="", repr=False)

    def walk(self) -> list[Box]:
        """This box and all above it, from the bottom up."""
        return [self, *(box for child in self.on for box in child.walk())]

    def as_dict(self) -> dict[str, Any]:
        """The box for JSON: kind, label, note, layer, stack, factor, on."""
        names = ("kind", "label", "note", "layer", "stack", "factor")
        return {name: getattr(self, name) for name in names} | {"on": [box.as_dict() for box in self.on]}


def of(
    path: str, techniques: Mapping[str, str] | None = None, factors: Mapping[str, str] | None = None
) -> Box:
    """The boxes of one stack, from the hardware up.

    ``techniques``: by path, for layers that vbench does not know by name. ``factors``: by path, what to write
    into the box of the layer that completes that path.
    """
    return _build(path, techniques or {}, factors or {}, copy="")


def together(
    paths: Sequence[str],
    techniques: Mapping[str, str] | None = None,
    factors: Mapping[str, str] | None = None,
) -> list[Box]:
    """Stacks side by side on what they share; a path given twice stands there twice.

    One box a machine: another root, or a machine booted in another way (under Xen), shares nothing.
    """
    machines: list[Box] = []
    for number, path in enumerate(paths):
        copy = f"#{paths[:number].count(path)}" if path in paths[:number] else ""
        _merge(machines, _build(path, techniques or {}, factors or {}, copy))
    return machines


def _merge(beside: list[Box], new: Box) -> None:
    same = next((box for box in beside if box._key and box._key == new._key), None)
    if same is None:
        beside.append(new)
        return
    if new.kind == "hypervisor":
        same.kind, same.note = new.kind, new.note
    same.factor = same.factor or new.factor
    for child in new.on:
        _merge(same.on, child)


def _rule(name: str, technique: str) -> Adds:
    known = LAYERS.get(name) or TECHNIQUES.get(technique) or Adds("on", (("hypervisor", "{}", technique),))
    boxes = tuple(
        (kind, label.replace("{}", name), note.replace("{}", name)) for kind, label, note in known.boxes
    )
    return Adds(known.where, boxes, known.kernel, known.hypervisor)


def _build(path: str, techniques: Mapping[str, str], factors: Mapping[str, str], copy: str) -> Box:
    root, *layers = path.split("/")
    kernel = Box("kernel", "Host's kernel", "operating system", root, _key="kernel")
    machine = Box("hardware", "Hardware", root if root != "local" else "", root, on=[kernel], _key=root)
    bottom = below = machine  # the lowest box of all; what the kernel stands on
    place = kernel  # where programs run
    for depth, name in enumerate(layers, 1):
        here = "/".join((root, *layers[:depth]))
        rule = _rule(name, techniques.get(here, ""))
        key = here + (copy if here == path else "")
        new = [Box(*box, layer=here, _key=f"{key} {number}") for number, box in enumerate(rule.boxes)]
        new[0].factor = factors.get(here, "")
        for lower, upper in pairwise(new):
            lower.on = [upper]
        kernel.note = rule.kernel or kernel.note
        kernel.kind = "hypervisor" if rule.hypervisor else kernel.kind
        if rule.where == "under":
            below.on = [new[0] if box is kernel else box for box in below.on]
            new[-1].on, below = [kernel], new[-1]
            machine._key += key  # booted in another way, it is another machine
            continue
        if rule.where == "beside" and below.kind == "hypervisor":
            if not kernel.on:
                kernel.on.append(Box("applications", "Tools", "device back ends", kernel.layer, _key="tools"))
            below.on.append(new[0])
        else:
            place.on.append(new[0])
            machine = new[0] if rule.where != "around" else machine
            below = place if len(new) == 1 else new[-2]
        place = new[-1]
        kernel = place if place.kind == "kernel" else kernel
    place.on.append(Box("applications", "Applications", "", path, stack=path))
    return bottom


def text(box: Box, *, paths: bool = False) -> list[str]:
    """A diagram as lines of equal width; ``paths`` writes each stack's path into its applications."""
    return _lines(box, _needs(box, paths), paths)


def columns(diagrams: Sequence[tuple[Sequence[str], list[str]]], width: int) -> list[str]:
    """Diagrams, each with the lines of its caption, side by side on one line, in the rows that ``width`` asks for."""
    rows: list[list[tuple[Sequence[str], list[str]]]] = []
    used = 0
    for caption, lines in diagrams:
        needs = max(map(len, (*caption, lines[0])))
        if not rows or used + needs > width:
            rows.append([])
            used = 0
        rows[-1].append((caption, [line.ljust(needs) for line in lines]))
        used += needs + _GAP
    out: list[str] = []
    for row in rows:
        feet = [[line.ljust(len(lines[0])) for line in caption] for caption, lines in row]
        out += [*([""] if out else []), *_beside([lines for _, lines in row], " " * _GAP)]
        for number in range(max(map(len, feet))):
            texts = (
                foot[number] if number < len(foot) else " " * len(lines[0])
                for foot, (_, lines) in zip(feet, row, strict=True)
            )
            out.append((" " * _GAP).join(texts))
    return [line.rstrip() for line in out]


def plain(line: str) -> str:
    """A line of a diagram in ASCII, for terminals that have no more."""
    return line.translate(_ASCII)


_GAP = 3
_ASCII = str.maketrans("┌┐└┘├┤─│╭╮╰╯╌╎\N{MULTIPLICATION SIGN}", "++++++-|....-:x")
_SOLID, _DASHED = "┌─┐│└┘", "╭╌╮╎╰╯"


def _words(box: Box, paths: bool) -> list[tuple[str, str]]:
    """The lines in a box: what stands at the left, and at the right."""
    notes = [box.note] if box.note else []
    if paths and box.stack:
        notes = [box.stack]
    return [(box.label, box.factor), *((note, "") for note in notes)]


def _needs(box: Box, paths: bool) -> int:
    """The width that a box and all on it need."""
    own = max(len(left) + len(right) + (2 if right else 0) for left, right in _words(box, paths)) + 4
    above = sum(_needs(child, paths) for child in box.on) + max(0, len(box.on) - 1)
    return max(own, above + (4 if box.kind == "isolator" else 0))


def _lines(box: Box, width: int, paths: bool) -> list[str]:
    line = box.kind == "isolator"
    room = width - 4 if line else width
    needs = [_needs(child, paths) for child in box.on]
    spare = room - sum(needs) - max(0, len(needs) - 1)
    drawn = []
    for number, child in enumerate(box.on):
        share = spare // len(needs) + (number < spare % len(needs))
        drawn.append(_lines(child, needs[number] + share, paths))
    above = _beside(drawn, " ") if drawn else []
    left_top, across, right_top, side, left_end, right_end = tuple(_DASHED if line else _SOLID)
    words = []
    for left, right in _words(box, paths):
        words.append(f"{side} {left}{right.rjust(width - 4 - len(left))} {side}")
    end = left_end + across * (width - 2) + right_end
    if line:
        top = left_top + across * (width - 2) + right_top
        return [top, *(f"{side} {each} {side}" for each in above), *words, end]
    if len(box.on) == 1 and box.on[0].kind != "isolator":
        return [*above[:-1], "├" + across * (width - 2) + "┤", *words, end]
    return [*above, left_top + across * (width - 2) + right_top, *words, end]


def _beside(blocks: Sequence[list[str]], gap: str) -> list[str]:
    """Blocks of lines side by side, standing on one line."""
    height = max(map(len, blocks))
    padded = [[" " * len(block[0])] * (height - len(block)) + block for block in blocks]
    return [gap.join(parts) for parts in zip(*padded, strict=True)]
