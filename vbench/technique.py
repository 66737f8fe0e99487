"""What is known about virtualization techniques without any layer: how to draw them, and their kind.

Bundles record how their layers are drawn. Older ones do not, and the course draws stacks that nobody has
measured, so the pictures of the layers from that time are here, and their classes refer to them. Layers added
since define their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

Kind = Literal["hardware", "kernel", "hypervisor", "isolator", "applications"]


class Technique(StrEnum):
    """The families of virtualization that vbench distinguishes."""

    ISOLATOR = "isolator"
    USER_KERNEL = "user-space kernel"
    TYPE_2 = "type 2"
    TYPE_1 = "type 1"
    PARAVIRTUALIZATION = "paravirtualization"


def layer_of(word: str) -> str:
    """The layer that a word of a stack path names, without its parameters."""
    return word.partition(":")[0]


@dataclass(frozen=True)
class AddOn:
    """What a technique needs on its parent in addition to the capsule; built by ``vbench capsule build``.

    ``packages``: from the capsule's Debian release or its backports (``name/bookworm-backports``), with their
    dependencies, but for the paths ``exclude`` (shell patterns); ``files``: programs and scripts,
    by their path in the add-on's tree; ``sources``: C files, compiled by the capsule's compiler with these flags,
    by the path of what is made of them; ``lock``: a file recording the packages it was built from before.

    ``script``: a shell script, and files that it is given, which makes the tree of other packages, unpacked by suite;
    see :mod:`vbench.capsule.made`. ``material`` names them (``suite``, ``suite/component`` or ``suite:architecture`` to
    packages, as in ``packages``; {release} stands for the release of the capsule's kernel); ``wheels``: Python wheels,
    as ``name==version``, to their SHA-256.
    """

    name: str
    packages: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    sources: Mapping[str, tuple[Path, tuple[str, ...]]] = field(default_factory=dict)
    lock: Path | None = None
    script: tuple[Path, ...] = ()
    material: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    wheels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """The boxes a layer adds to a diagram, bottom up, each (kind, label, note), and where they go.

    ``around``: a line around programs on the same kernel. ``on``: on top of the kernel, as its process.
    ``under``: beneath the kernel it is opened from. ``beside``: next to that kernel, on its hypervisor.
    ``kernel``: the new note of the kernel it is opened from, if that kernel's role changes; with
    ``hypervisor``, that kernel becomes the hypervisor. {} stands for the layer's name.
    """

    where: Literal["around", "on", "under", "beside"]
    boxes: tuple[tuple[Kind, str, str], ...]
    kernel: str = ""
    hypervisor: bool = False


PICTURES: dict[str, Picture] = {
    "chroot": Picture("around", (("isolator", "chroot", "another root directory"),)),
    "bubblewrap": Picture("around", (("isolator", "bubblewrap", "namespaces"),)),
    "uml": Picture("on", (("kernel", "User Mode Linux", "guest kernel, a process"),)),
    "qemu": Picture(
        "on", (("hypervisor", "QEMU", "emulates the processor"), ("kernel", "Guest kernel", "unmodified"))
    ),
    "kvm": Picture(
        "on", (("kernel", "Guest kernel", "devices by QEMU"),), "with KVM: the hypervisor", hypervisor=True
    ),
    "testbed": Picture(
        "on",
        (
            ("hypervisor", "QEMU", "counts instructions"),
            ("hardware", "Emulated PC", "AMD-V, nested paging"),
            ("kernel", "Testbed's kernel", "operating system"),
        ),
    ),
    "xen": Picture("under", (("hypervisor", "Xen", "hypervisor, type 1"),), "dom0"),
    "pv": Picture("beside", (("kernel", "Guest kernel", "domU, paravirtualized"),)),
    "pvh": Picture("beside", (("kernel", "Guest kernel", "domU, hardware-assisted"),)),
    "hvm": Picture("beside", (("kernel", "Guest kernel", "domU, devices by QEMU"),)),
}
"""By layer name, for the layers in older bundles that do not record their picture."""

FAMILIES: dict[str, Picture] = {
    Technique.ISOLATOR: Picture("around", (("isolator", "{}", "isolator"),)),
    Technique.USER_KERNEL: Picture("on", (("kernel", "{}", "guest kernel, a process"),)),
    Technique.TYPE_2: Picture(
        "on", (("hypervisor", "{}", "hypervisor, type 2"), ("kernel", "Guest kernel", ""))
    ),
    Technique.TYPE_1: Picture("beside", (("kernel", "Guest kernel", "under {}"),)),
    Technique.PARAVIRTUALIZATION: Picture("beside", (("kernel", "Guest kernel", "paravirtualized, {}"),)),
}
"""By technique, for a layer about which nothing else is known."""
