"""Stack diagrams: the boxes a stack consists of, from the hardware up, and how to draw them as text.

Modelled on the diagrams by Primalmotion on Wikimedia Commons (Diagramme ArchiIsolateur, ArchiKernelUserSpace,
ArchiEmulateur, ArchiHyperviseur): what runs at a lower level is drawn lower, environments on one host stand side by
side, and stacks are compared column by column. Only names are needed, so a bundle's stacks can be drawn anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from vbench.technique import FAMILIES, PICTURES, Kind, Picture, Technique, layer_of


@dataclass
class Box:
    """One box, and the boxes on it from left to right.

    ``layer``: the path of the stack whose top layer added it. ``stack``: the path whose programs run in it (only
    application boxes have one). ``factor``: the factor measured for the layer, if there is a bundle.
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
        """This box and all boxes above it, from the bottom up."""
        return [self, *(box for child in self.on for box in child.walk())]

    def as_dict(self) -> dict[str, Any]:
        """The box as a dict for JSON: kind, label, note, layer, stack, factor, on."""
        names = ("kind", "label", "note", "layer", "stack", "factor")
        return {name: getattr(self, name) for name in names} | {"on": [box.as_dict() for box in self.on]}


def of(
    path: str,
    techniques: Mapping[str, str] | None = None,
    factors: Mapping[str, str] | None = None,
    pictures: Mapping[str, Picture] | None = None,
) -> Box:
    """The boxes of one stack, from the hardware up.

    ``techniques``: by path, for layers about which nothing else is known. ``factors``: by path, the text for the box of
    the layer that completes that path. ``pictures``: by layer name, the boxes that it adds, as stored in a bundle.
    """
    return _build(path, techniques or {}, factors or {}, pictures or {}, copy="")


def together(
    paths: Sequence[str],
    techniques: Mapping[str, str] | None = None,
    factors: Mapping[str, str] | None = None,
    pictures: Mapping[str, Picture] | None = None,
) -> list[Box]:
    """Stacks side by side on what they share; a path given twice is drawn twice.

    One box per machine: a different root, or a machine booted differently (under Xen), shares nothing.
    """
    machines: list[Box] = []
    for number, path in enumerate(paths):
        copy = f"#{paths[:number].count(path)}" if path in paths[:number] else ""
        _merge(machines, _build(path, techniques or {}, factors or {}, pictures or {}, copy))
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


def _rule(name: str, technique: str, pictures: Mapping[str, Picture]) -> Picture:
    known = pictures.get(name) or PICTURES.get(layer_of(name)) or FAMILIES.get(technique)
    known = known or Picture("on", (("hypervisor", "{}", technique),))
    boxes = tuple(
        (kind, label.replace("{}", name), note.replace("{}", name)) for kind, label, note in known.boxes
    )
    return Picture(known.where, boxes, known.kernel, known.hypervisor)


def _declared(name: str, technique: str) -> Picture | None:
    """What a machine adds that somebody else has set up by this technique; ``None`` for a bare one."""
    if technique in (Technique.TYPE_1, Technique.PARAVIRTUALIZATION):
        return Picture("under", (("hypervisor", name, technique),))
    return _rule(name, technique, {}) if technique in FAMILIES else None


def _build(
    path: str,
    techniques: Mapping[str, str],
    factors: Mapping[str, str],
    pictures: Mapping[str, Picture],
    copy: str,
) -> Box:
    root, *layers = path.split("/")
    kernel = Box("kernel", "Host's kernel", "operating system", root, _key="kernel")
    given = _declared(root, techniques.get(root, ""))
    machine = Box(
        "hardware", "Hardware", "" if given or root == "local" else root, root, on=[kernel], _key=root
    )
    bottom = below = machine  # the lowest box of all; what the kernel stands on
    place = kernel  # the box that programs run on
    rules = [] if given is None else [(root, given)]
    for depth, name in enumerate(layers, 1):
        here = "/".join((root, *layers[:depth]))
        rules.append((here, _rule(name, techniques.get(here, ""), pictures)))
    for here, rule in rules:
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
            kernel.label = "Guest kernel" if here == root else kernel.label
            machine._key += key  # booted differently, it counts as a different machine
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
    """A diagram as lines of equal width; ``paths`` writes each stack's path into its application box."""
    return _lines(box, _needs(box, paths), paths)


def columns(diagrams: Sequence[tuple[Sequence[str], list[str]]], width: int) -> list[str]:
    """Diagrams with their captions, side by side and aligned at the bottom, in as many rows as ``width`` requires."""
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
    """A line of a diagram in ASCII, for terminals that cannot show more."""
    return line.translate(_ASCII)


_GAP = 3
_ASCII = str.maketrans("┌┐└┘├┤─│╭╮╰╯╌╎\N{MULTIPLICATION SIGN}", "++++++-|....-:x")
_SOLID, _DASHED = "┌─┐│└┘", "╭╌╮╎╰╯"


def _words(box: Box, paths: bool) -> list[tuple[str, str]]:
    """The lines of text in a box, as (left, right) pairs."""
    notes = [box.note] if box.note else []
    if paths and box.stack:
        notes = [box.stack]
    return [(box.label, box.factor), *((note, "") for note in notes)]


def _needs(box: Box, paths: bool) -> int:
    """The width needed by a box and everything on it."""
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
    """Blocks of lines set side by side, aligned at the bottom."""
    height = max(map(len, blocks))
    padded = [[" " * len(block[0])] * (height - len(block)) + block for block in blocks]
    return [gap.join(parts) for parts in zip(*padded, strict=True)]
