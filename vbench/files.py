"""Reading and writing files whose folder or content may come from a stranger.

Only regular files of bounded size are read, so that nothing hangs on a pipe or fills memory. What is written
inside a folder stays in that folder: symbolic links in it are not followed.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

_DRAFT = re.compile(r"\.(.+)\.draft-[0-9a-f]{8}")


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes. Raises ``OSError`` with a readable reason."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        _require_regular(file.fileno())
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(0, f"it is larger than {limit >> 10} KiB")
    return data


def read_text(path: Path, limit: int = 1 << 20) -> str:
    """Like :func:`read_bounded`, decoded. Raises ``OSError`` or, if it is not UTF-8, ``ValueError``."""
    return read_bounded(path, limit).decode("utf-8")


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file, read like :func:`read_text`. Whatever is wrong, raises ``ValueError`` with a readable reason."""
    try:
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except RecursionError:
        raise ValueError("its tables are nested too deeply") from None


def open_inside(path: Path, flags: int) -> io.FileIO:
    """Open a regular file, unbuffered; a symbolic link is not followed. Raises ``OSError``."""
    try:
        number = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise OSError(error.errno, "it is a symbolic link") from None
        raise
    try:
        _require_regular(number)
    except BaseException:
        os.close(number)
        raise
    return io.FileIO(number, {os.O_RDONLY: "r", os.O_WRONLY: "a", os.O_RDWR: "r+"}[flags & os.O_ACCMODE])


def _require_regular(number: int) -> None:
    if not stat.S_ISREG(os.fstat(number).st_mode):
        raise OSError(0, "it is not a regular file")


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Replace ``path`` atomically: at every moment, either the old file or the new one is there.

    ``write`` is given a new, empty file next to it. A link at ``path`` is itself replaced, not followed.
    Raises ``OSError``.
    """
    draft = path.with_name(f".{path.name}.draft-{secrets.token_hex(4)}")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        write(draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def remove_drafts(folder: Path, *names: str) -> None:
    """Remove what a process left behind if it was killed while replacing files of these names."""
    with contextlib.suppress(OSError):
        for path in folder.glob(".*.draft-*"):
            match = _DRAFT.fullmatch(path.name)
            if match and match[1] in names:
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that the file names in it are as durable as the files."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def holders(path: Path) -> list[str]:
    """Who holds a lock on a file, according to the kernel: each process, with its command line if readable."""
    try:
        wanted = path.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    place = f"{os.major(wanted.st_dev):02x}:{os.minor(wanted.st_dev):02x}:{wanted.st_ino}"
    found = []
    for words in map(str.split, lines):
        if "->" not in words and place in words:
            pid = words[words.index(place) - 1]
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                found.append(f"process {pid} ({' '.join(command.split(chr(0))).strip()[:120]})")
            except OSError:
                found.append(f"process {pid}")
    return sorted(set(found))
