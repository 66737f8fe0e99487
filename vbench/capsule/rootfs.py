"""Building the capsule: Debian packages in, one root tree with its boot files and manifest out.

mmdebstrap builds the tree. vbench adds the guests' first process, an uncompressed kernel (an emulator reads it
seconds faster than it could unpack it), an initrd with fewer than twenty modules, and the probe.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import shlex
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from pydantic import BaseModel

from vbench.capsule import errata
from vbench.errors import VbenchError
from vbench.hosts.base import Payload
from vbench.hosts.command import script

DATA = Path(__file__).parent
EPOCH = 1_700_000_000
"""No file in the capsule has a later timestamp than this, so that a rebuild gives the same bytes."""

LAYOUT = 4
"""Incremented when this module's output for the same packages changes."""

LOADER, LIBRARIES = Payload.loader, Payload.library_path
IMAGE = script(Path(__file__).parent / "scripts/image.sh")
"""How an image is made, for the scripts that unpack a capsule here or on another machine."""


def image_recipe() -> str:
    """SHA-256 over how this version makes an image: other bytes than those of another version, of the same capsule."""
    return hashlib.sha256(IMAGE.encode()).hexdigest()


class Recipe(BaseModel, extra="forbid", frozen=True):
    """What a capsule is made of, read from ``capsule.toml``."""

    suite: str
    architecture: str
    packages: list[str]
    exclude: list[str]
    include: list[str]
    modules: list[str]
    measured: list[str]
    helpers: list[str]
    sources: Path

    @classmethod
    def load(cls, sources: Path) -> Recipe:
        """Read the recipe of this version of vbench; ``sources`` is the folder with the probe's source code."""
        return cls(sources=sources, **tomllib.loads((DATA / "capsule.toml").read_text()))

    def source_files(self) -> list[Path]:
        """The probe's source files, in a fixed order."""
        return sorted(path for path in self.sources.iterdir() if path.suffix in {".c", ".h"})

    def digest(self) -> str:
        """SHA-256 over everything that determines what is built, except package versions."""
        whole = hashlib.sha256(f"layout {LAYOUT}\n".encode())
        files = [DATA / "capsule.toml", DATA / "initrd-init", DATA / "rc", *self.source_files()]
        for path in files:
            whole.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        for erratum in errata.ERRATA:
            whole.update(f"{erratum.path} {erratum.code.hex()} {erratum.mended.hex()}\n".encode())
        return whole.hexdigest()


def bootstrap(recipe: Recipe, target: Path, *, mirror: str | None = None) -> None:
    """Write the root tree of the recipe's packages to ``target``, a tar archive; takes a minute or two.

    Works as root and, where the kernel allows user namespaces, without root. If it fails, raises ``VbenchError``
    with the last lines of the builder's output.
    """
    compile_probe = (
        'chroot "$1" sh -c "cd /usr/src/vbench && gcc -O2 -static -o /usr/bin/vbench-probe *.c -lm'
        ' && rm -r /usr/src/vbench"'
    )
    # What apt knows about each installed package, read before the builder deletes the package lists.
    list_packages = (
        'chroot "$1" sh -c \'mkdir -p /vbench && dpkg-query -W -f "\\${Package}=\\${Version}\\n" |'
        " xargs apt-cache show --no-all-versions |"
        ' grep -E "^(Package|Version|SHA256):" > /vbench/packages\''
    )
    copy_sources = f'mkdir -p "$1/usr/src/vbench" && cp {_quoted(recipe.source_files())} "$1/usr/src/vbench/"'
    argv = [
        "--variant=minbase",
        f"--architectures={recipe.architecture}",
        "--dpkgopt=force-confold",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={glob}" for glob in recipe.exclude),
        *(f"--dpkgopt=path-include={glob}" for glob in recipe.include),
        f"--include={','.join(recipe.packages)}",
        # Not the distribution's initrd: ours is built below.
        '--essential-hook=mkdir -p "$1/etc/kernel/postinst.d" "$1/etc/initramfs-tools"'
        ' && echo update_initramfs=no > "$1/etc/initramfs-tools/update-initramfs.conf"',
        f"--customize-hook={copy_sources}",
        f"--customize-hook={compile_probe}",
        f"--customize-hook={list_packages}",
        # A lightweight login shell: every command over SSH starts one.
        "--customize-hook=sed -i 's#^root:\\(.*\\):/bin/bash$#root:\\1:/bin/sh#' \"$1/etc/passwd\"",
        '--customize-hook=rm -f "$1"/boot/initrd* "$1/etc/resolv.conf" "$1/etc/hostname"',
        # Python writes compiled files in no fixed order, so two builds would differ.
        '--customize-hook=find "$1/usr" -name __pycache__ -prune -exec rm -r {} +',
        '--customize-hook=mkdir -p "$1/capsule" "$1/scratch" "$1/root/.ssh" && chmod 700 "$1/root/.ssh"',
        recipe.suite,
        str(target),
        *([mirror] if mirror else []),
    ]
    mmdebstrap("the capsule", argv)


def mmdebstrap(what: str, arguments: Sequence[str]) -> None:
    """Build ``what`` by mmdebstrap. Raises ``VbenchError`` with its last lines, or when it is not installed.

    What it mounts as root is in a namespace of its own, and so is gone with it, however it ends. (In a chroot whose
    root is no mount, which has no propagation to be changed, mounts are as private as what they lie on.)
    """
    if shutil.which("mmdebstrap") is None:
        raise VbenchError("mmdebstrap is not installed", "apt-get install mmdebstrap, or: vbench quickstart")
    argv = ["mmdebstrap", *arguments]
    if os.geteuid() == 0:
        private = 'mount --make-rprivate / 2> /dev/null; exec "$@"'
        argv = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", private, "sh", *argv]
    env = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "INITRD": "No"}
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=env, check=False)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.decode(errors="replace").splitlines()[-8:])
        raise VbenchError(f"mmdebstrap could not build {what}:\n{tail}", "is a Debian mirror reachable?")


def _quoted(paths: Iterable[Path]) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)


def add_boot_files(recipe: Recipe, archive: Path) -> str:
    """Append the kernel, initrd and our boot scripts to the tar; return the kernel release."""
    with tarfile.open(archive) as tar:
        names = {member.name.removeprefix("./"): member for member in tar}

        def read(name: str) -> bytes:
            file = tar.extractfile(names[name])
            if file is None:
                raise VbenchError(f"{name} in the root tree is not a file")
            return file.read()

        kernel = next((name for name in sorted(names) if name.startswith("boot/vmlinuz-")), None)
        if kernel is None:
            raise VbenchError("the root tree has no kernel", "is linux-image-amd64 in capsule.toml?")
        release = kernel.removeprefix("boot/vmlinuz-")
        modules = f"usr/lib/modules/{release}"
        if f"{modules}/modules.dep" not in names:
            modules = f"lib/modules/{release}"
        order = load_order(read(f"{modules}/modules.dep").decode(), recipe.modules)
        busybox = next(name for name in ("usr/bin/busybox", "bin/busybox") if name in names)
        initrd: list[tuple[str, bytes | None]] = [
            *((name, None) for name in ("bin", "dev", "mod", "new", "proc", "ro", "sys", "up")),
            ("bin/busybox", read(busybox)),
            ("init", (DATA / "initrd-init").read_bytes()),
            ("mod/release", release.encode()),
            ("mod/order", "".join(f"{PurePosixPath(path).name}\n" for path in order).encode()),
            *((f"mod/{PurePosixPath(path).name}", read(f"{modules}/{path}")) for path in order),
        ]
        files = {
            "boot/vbench/vmlinux": unpack_kernel(read(kernel)),
            "boot/vbench/initrd": newc(initrd),
            "boot/vbench/xen": gzip.decompress(read(_xen(names))),
            "vbench/rc": (DATA / "rc").read_bytes(),
        }
        titles = ""
        for erratum in errata.ERRATA:
            if (program := erratum.apply(read(erratum.path))) is not None:
                files[erratum.path] = program  # a later entry in an archive replaces an earlier one
                titles += f"{erratum.title}\n"
        files["vbench/mended"] = titles.encode()
    with tarfile.open(archive, "a") as tar:
        for name, data in files.items():
            if PurePosixPath(name).parent.as_posix() not in names:
                folder = tarfile.TarInfo(f"./{PurePosixPath(name).parent}")
                folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, EPOCH
                tar.addfile(folder)
                names[PurePosixPath(name).parent.as_posix()] = folder
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mode, info.mtime = len(data), 0o755, EPOCH
            tar.addfile(info, io.BytesIO(data))
    return release


def _xen(names: Iterable[str]) -> str:
    """The hypervisor's path in the tree; there may be another version for EFI next to it."""
    found = sorted(name for name in names if name.startswith("boot/xen-") and name.endswith(".gz"))
    if not found:
        raise VbenchError("the root tree has no Xen", "is xen-hypervisor in capsule.toml?")
    return found[-1]


def load_order(modules_dep: str, wanted: Iterable[str]) -> list[str]:
    """Paths of the wanted modules and their dependencies, each after the modules it needs."""
    needs = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {PurePosixPath(path).stem.replace("_", "-"): path for path in needs}
    order: list[str] = []
    for name in wanted:
        path = by_name[name.replace("_", "-")]
        # In modules.dep, what must be loaded first comes last.
        order += [each for each in (*reversed(needs[path]), path) if each not in order]
    return order


def unpack_kernel(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage. It has a PVH entry, so hypervisors start it without a boot loader."""
    start = image.find(b"\xfd7zXZ\x00")
    if start < 0:
        raise VbenchError("the capsule's kernel is not compressed with xz", "its packaging has changed")
    return lzma.LZMADecompressor().decompress(image[start:])


def newc(entries: Iterable[tuple[str, bytes | None]]) -> bytes:
    """A cpio archive in the kernel's initramfs format; ``None`` as data means a folder."""
    out = io.BytesIO()
    for number, (name, data) in enumerate([*entries, ("TRAILER!!!", b"")], start=1):
        mode = 0o040755 if data is None else 0o100755
        body = data or b""
        fields = (number, mode, 0, 0, 1, EPOCH, len(body), 0, 0, 0, 0, len(name) + 1, 0)
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0")
        out.write(b"\0" * (-out.tell() % 4) + body)
        out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()


def content_digest(archive: Path) -> str:
    """SHA-256 over a root tar's content: types, modes, owners, names and bytes, but not times or order."""
    lines = []
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            detail = member.linkname
            if member.isreg():
                file = tar.extractfile(member)
                detail = hashlib.file_digest(file, "sha256").hexdigest() if file else ""  # type: ignore[arg-type]
            elif member.ischr() or member.isblk():
                detail = f"{member.devmajor}:{member.devminor}"
            lines.append(
                f"{member.type!r} {member.mode:o} {member.uid} {member.gid} {member.name} {detail}\n"
            )
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def packages(tree: Path) -> list[dict[str, str]]:
    """Name, version and archive SHA-256 of every package in the tree, sorted by name."""
    found: list[dict[str, str]] = []
    for line in (tree / "vbench/packages").read_text().splitlines():
        key, _, value = line.partition(": ")
        if key == "Package":
            found.append({"name": value})
        else:
            found[-1][key.lower()] = value
    return sorted(found, key=lambda package: package["name"])


def mended(tree: Path) -> list[str]:
    """Titles of the known bugs in packaged programs that were patched in the tree."""
    return (tree / "vbench/mended").read_text().splitlines()


def image_mib(archive: Path) -> int:
    """The size of the image that is made of an archive, in MiB."""
    return archive.stat().st_size // 2**20 * 5 // 4 + 64
