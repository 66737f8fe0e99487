"""Moving a capsule to another machine: exporting it to a single file, and importing it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
from pathlib import Path

from pydantic import ValidationError

from vbench.capsule import rootfs
from vbench.capsule.capsule import Capsule, Manifest, Say, building, find, reason_of, recipe, settle
from vbench.errors import DigestMismatch, UsageError, VbenchError


def export(capsule: Capsule, target: Path) -> None:
    """Write the capsule to a single file that :func:`import_` reads on another machine."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with tarfile.open(draft, "w") as out:
            for name in ("capsule.json", "rootfs.tar"):
                out.add(capsule.directory / name, name)
        draft.replace(target)
    except OSError as error:
        raise VbenchError(f"cannot write {target}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


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
        if (here := find()) is not None and here.digest == actual:
            return here  # a run may be using it
        return settle(work, plan, manifest.kernel, say)


def _take(archive: tarfile.TarFile, name: str, folder: Path) -> None:
    """Unpack the content of one member and nothing else: no link, owner, mode or other path."""
    content = archive.extractfile(name)
    if content is None:
        raise tarfile.TarError(f"{name} is not a file")
    with (folder / name).open("wb") as file:
        shutil.copyfileobj(content, file)
