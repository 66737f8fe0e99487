"""A capsule of five programs taken from this machine: everything about it is real but its size.

Run as a program it is a builder: ``tiny.py ARCHIVE SOURCES [SECONDS]`` builds the capsule in ``$VBENCH_CACHE``
with ``ARCHIVE`` in place of what mmdebstrap would make, taking so many seconds over it.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
import time
from pathlib import Path

import pytest

from vbench.capsule import capsule, programs, rootfs

PROGRAMS = ("usr/sbin/mke2fs", "usr/sbin/debugfs", "usr/bin/sha256sum", "usr/bin/env", "usr/bin/true")


def tiny_recipe(sources: Path) -> rootfs.Recipe:
    """The recipe of the tiny capsule; its identity is that of this version of vbench."""
    whole = rootfs.Recipe.load(sources)
    return whole.model_copy(
        update={
            "measured": ["/usr/bin/sha256sum", "/usr/bin/true"],
            "helpers": ["/usr/bin/env", "/usr/sbin/mke2fs"],
        }
    )


def origin() -> Path:
    """A root with the programs: this machine's, or that of the capsule built here."""
    found = capsule.find()
    for root in (Path("/"), *([found.directory / "tree"] if found else [])):
        if all((root / program).is_file() for program in PROGRAMS) and (root / rootfs.LOADER).exists():
            return root
    pytest.skip("neither this machine nor a capsule has mke2fs and debugfs")


def archive(target: Path) -> Path:
    """A root tree in a tar archive, as mmdebstrap leaves it."""
    root = origin()
    files = {part for program in PROGRAMS for part in (program, *programs.libraries(root, program))}
    tree = target.parent / "root"
    for file in (*sorted(files), rootfs.LOADER):
        place = tree / (f"{rootfs.LIBRARIES[0]}/{Path(file).name}" if ".so" in file else file)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, place)
    loader = tree / rootfs.LOADER
    loader.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / rootfs.LOADER, loader)
    (tree / "etc").mkdir()
    (tree / "etc/mke2fs.conf").write_text("[defaults]\n")
    (tree / "vbench").mkdir()
    (tree / "vbench/packages").write_text("Package: tiny\nVersion: 1\nSHA256: 00\n")
    (tree / "vbench/mended").write_text("")
    with tarfile.open(target, "w") as tar:
        tar.add(tree, ".", filter=_owned_by_root)
    return target


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main() -> None:
    """Build it as ``vbench capsule build`` does; only what needs a Debian mirror is left out."""
    source, sources, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

    def bootstrap(recipe: rootfs.Recipe, target: Path, *, mirror: str | None = None) -> None:
        assert mirror is None
        sys.stdout.write("bootstrap\n")
        sys.stdout.flush()
        time.sleep(seconds)
        shutil.copy(source, target)

    def add_boot_files(recipe: rootfs.Recipe, archive: Path) -> str:
        assert archive.is_file()
        return "6.1.0-tiny"

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    rootfs.bootstrap, rootfs.add_boot_files = bootstrap, add_boot_files
    capsule.recipe = lambda: tiny_recipe(sources)
    say(f"capsule {capsule.build(say).directory}")


if __name__ == "__main__":
    main()
