"""Moving a capsule to another machine: exporting it to a single file, and importing it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from vbench.capsule import rootfs
from vbench.capsule.capsule import Capsule, Manifest, Say, building, find, home, reason_of, recipe, settle
from vbench.errors import DigestMismatch, UsageError, VbenchError


def export(capsule: Capsule, target: Path) -> None:
    """Write the capsule to a single file that :func:`import_` reads on another machine."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            write(capsule, file)
        draft.replace(target)
    except OSError as error:
        raise VbenchError(f"cannot write {target}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def write(capsule: Capsule, file: BinaryIO) -> None:
    """Write what :func:`import_` reads into an open file."""
    with tarfile.open(fileobj=file, mode="w") as out:
        for name in ("capsule.json", "rootfs.tar"):
            out.add(capsule.directory / name, name)


def import_(source: Path, say: Say = lambda _: None) -> Capsule:
    """Import an exported capsule after checking that its content matches its digest."""
    with building(say) as work:
        try:
            with tarfile.open(source, "r:") as archive:
                for name in ("capsule.json", "rootfs.tar"):
                    _take(archive, name, work)
            manifest = Manifest.model_validate_json((work / "capsule.json").read_bytes())
            say("checking its digest")
            actual = rootfs.content_digest(work / "rootfs.tar")
        except (OSError, KeyError, tarfile.TarError, ValidationError) as error:
            raise UsageError(
                f"{source} is not an exported capsule: {reason_of(error)}",
                "make one with: vbench capsule export FILE",
            ) from error
        if actual != manifest.digest:
            raise DigestMismatch(f"{source} claims digest {manifest.digest}, but its content has {actual}")
        plan = recipe()
        if manifest.recipe != plan.digest():
            raise VbenchError(
                f"{source} was built by another version of vbench (recipe {manifest.recipe[:12]}, "
                f"this version's is {plan.digest()[:12]})",
                "use the same vbench on both machines",
            )
        if (here := find(actual)) is not None:
            return here  # a run may be using it
        return settle(work, plan, manifest.kernel, say)


def receive(digest: str, ask: Callable[[int], bytes]) -> Capsule:
    """Import a capsule that comes in pieces: ``ask`` returns what follows so many bytes of it, nothing at its end.

    One process receives at a time; the others wait and find it here. Raises what :func:`import_` raises, and
    ``DigestMismatch`` if it is another capsule.
    """
    try:
        home().mkdir(parents=True, exist_ok=True)
        # Without a name, so that nothing is left of it if this process is killed.
        with (home() / ".receiving").open("w") as lock, tempfile.TemporaryFile(dir=home()) as file:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (found := find(digest)) is not None:
                return found
            while piece := ask(file.tell()):
                file.write(piece)
            file.flush()
            got = import_(Path(f"/proc/self/fd/{file.fileno()}"))
    except OSError as error:
        raise VbenchError(f"cannot write to {home()}: {error.strerror}", "is the disk full?") from error
    if got.digest != digest:
        raise DigestMismatch(f"capsule {digest} was asked for, and {got.digest} came")
    return got


def _take(archive: tarfile.TarFile, name: str, folder: Path) -> None:
    """Unpack the content of one member and nothing else: no link, owner, mode or other path."""
    content = archive.extractfile(name)
    if content is None:
        raise tarfile.TarError(f"{name} is not a file")
    with (folder / name).open("wb") as file:
        shutil.copyfileobj(content, file)
