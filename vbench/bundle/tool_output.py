"""What the tools printed: ``raw/``, one gzip file per cell, one JSON line per invocation.

A line is written and synced before the invocation's samples, so every sample in the journal has its output here.
An invocation interrupted in between leaves a line here but no samples in the journal.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vbench.bundle.store import RAW, raw_files
from vbench.errors import BundleError, Damaged
from vbench.files import open_inside, sync_folder

_MAKE_ROOM = "make room, then: vbench resume"
_PIECE = 1 << 20
_LINE_LIMIT = 512 << 20
"""Maximum line length in bytes: 64 MiB of output, each byte of which may take six when escaped."""
_NAME_LIMIT = 200

Cell = tuple[str, str]
"""Stack and workload."""
Invocation = tuple[int, str, bool]
"""Block, arm, and whether it was a warm-up."""


def file_of(folder: Path, cell: Cell) -> Path:
    """The file for a cell's output: always directly in ``raw/``, whatever characters the names contain."""
    name = quote(f"{cell[0].replace('/', '+')}.{cell[1]}", safe="+:=,@")
    if len(name) > _NAME_LIMIT:
        name = f"{name[:_NAME_LIMIT]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return folder / RAW / f"{name}.jsonl.gz"


def keep(folder: Path, cell: Cell, once: Invocation, stdout: bytes) -> None:
    """Append a tool's output. Raises BundleError if it cannot be written; then none of it is kept."""
    block, arm, warmup = once
    line = {"block": block, "arm": arm, "warmup": warmup, "stdout": stdout.decode(errors="replace")}
    member = gzip.compress(f"{json.dumps(line)}\n".encode())
    path = file_of(folder, cell)
    try:
        if path.parent.is_symlink():
            raise OSError(0, f"{RAW} is a symbolic link")  # noqa: TRY301
        path.parent.mkdir(exist_ok=True)
        with open_inside(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
            size = os.fstat(file.fileno()).st_size
            whole = file.write(member) == len(member)
            if not whole:  # half a member would make everything after it unreadable
                file.truncate(size)
            os.fsync(file.fileno())
        if size == 0:
            sync_folder(path.parent)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror}", _MAKE_ROOM) from error
    if not whole:
        raise BundleError(f"cannot write {path}: the disk is full", _MAKE_ROOM)


def drop_torn_tails(folder: Path) -> None:
    """Truncate files that a power cut left with a half-written end, so that they can be appended to."""
    for path in raw_files(folder):
        try:
            with open_inside(path, os.O_RDWR) as file:
                good = max((end for end, _ in _members(file)), default=0)
                if good < os.fstat(file.fileno()).st_size:
                    file.truncate(good)
                    os.fsync(file.fileno())
        except OSError as error:
            raise BundleError(f"cannot repair {path}: {error.strerror}") from error


def invocations(path: Path) -> Iterator[Invocation]:
    """Yield the invocations whose output a file holds. Raises Damaged if the file is damaged."""
    size, number = path.stat().st_size, 0
    with open_inside(path, os.O_RDONLY) as file:
        end = 0
        for number, (end, text) in enumerate(_members(file), 1):  # noqa: B007
            try:
                line: Any = json.loads(text)
                once = line["block"], line["arm"], line["warmup"]
                hash(once)
            except (ValueError, KeyError, TypeError, RecursionError):
                raise Damaged(path, number, "the line is not the output of an invocation") from None
            yield once
    if end != size:
        raise Damaged(path, number + 1, f"{size - end} bytes are no whole line of output")


def read(folder: Path, cell: Cell) -> dict[Invocation, str]:
    """What a cell's invocations printed; the last one of each, if a run was cut short in between."""
    path = file_of(folder, cell)
    if not path.is_file():
        return {}
    with open_inside(path, os.O_RDONLY) as file:
        lines = [json.loads(text) for _, text in _members(file)]
    return {(line["block"], line["arm"], line["warmup"]): line["stdout"] for line in lines}


def _members(file: Any) -> Iterator[tuple[int, bytes]]:
    """Yield the complete gzip members of a file, up to the first incomplete one: end position and content."""
    position, held = 0, b""
    while True:
        inflate = zlib.decompressobj(wbits=31)
        text = bytearray()
        while not inflate.eof:
            if not held and not (held := file.read(_PIECE)):
                return
            before = len(held)
            try:
                text += inflate.decompress(held, _PIECE)
            except zlib.error:
                return
            if len(text) > _LINE_LIMIT:
                return
            held = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            position += before - len(held)
        yield position, bytes(text)
