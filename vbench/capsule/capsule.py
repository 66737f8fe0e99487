"""The capsule: the one payload that every environment boots from and every measurement runs.

A capsule is a root tree of pinned Debian packages, identified by a SHA-256 over its content. It is kept in the
cache as ``rootfs.tar`` (what export writes), ``tree/`` (unpacked) and ``image`` (the same tree as ext4).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from vbench import paths
from vbench.capsule import programs, rootfs
from vbench.errors import DigestMismatch, VbenchError, first_problem
from vbench.hosts.base import Host, Payload, Program
from vbench.hosts.command import script

_UNPACK = script(Path(__file__).parent / "scripts/unpack.sh")
LOCK_FILE = rootfs.DATA / "capsule.lock"
Say = Callable[[str], None]
Sent = Callable[[str, int, int], None]
"""Told a machine's name, how many bytes of the capsule have arrived there, and how many there are."""


class Manifest(BaseModel, extra="forbid"):
    """``capsule.json``: what a capsule is and how it differs from the lock file."""

    schema_version: int = 1
    digest: str
    recipe: str
    image: str = ""  # earlier versions did not say how they made it
    kernel: str
    packages: list[dict[str, str]]
    drift: list[str]
    mended: list[str]
    programs: dict[str, Program]
    files: dict[str, str]


class Capsule:
    """A built capsule in the cache; ``sent`` is told how far it is on its way to other machines."""

    def __init__(self, directory: Path, sent: Sent = lambda name, done, whole: None) -> None:
        self.directory, self.sent = directory, sent
        try:
            self.manifest = Manifest.model_validate_json((directory / "capsule.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise VbenchError(
                f"no usable capsule in {directory}: {reason_of(error)}", "rebuild it: vbench capsule build"
            ) from error

    @property
    def digest(self) -> str:
        """SHA-256 over the content of the root tree."""
        return self.manifest.digest

    def payload(self) -> Payload:
        """The capsule on this machine."""
        return payload_at(str(self.directory), self.manifest)


def payload_at(directory: str, manifest: Manifest) -> Payload:
    """The capsule in ``directory`` on some host."""
    return Payload(directory, manifest.digest, manifest.programs, manifest.files)


def recipe() -> rootfs.Recipe:
    """The recipe of this version of vbench."""
    return rootfs.Recipe.load(paths.workload_files() / "src")


def find(digest: str | None = None) -> Capsule | None:
    """The capsule of this version's recipe, if it has been built or imported here; ``digest``: only that one."""
    return next((each for each in _built(digest) if each.manifest.image == rootfs.image_recipe()), None)


def _built(digest: str | None = None) -> Iterator[Capsule]:
    """The same, whichever version made the disk image of its tree."""
    wanted = recipe().digest()
    for manifest in sorted(home().glob("[!.]*/capsule.json")):  # the others are unfinished
        try:
            told = json.loads(manifest.read_bytes())
            if told.get("recipe") == wanted and digest in (None, told.get("digest")):
                yield Capsule(manifest.parent)
        except (OSError, ValueError):
            continue


def require(sent: Sent | None = None) -> Capsule:
    """Like :func:`find`, but a missing capsule is an error that says how to get one; ``sent``: see `Capsule`."""
    capsule = find()
    if capsule is None and (older := next(_built(), None)) is not None:
        raise VbenchError(
            f"the disk image of the capsule in {older.directory} was made by another version of vbench",
            "make it anew, which takes seconds: vbench capsule build",
        )
    if capsule is None:
        raise VbenchError(
            "no capsule has been built here for this version of vbench",
            "build one with: vbench capsule build (or: vbench capsule import FILE)",
        )
    capsule.sent = sent or capsule.sent
    return capsule


def build(say: Say = lambda _: None, *, mirror: str | None = None) -> Capsule:
    """Build the capsule, or return the existing one; one builder at a time, the others wait.

    An interrupted build leaves nothing that could be mistaken for a capsule.
    """
    with building(say) as work:
        if (found := find()) is not None:
            return found
        plan = recipe()
        archive = work / "rootfs.tar"
        if (older := next(_built(), None)) is not None:
            say("the capsule that is here has a disk image as an earlier version made it")
            shutil.copyfile(older.directory / "rootfs.tar", archive)
            return settle(work, plan, older.manifest.kernel, say)
        say(
            f"building the capsule from {len(plan.packages)} Debian packages ({plan.suite}); this takes minutes"
        )
        rootfs.bootstrap(plan, archive, mirror=mirror)
        say("adding kernel, initrd and boot scripts")
        release = rootfs.add_boot_files(plan, archive)
        return settle(work, plan, release, say)


def remove(*, partial_only: bool) -> list[Path]:
    """Delete unfinished builds, or everything; returns the folders. Waits for a build in progress."""
    if not home().is_dir():
        return []
    with (home() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        gone = sorted(
            path
            for path in home().iterdir()
            if path.is_dir() and (path.name.startswith(".build-") or not partial_only)
        )
        for folder in gone:
            shutil.rmtree(folder, ignore_errors=True)
    return gone


def verify_inside(host: Host) -> str:
    """Digest of what measurements execute, computed on ``host`` from its own copy of the files.

    Raises ``DigestMismatch`` with both digests and the first differing file if any byte differs from the capsule
    as it was built.
    """
    if host.payload is None:
        raise VbenchError(f"{host.name} holds no capsule")
    expected = host.payload.files
    argv = [*host.program("sha256sum"), *(f"{host.payload.tree}/{path}" for path in expected)]
    done = host.run(argv, check=False, timeout=600)
    actual = {}
    for line in done.text.splitlines():
        value, _, path = line.partition("  ")
        actual[path.removeprefix(f"{host.payload.tree}/")] = value
    want, got = _combined(expected), _combined(actual)
    if want != got:
        wrong = next(path for path in expected if actual.get(path) != expected[path])
        raise DigestMismatch(
            f"{host.name} does not hold the capsule's bytes: digest {got} where {want} was expected; "
            f"first difference: {wrong}",
            "something changed the files under it; rebuild with: vbench clean --capsules",
        )
    return got


def drift_from_lock(packages: list[dict[str, str]], lock: Path | None = None) -> list[str]:
    """How a package list differs from a lock file (default: the capsule's in the repository), one line per package."""
    lock = lock or LOCK_FILE
    if not lock.exists():
        return []
    locked = {package["name"]: package for package in json.loads(lock.read_text())["packages"]}
    here = {package["name"]: package for package in packages}
    lines = []
    for name in sorted(locked | here):
        old, new = locked.get(name), here.get(name)
        if old is None or new is None:
            lines.append(f"{name}: {'not locked' if old is None else 'missing'}")
        elif old["version"] != new["version"]:
            lines.append(f"{name}: {new['version']} here, {old['version']} locked")
        elif old.get("sha256") != new.get("sha256"):
            lines.append(f"{name}: {new['version']} has other bytes than the locked one")
    return lines


def write_lock(capsule: Capsule) -> None:
    """Record in the lock file what this capsule contains."""
    content = {"digest": capsule.digest, "packages": capsule.manifest.packages}
    LOCK_FILE.write_text(json.dumps(content, indent=1) + "\n")


def reason_of(error: Exception) -> str:
    """The reason that an error gives, in one line."""
    if isinstance(error, ValidationError):
        return first_problem(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())


def _combined(files: Any) -> str:
    return hashlib.sha256("".join(f"{files[path]}  {path}\n" for path in sorted(files)).encode()).hexdigest()


def home() -> Path:
    """Where capsules and their add-ons are kept."""
    return paths.cache() / "capsules"


@contextmanager
def building(say: Say) -> Iterator[Path]:
    """Hold the build lock and yield a folder to build in, which is removed afterwards."""
    try:
        home().mkdir(parents=True, exist_ok=True)
        lock = (home() / ".lock").open("w")
    except OSError as error:
        raise VbenchError(
            f"cannot write to {home()}: {error.strerror}", "set VBENCH_CACHE to a folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for stale in home().glob(".build-*"):  # left by a builder that was killed
            shutil.rmtree(stale, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=".build-", dir=home()))
        # Without root, mmdebstrap reads and writes here under another user ID.
        work.chmod(0o755)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def settle(work: Path, plan: rootfs.Recipe, release: str, say: Say) -> Capsule:
    """Unpack, make the image, write the manifest, and move everything into place in one step."""
    archive = work / "rootfs.tar"
    say("unpacking it and making the disk image")
    _unpack(archive, work)
    table, files = programs.listed(plan, work / "tree")
    packages = rootfs.packages(work / "tree")
    manifest = Manifest(
        digest=rootfs.content_digest(archive),
        recipe=plan.digest(),
        image=rootfs.image_recipe(),
        kernel=release,
        packages=packages,
        drift=drift_from_lock(packages),
        mended=rootfs.mended(work / "tree"),
        programs=table,
        files=files,
    )
    (work / "capsule.json").write_text(manifest.model_dump_json(indent=1))
    folder = home() / manifest.digest[:16]
    if folder.exists():
        shutil.rmtree(folder)
    work.rename(folder)
    return Capsule(folder)


def _unpack(archive: Path, work: Path) -> None:
    """Make ``tree/`` and ``image`` from the archive.

    Without root, the image is made under fakeroot, which keeps track of owners that the tree on disk cannot
    have.
    """
    (work / "tree").mkdir()
    argv = [
        "sh",
        "-c",
        rootfs.IMAGE + _UNPACK,
        "sh",
        str(rootfs.image_mib(archive)),
        str(rootfs.EPOCH),
        rootfs.LOADER,
        rootfs.LIBRARIES[0],
    ]
    if os.geteuid() != 0:
        if shutil.which("fakeroot") is None:
            raise VbenchError("vbench runs without root, and fakeroot is not installed", "install fakeroot")
        argv = ["fakeroot", *argv]
    done = subprocess.run(argv, cwd=work, capture_output=True, check=False)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.decode(errors="replace").splitlines()[-5:])
        raise VbenchError(f"cannot unpack the capsule in {work}:\n{tail}", "is the disk full?")
