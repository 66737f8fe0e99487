"""Add-ons to the capsule: what a technique needs on its parent beyond the capsule, each with its own digest.

So a new technique changes neither what is measured nor the digest that makes bundles comparable. An add-on is kept in
the cache next to the capsule, as ``add-on.tar`` (copied to parents reached over SSH; packages compressed) and
``tree/`` (unpacked). What the capsule's tree has already, byte for byte, is not in it again.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ValidationError

from vbench.capsule import capsule, made, rootfs
from vbench.errors import VbenchError
from vbench.hosts.base import Part
from vbench.technique import AddOn

log = logging.getLogger(__name__)

LAYOUT = 1
"""Incremented when this module's output for the same packages and files changes."""
# What mmdebstrap and apt leave in a tree that comes from the build machine.
_LEFT_OUT = ("dev", "etc/apt", "etc/dpkg", "etc/hostname", "etc/resolv.conf", "tmp", "var")


class Manifest(BaseModel, extra="forbid"):
    """``add-on.json``: what an add-on is and how it differs from its lock file."""

    name: str
    digest: str
    recipe: str
    packages: list[dict[str, str]]
    drift: list[str]


def recipe(wanted: AddOn) -> str:
    """SHA-256 over everything that determines what is built, except package versions."""
    plan = capsule.recipe()
    lines = [f"layout {LAYOUT}", wanted.name, plan.suite, plan.architecture, *sorted(wanted.packages)]
    lines += [f"beside {plan.digest()}", *wanted.exclude] if wanted.packages else []
    if wanted.script:
        lines += [f"{suite} {' '.join(names)}" for suite, names in sorted(wanted.material.items())]
        lines += [f"{wheel} {digest}" for wheel, digest in sorted(wanted.wheels.items())]
        lines += [f"made by {_sha256(file.read_bytes())}" for file in wanted.script]
        lines += [f"beside {plan.digest()}", *wanted.exclude]
    lines += [f"{path} {_sha256(file.read_bytes())}" for path, file in sorted(wanted.files.items())]
    for path, (source, flags) in sorted(wanted.sources.items()):
        lines.append(f"{path} {_sha256(source.read_bytes())} {' '.join(flags)} {plan.digest()}")
    return _sha256("\n".join(lines).encode())


def find(wanted: AddOn) -> tuple[Part, Manifest] | None:
    """The add-on on this machine, if it has been built here as it is wanted now."""
    key = recipe(wanted)
    for file in sorted(capsule.home().glob(f"add-on-{wanted.name}-*/add-on.json")):
        try:
            manifest = Manifest.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            continue  # it will be rebuilt
        if manifest.recipe == key:
            return Part(str(file.parent), manifest.digest), manifest
    return None


def parts(wanted: Iterable[AddOn]) -> dict[str, Part]:
    """The add-ons that have been built here, by name; one that is all sources of ours is built now, in a second."""
    made = {}
    for each in wanted:
        if find(each) is None and each.sources and not (each.packages or each.script):
            try:
                build(each)
            except VbenchError as error:
                log.debug("%s", error)
        if (found := find(each)) is not None:
            made[each.name] = found[0]
    return made


def build(wanted: AddOn, say: capsule.Say = lambda _: None, *, mirror: str | None = None) -> Manifest:
    """Build an add-on, or return the existing one. Raises ``VbenchError`` if its packages are unavailable."""
    with capsule.building(say) as work:
        if (found := find(wanted)) is not None:
            return found[1]
        say(f"building the add-on {wanted.name}")
        archive = work / "add-on.tar"
        packages = _assemble(wanted, archive, work, mirror)
        (work / "tree").mkdir()
        subprocess.run(["tar", "-xf", archive, "-C", work / "tree"], check=True)
        manifest = Manifest(
            name=wanted.name,
            digest=rootfs.content_digest(archive),
            recipe=recipe(wanted),
            packages=packages,
            drift=capsule.drift_from_lock(packages, wanted.lock) if wanted.lock else [],
        )
        (work / "add-on.json").write_text(manifest.model_dump_json(indent=1))
        if packages:
            _compress(archive)
        home = capsule.home() / f"add-on-{wanted.name}-{manifest.digest[:16]}"
        if (home / "add-on.json").exists():  # the same by another recipe, and machines may run from it
            (work / "add-on.json").replace(home / "add-on.json")
        else:
            shutil.rmtree(home, ignore_errors=True)
            work.rename(home)
        return manifest


def _compress(archive: Path) -> None:
    """By the capsule's own gzip, so that it is the same bytes everywhere: they become part of the testbed's state."""
    tree, smaller = capsule.require().directory / "tree", archive.with_suffix(".gz")
    libraries = ":".join(str(tree / part) for part in rootfs.LIBRARIES)
    argv = [
        tree / rootfs.LOADER,
        "--library-path",
        libraries,
        tree / "usr/bin/gzip",
        "--no-name",
        "--stdout",
        archive,
    ]
    with smaller.open("wb") as out:
        subprocess.run([*map(str, argv)], stdout=out, check=True)
    smaller.rename(archive)


def write_lock(wanted: AddOn, manifest: Manifest) -> None:
    """Record in an add-on's lock file what was built."""
    if wanted.lock is not None:
        content = {"digest": manifest.digest, "packages": manifest.packages}
        wanted.lock.write_text(json.dumps(content, indent=1) + "\n")


def _assemble(wanted: AddOn, archive: Path, work: Path, mirror: str | None) -> list[dict[str, str]]:
    """Write the tree of packages and files to a tar archive; return the packages."""
    packages: list[dict[str, str]] = []
    with tarfile.open(archive, "w") as out:
        if wanted.packages:
            base = capsule.require().directory / "tree"
            source = work / "packages.tar"
            made.extract(wanted, source, mirror)
            with tarfile.open(source) as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    if name == made.LISTED:
                        packages = made.packages(tar.extractfile(member).read().decode())  # type: ignore[union-attr]
                    elif not any(PurePosixPath(name).is_relative_to(left) for left in _LEFT_OUT):
                        _take(out, tar, member, base)
            source.unlink()
        if wanted.script:
            packages += made.by_script(wanted, out, work, mirror)
        for path, file in sorted(wanted.files.items()):
            data = file.read_bytes()
            made.add_file(out, path, data)
        for path, (source, flags) in sorted(wanted.sources.items()):
            made.add_file(out, path, _compiled(source, flags, work))
    return packages


def _take(out: tarfile.TarFile, tar: tarfile.TarFile, member: tarfile.TarInfo, base: Path) -> None:
    """Take over what the capsule's tree does not have already, to where a system with a merged /usr has it."""
    read = tar.extractfile(member) if member.isreg() or member.islnk() else None
    member = copy.copy(member)  # the archive finds what a hard link leads to by its name
    member.name = _merged(member.name.removeprefix("./"))
    there = base / member.name
    if member.isdir():
        if not there.is_dir():
            out.addfile(member)
    elif read is not None:  # a hard link becomes a file, as what it leads to may be left out
        data = read.read()
        member.type, member.size = tarfile.REGTYPE, len(data)
        if there.is_symlink() or not there.is_file() or there.read_bytes() != data:
            out.addfile(member, io.BytesIO(data))
    elif not (member.issym() and there.is_symlink() and str(there.readlink()) == member.linkname):
        out.addfile(member)


def _merged(name: str) -> str:
    top = name.partition("/")[0]
    return f"usr/{name}" if top in ("bin", "sbin", "lib", "lib64") else name


def _compiled(source: Path, flags: Iterable[str], work: Path) -> bytes:
    """A program as the capsule's own compiler makes it, in the capsule's tree."""
    inside = 'mount --bind "$2" "$1/mnt"; tree=$1; shift 2; TMPDIR=/mnt exec chroot "$tree" gcc "$@"'
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    with tempfile.TemporaryDirectory(dir=work) as name:
        shutil.copyfile(source, Path(name, source.name))
        argv = ["unshare", "--mount", *user, "sh", "-ec", inside, "sh"]
        argv += [str(capsule.require().directory / "tree"), name]
        argv += ["-O2", "-Wall", "-Werror", *flags, "-o", "/mnt/made", f"/mnt/{source.name}"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise VbenchError(f"the capsule's compiler cannot make {source.name}: {done.stderr.strip()}")
        return Path(name, "made").read_bytes()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
