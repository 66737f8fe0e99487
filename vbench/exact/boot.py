"""What a deterministic machine boots from: its initrd, and the programs of ours that lead it."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from vbench.capsule import rootfs
from vbench.hosts.base import Payload
from vbench.technique import AddOn

_SOURCES = Path(__file__).parent / "sources"
_SCRIPTS = {"init": _SOURCES / "init.sh", "rc-exact": _SOURCES / "rc.sh"}
_MODULES = ("virtio_pmem", "nd_pmem")

PROGRAMS = AddOn(
    "exact",
    sources={
        "agent": (_SOURCES / "agent.c", ("-static",)),
        "gate.so": (_SOURCES / "gate.c", ("-shared", "-fPIC")),
    },
)
"""The gate, a plugin for QEMU, and the agent, the machine's first process."""
REST = AddOn("rest", sources={"rest.so": (_SOURCES / "rest.c", ("-shared", "-fPIC"))})
"""Another plugin for QEMU, without which a machine that idles often does not answer the same each time."""
WHY = AddOn("why", sources={"why.so": (_SOURCES / "why.c", ("-shared", "-fPIC"))})
"""A third one, for whoever wants to know what is executed."""
DISK_GATE = {
    "agent": (_SOURCES / "agent.c", ("-static", "-DDISK")),
    "disk-gate.so": (_SOURCES / "disk-gate.c", ("-shared", "-fPIC")),
}
"""The same for Bochs, which has no plugins: the gate is a disk."""


def initrd(payload: Payload, programs: Path, folder: Path) -> Path:
    """Make the machine's initrd in a folder, once: the capsule's own, and what is different on top."""
    tree = Path(payload.tree)
    (modules,) = (tree / "usr/lib/modules").glob("*/modules.dep")
    order = rootfs.load_order(modules.read_text(), _MODULES)
    entries: list[tuple[str, bytes | None]] = [
        *((name, file.read_bytes()) for name, file in _SCRIPTS.items()),
        ("agent", (programs / "agent").read_bytes()),
        ("mod/order-exact", "".join(f"{PurePosixPath(path).name}\n" for path in order).encode()),
        *((f"mod/{PurePosixPath(path).name}", (modules.parent / path).read_bytes()) for path in order),
    ]
    data = Path(payload.boot("initrd")).read_bytes() + rootfs.newc(entries)
    target = folder / f"initrd-{hashlib.sha256(data).hexdigest()[:16]}"
    if not target.exists():
        target.write_bytes(data)
    return target
