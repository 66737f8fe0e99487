"""Emulated machines with another processor than x86: Debian's packages for that take the capsule's place in them."""

from __future__ import annotations

from pathlib import Path

from vbench.hosts.base import Part, Payload, Program
from vbench.layers import guest

SYSTEM = (
    *("base-files", "coreutils", "dash", "findutils", "grep", "gzip", "hostname", "mount", "sed"),
    *("tar", "util-linux"),
    *("busybox-static", "dropbear-bin", "e2fsprogs", "iproute2", "kmod", "procps", "dmsetup"),
    *("fio", "iperf3", "openssl", "xz-utils", "apache2-utils", "nginx", "redis-server"),
    *("sqlite3", "bubblewrap", "virt-what"),
)
"""Packages of what runs inside, but for its kernel and its QEMU."""
EXCLUDE = (
    *(f"/usr/share/{name}/*" for name in ("doc", "icons", "info", "locale", "man")),
    *("/usr/bin/perl*", "/usr/lib/*/perl*", "/usr/share/perl*", "/usr/bin/python3*", "/usr/lib/python3*"),
    *("/usr/lib/*/gconv/*", "/lib/udev/*", "/lib/modules/*/kernel/sound/*"),
    "/lib/modules/*/kernel/drivers/[acdefghijlopqrtuw]*.ko",
)
"""What is left out of them, and of the emulator's."""
CHOICES = "mitigations=off norandmaps transparent_hugepage=never"
"""What the machine's kernel is told, and its guests' takes over."""
_CAPSULE = Path(__file__).parents[1] / "capsule"


def script(machine: str, *more: str) -> tuple[Path, ...]:
    """The script that makes a machine's add-on, what is of that machine only, and what the latter is given."""
    capsule = (_CAPSULE / name for name in ("scripts/image.sh", "initrd-init", "rc"))
    own = (guest.SCRIPTS / name for name in ("machine-add-on.sh", f"{machine}-machine.sh"))
    return (*own, *capsule, *(guest.SCRIPTS / name for name in more))


def payload(part: Part, name: str, *, libraries: str, loader: str, machine: str, page: int) -> Payload:
    """What takes the capsule's place inside: its programs and their digests are listed in the add-on ``name``."""
    lists = Path(part.directory) / "tree" / name
    programs = [line.split() for line in (lists / "programs").read_text().splitlines()]
    files = [line.split() for line in (lists / "files").read_text().splitlines()]
    return Payload(
        guest.DIRECTORY,
        part.digest,
        {name: Program(path, kind == "dynamic") for name, path, kind in programs},
        {path: digest for digest, path in files},
        library_path=(libraries, f"{libraries}/ceph"),
        loader=f"{libraries}/{loader}",
        machine=machine,
        page=page,
    )
