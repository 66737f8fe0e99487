"""Debian packages of an add-on, unpacked without installing them; and add-ons that a script makes of such packages."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

from vbench.capsule import capsule, rootfs
from vbench.errors import VbenchError
from vbench.technique import AddOn


class MaterialUnavailable(VbenchError):
    """The packages that an add-on is made of cannot be had, as may be so of a suite that moves."""


LISTED = "add-on-packages"
"""A file at the root of what is unpacked: the SHA-256 and file name of each package, as by ``sha256sum``."""
_ARCHIVE = "http://deb.debian.org/debian"


def extract(wanted: AddOn, target: Path, mirror: str | None) -> None:
    """Unpack the packages of the capsule's suite and its backports, with their dependencies; takes seconds."""
    plan = capsule.recipe()
    exclude = (*plan.exclude, *wanted.exclude)
    names, more = wanted.packages, _suites_beside(wanted.packages, mirror)
    _unpack(wanted.name, plan.suite, plan.architecture, names, exclude, target, mirror, more)


def _suites_beside(names: Iterable[str], mirror: str | None) -> list[str]:
    """What mmdebstrap is told of the suites that are named with packages, as in ``name/bookworm-backports``."""
    more = sorted({name.partition("/")[2] for name in names} - {""})
    lines = [f"deb {mirror or _ARCHIVE} {suite} main" for suite in more]
    return [
        f'--setup-hook=echo "{line}" > "$1/etc/apt/sources.list.d/{suite}.list"'
        for line, suite in zip(lines, more, strict=True)
    ]


def by_script(wanted: AddOn, out: tarfile.TarFile, work: Path, mirror: str | None) -> list[dict[str, str]]:
    """Add to ``out`` the tree that the add-on's script makes of its material; return the packages of that.

    The script is told the capsule's tree, a folder with what each suite was unpacked to and the probe's sources in
    ``probe``, and its files; it writes to ``made`` in that folder. It runs as root of a mount namespace, and of a user
    namespace if vbench is not run as root. Raises ``MaterialUnavailable``, or ``VbenchError`` with the script's last
    lines if that fails.
    """
    tree = capsule.require().directory / "tree"
    release = next((tree / "lib/modules").iterdir()).name
    found, making = [], work / "making"
    (making / "probe").mkdir(parents=True)
    for source in capsule.recipe().source_files():
        shutil.copyfile(source, making / "probe" / source.name)
    for whole, names in sorted(wanted.material.items()):
        wanted_suite, _, component = whole.partition("/")
        suite, _, other = wanted_suite.partition(":")
        folder = making / (f"{suite}-{other}" if other else suite)
        packed = making / f"{folder.name}.tar"
        named = [name.format(release=release) for name in names]
        # The newest suite is signed for a week only, and a mirror may be late.
        more = ['--aptopt=Acquire::Check-Valid-Until "false"']
        more += [f"--components=main,{component}"] if component else []
        more += _suites_beside(named, mirror)
        architecture = other or capsule.recipe().architecture
        try:
            _unpack(wanted.name, suite, architecture, named, wanted.exclude, packed, mirror, more)
        except VbenchError as error:
            raise MaterialUnavailable(error.message, error.hint) from error
        folder.mkdir()
        subprocess.run(["tar", "-xf", packed, "-C", folder, "--exclude=./dev/*"], check=True)
        packed.unlink()
        listed = packages((folder / LISTED).read_text())
        found += [{**each, "name": f"{each['name']}:{other}"} if other else each for each in listed]
    if wanted.wheels:
        found += _wheels(wanted, making / "wheels")

    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    argv = ["unshare", "--mount", *user, "sh", str(wanted.script[0]), str(tree), str(making)]
    argv += map(str, wanted.script[1:])
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join(done.stderr.splitlines()[-8:])
        raise VbenchError(f"the add-on {wanted.name} cannot be made:\n{said}")
    for path in sorted((making / "made").rglob("*")):
        _add(out, path, str(path.relative_to(making / "made")))
    shutil.rmtree(making)
    return found


def _add(out: tarfile.TarFile, path: Path, name: str) -> None:
    """The same bytes whoever built it, and when."""
    member = tarfile.TarInfo(f"./{name}")
    member.mtime = rootfs.EPOCH
    if path.is_symlink():
        member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
        out.addfile(member)
    elif path.is_dir():
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        out.addfile(member)
    else:
        add_file(out, name, path.read_bytes())


def add_file(out: tarfile.TarFile, name: str, data: bytes) -> None:
    """A file of root's that may be run, of no time in particular."""
    member = tarfile.TarInfo(f"./{name}")
    member.size, member.mode, member.mtime = len(data), 0o755, rootfs.EPOCH
    out.addfile(member, io.BytesIO(data))


def _wheels(wanted: AddOn, folder: Path) -> list[dict[str, str]]:
    """Fetch Python wheels and unpack them to one folder; return their names, versions and digests."""
    folder.mkdir()
    lines = [f"{wheel} --hash=sha256:{digest}" for wheel, digest in wanted.wheels.items()]
    (folder / "wanted").write_text("\n".join(lines))
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # Whatever Python it is that runs vbench: nothing in them is for Python to run.
    argv += ["--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--python-version=3.11"]
    argv += ["--require-hashes", f"--requirement={folder / 'wanted'}", f"--dest={folder}"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no output"])[-1]
        hint = "is pip installed beside vbench, and a package index reachable?"
        raise MaterialUnavailable(f"the add-on {wanted.name} cannot be made: {said}", hint)
    for file in folder.glob("*.whl"):
        shutil.unpack_archive(file, folder, "zip")
    pairs = (wheel.split("==") for wheel in wanted.wheels)
    return [
        {"name": name, "version": version, "sha256": digest}
        for (name, version), digest in zip(pairs, wanted.wheels.values(), strict=True)
    ]


def _unpack(
    what: str,
    suite: str,
    architecture: str,
    names: Sequence[str],
    exclude: Sequence[str],
    target: Path,
    mirror: str | None,
    more: Sequence[str],
) -> None:
    listed = f'cd "$1/var/cache/apt/archives" && sha256sum *.deb > "$1/{LISTED}"'
    argv = [
        "--variant=extract",
        f"--architectures={architecture}",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={glob}" for glob in exclude),
        *more,
        f"--include={','.join(names)}",
        f"--extract-hook={listed}",
        suite,
        str(target),
    ]
    rootfs.mmdebstrap(what, [*argv, *([mirror] if mirror else [])])


def packages(listing: str) -> list[dict[str, str]]:
    """Name, version and archive SHA-256 of each package, from ``sha256sum`` output for the archives."""
    found = []
    for line in listing.splitlines():
        digest, _, file = line.partition("  ")
        name, version, _ = unquote(file).split("_")
        found.append({"name": name, "version": version, "sha256": digest})
    return sorted(found, key=lambda package: package["name"])
