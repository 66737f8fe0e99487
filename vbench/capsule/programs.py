"""The capsule's programs: where they are in its tree, and which files running one of them executes."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from vbench.capsule import rootfs
from vbench.errors import VbenchError
from vbench.hosts.base import Program


def listed(recipe: rootfs.Recipe, tree: Path) -> tuple[dict[str, Program], dict[str, str]]:
    """The programs by name, and the SHA-256 of every file that running a measured one executes."""
    table: dict[str, Program] = {}
    files: dict[str, str] = {}
    for path in (*recipe.measured, *recipe.helpers):
        real = _inside(tree, path)
        dynamic = _is_dynamic(tree / real)
        table[PurePosixPath(path).name] = Program(real, dynamic)
        if path in recipe.measured:
            for part in (real, *(libraries(tree, real) if dynamic else ())):
                files[part] = hashlib.sha256((tree / part).read_bytes()).hexdigest()
    return table, files


def _inside(tree: Path, path: str) -> str:
    """Resolve symbolic links as a process with ``tree`` as its root would; the result is relative to ``tree``."""
    here = PurePosixPath("/")
    todo = list(PurePosixPath(path).parts[1:])
    for _ in range(400):
        if not todo:
            break
        step = here / todo.pop(0)
        on_disk = tree / step.relative_to("/")
        if on_disk.is_symlink():
            target = PurePosixPath(on_disk.readlink())
            todo = [*(part for part in target.parts if part != "/"), *todo]
            here = PurePosixPath("/") if target.is_absolute() else here
        else:
            here = here.parent if step.name == ".." else step
    if not (tree / here.relative_to("/")).exists():
        raise VbenchError(f"the capsule has no {path}", "is its package in capsule.toml?")
    return str(here.relative_to("/"))


def _is_dynamic(path: Path) -> bool:
    """Whether an ELF file asks for a loader (its program headers have a PT_INTERP)."""
    return b"/lib64/ld-linux-x86-64.so.2\0" in path.read_bytes()[:4096]


def libraries(tree: Path, program: str) -> Iterator[str]:
    """The loader and every library that a program of the tree maps, as the tree's own loader resolves them."""
    yield _inside(tree, f"/{rootfs.LOADER}")
    path = ":".join(str(tree / part) for part in rootfs.LIBRARIES)
    argv = [str(tree / rootfs.LOADER), "--library-path", path, "--list", str(tree / program)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise VbenchError(f"{program} in the capsule is missing a library: {done.stdout}{done.stderr}")
    listing = done.stdout
    for line in listing.splitlines():
        _, arrow, target = line.partition(" => ")
        if arrow:
            yield _inside(tree, "/" + str(Path(target.split(" (")[0]).relative_to(tree)))
