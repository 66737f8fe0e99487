"""Emulated machines with another processor than x86: Debian's packages for that take the capsule's place in them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from vbench.hosts.base import Boot, Host, Part, Payload, Program
from vbench.layers import guest
from vbench.layers.base import Available, Unavailable
from vbench.layers.qemu import Qemu

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


class ForeignKvm(Qemu):
    """A guest of KVM on such a machine: of the same kernel, with devices by the payload's own QEMU."""

    processes: ClassVar[tuple[str, ...]] = ()
    accelerator: ClassVar[str] = "kvm"
    cpu: ClassVar[str] = "host"
    machine_is: ClassVar[str]
    """What its parent is, for people."""
    at: ClassVar[str]
    """A stack in which it opens."""
    module: ClassVar[str]
    """KVM's, for that processor."""
    answer: ClassVar[str]
    """What the doctor says of it where it opens."""
    program: ClassVar[str]
    """QEMU's, for that processor."""

    def probe(self, parent: Host) -> Available | Unavailable:
        """On a machine of that kind whose kernel has KVM."""
        if parent.payload is None or self.program not in parent.payload.programs:
            return Unavailable(f"{parent.name} is no {self.machine_is}", f"use {self.at}")
        if isinstance(answer := super().probe(parent), Unavailable):
            return answer
        if parent.run(["sh", "-c", ": <>/dev/kvm"], check=False).code != 0:
            return Unavailable(f"/dev/kvm on {parent.name} does not open", f"load {self.module}")
        return Available(self.answer)

    def told(self, like: str) -> str:
        """What its kernel is told; ``like`` is what it takes over from its parent."""
        raise NotImplementedError

    def boot(self, payload: Payload, like: str) -> Boot:
        """The payload's kernel, the same as the hypervisor's."""
        return Boot(payload.boot("vmlinux"), self.told(like), payload.boot("initrd"))


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
