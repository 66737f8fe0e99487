"""What is known of techniques of virtualization where no layer is at hand: to draw them, and to name their kind.

Bundles tell how their layers are drawn. Older ones do not, and the course draws stacks that nobody has measured: so
the pictures of the layers of those days stand here, and their classes name them. A layer added since has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

Kind = Literal["hardware", "kernel", "hypervisor", "isolator", "applications"]


class Technique(StrEnum):
    """The families of virtualization that vbench tells apart."""

    ISOLATOR = "isolator"
    USER_KERNEL = "user-space kernel"
    TYPE_2 = "type 2"
    TYPE_1 = "type 1"
    PARAVIRTUALIZATION = "paravirtualization"


@dataclass(frozen=True)
class AddOn:
    """What a technique needs on its parent beyond the capsule; ``vbench capsule build`` makes it.

    ``packages``: of the capsule's Debian release, with what they depend on; ``files``: programs and scripts, by their
    path in the add-on's tree; ``lock``: a file that says which packages it was built of before.
    """

    name: str
    packages: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    lock: Path | None = None


@dataclass(frozen=True)
class Picture:
    """The boxes that a layer adds to a diagram, from the bottom up, each (kind, label, note), and where.

    ``around``: a line around programs on the same kernel. ``on``: on top of the kernel, as a process of it.
    ``under``: beneath the kernel that it is opened from. ``beside``: next to that kernel, on its hypervisor.
    ``kernel`` is the note of the kernel that it is opened from, once its part in it has changed; with ``hypervisor``,
    that kernel becomes the hypervisor. {} stands for the layer's name.
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
"""By the name of the layer, of those that older bundles have without telling their picture."""

FAMILIES: dict[str, Picture] = {
    Technique.ISOLATOR: Picture("around", (("isolator", "{}", "isolator"),)),
    Technique.USER_KERNEL: Picture("on", (("kernel", "{}", "guest kernel, a process"),)),
    Technique.TYPE_2: Picture(
        "on", (("hypervisor", "{}", "hypervisor, type 2"), ("kernel", "Guest kernel", ""))
    ),
    Technique.TYPE_1: Picture("beside", (("kernel", "Guest kernel", "under {}"),)),
    Technique.PARAVIRTUALIZATION: Picture("beside", (("kernel", "Guest kernel", "paravirtualized, {}"),)),
}
"""By technique, for a layer of which nothing else is known."""
