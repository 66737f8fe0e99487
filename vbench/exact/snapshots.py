"""Snapshots of deterministic machines: compressed in the cache, unpacked in memory while a machine lives from them.

A snapshot is a folder named after its state. It is written whole or not at all, checked against its digest whenever it
is unpacked, and removed when others have been used later and room is wanted.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vbench import paths
from vbench.errors import VbenchError
from vbench.exact.line import Reply
from vbench.exact.machine import RAM, STATE

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")

ROOM = 15 << 28
"""Bytes that all snapshots together may take."""
_TOLD, _MEMORY = "snapshot.json", "ram.z"
_DRAFT = re.compile(r"\.draft-(\d+)-.+")
_PIECE = 4 << 20
_EXTENT = struct.Struct("<QII")  # offset, bytes, bytes when compressed
_ANSWER = struct.Struct("<64sI")


@dataclass(frozen=True)
class Raw:
    """A machine's files as QEMU uses them: ``ram``, and ``state`` where it is saved."""

    folder: Path

    @property
    def ram(self) -> Path:
        """Its memory, with holes."""
        return self.folder / RAM


class Snapshots:
    """The snapshots in ``home``; those in use lie unpacked in ``memory``, a folder of this process."""

    def __init__(self, home: Path, memory: Path) -> None:
        self._home, self._memory = home, memory
        self._raw: dict[str, Raw] = {}

    def blank(self) -> Raw:
        """Room for a machine that is about to be started from power-on."""
        return Raw(Path(tempfile.mkdtemp(prefix="m", dir=self._memory)))

    def holds(self, state: str) -> bool:
        """Whether there is a snapshot of that state."""
        return state in self._raw or (self._folder(state) / _MEMORY).exists()

    def answers(self, origin: str) -> dict[str, Reply]:
        """All that machines of that origin are known to have answered, by the state that they were in then."""
        found: dict[str, Reply] = {}
        for file in self._home.glob(f"*/{_TOLD}"):
            with suppress(OSError, ValueError, KeyError, struct.error):
                told = json.loads(file.read_bytes())
                if told["origin"] == origin:
                    data = (file.parent / "answers").read_bytes()
                    if hashlib.sha256(data).hexdigest() == told["answers"]:
                        found |= dict(_answers(data))
        return found

    def raw(self, state: str) -> Raw | None:
        """The snapshot of that state, unpacked; ``None`` if it is not there, or damaged and so removed.

        Raises ``VbenchError`` if there is no room to unpack it.
        """
        if state in self._raw:
            return self._raw[state]
        folder, raw = self._folder(state), self.blank()
        try:
            told = json.loads((folder / _TOLD).read_bytes())
            os.utime(folder / _TOLD)
            if (digest := _digest(folder)) != told["digest"]:
                raise ValueError(f"its digest is {digest}, not {told['digest']}")  # noqa: TRY301
            _unpack(folder / _MEMORY, raw.ram, int(told["memory"]))
            shutil.copyfile(folder / STATE, raw.folder / STATE)
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            shutil.rmtree(raw.folder, ignore_errors=True)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise _no_room(self._memory) from error
            if not isinstance(error, FileNotFoundError):
                log.warning("snapshot %s is damaged and will be made anew: %s", folder.name, error)
            shutil.rmtree(folder, ignore_errors=True)
            return None
        self._raw[state] = raw
        return raw

    def moved(self, state: str) -> Raw | None:
        """The same for a machine that goes on from there: the files are its own from now on."""
        self.raw(state)
        return self._raw.pop(state, None)

    def keep(self, state: str, origin: str, raw: Raw, answers: Mapping[str, Reply]) -> None:
        """Take a machine's files, just saved, as the snapshot of a state, and what it has answered until then."""
        self._raw[state] = raw

        def fill(draft: Path) -> dict[str, object]:
            _pack(raw.ram, draft / _MEMORY)
            shutil.copyfile(raw.folder / STATE, draft / STATE)
            return {"memory": raw.ram.stat().st_size, "digest": _digest(draft)}

        self._publish(self._folder(state), origin, answers, fill)
        self._make_room()

    def note(self, state: str, origin: str, answers: Mapping[str, Reply]) -> None:
        """Keep answers without a snapshot."""
        self._publish(self._home / f"{state[:32]}-answers", origin, answers, lambda draft: {})

    def _folder(self, state: str) -> Path:
        return self._home / state[:32]

    def _publish(
        self,
        folder: Path,
        origin: str,
        answers: Mapping[str, Reply],
        fill: Callable[[Path], dict[str, object]],
    ) -> None:
        """Make a folder that is there whole or not at all; what cannot be kept is made anew the next time."""
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".draft-{os.getpid()}-", dir=self._home))
        except OSError as error:
            log.warning("a snapshot is not kept: %s", error)
            return
        try:
            data = b"".join(
                _ANSWER.pack(name.encode(), len(reply.encode())) + reply.encode()
                for name, reply in answers.items()
            )
            (draft / "answers").write_bytes(data)
            told = {"origin": origin, "answers": hashlib.sha256(data).hexdigest(), **fill(draft)}
            (draft / _TOLD).write_text(json.dumps(told))
            with suppress(OSError):  # somebody else has made the same
                draft.rename(folder)
        except OSError as error:
            log.warning("a snapshot is not kept: %s", error)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _make_room(self) -> None:
        found = []
        for file in self._home.glob(f"*/{_TOLD}"):
            with suppress(OSError):
                size = sum(each.stat().st_blocks * 512 for each in file.parent.iterdir())
                found.append((file.stat().st_mtime, size, file.parent))
        total = sum(size for _, size, _ in found)
        for _, size, folder in sorted(found):
            if total <= ROOM:
                break
            total -= size
            shutil.rmtree(folder, ignore_errors=True)


def remove(home: Path | None = None, *, partial_only: bool) -> list[Path]:
    """Delete drafts whose process has ended, or all snapshots; returns the folders."""
    home = home or paths.cache() / "snapshots"
    gone = []
    for folder in sorted(home.iterdir()) if home.is_dir() else ():
        match = _DRAFT.fullmatch(folder.name)
        if folder.is_dir() and (not partial_only or (match and not Path(f"/proc/{match[1]}").exists())):
            shutil.rmtree(folder, ignore_errors=True)
            gone.append(folder)
    return gone


def _no_room(folder: Path) -> VbenchError:
    return VbenchError(
        f"no room in {folder} for the testbed's memory", "free some, or measure fewer stacks at once"
    )


def _answers(data: bytes) -> Iterator[tuple[str, Reply]]:
    at = 0
    while at < len(data):
        name, size = _ANSWER.unpack_from(data, at)
        at += _ANSWER.size
        yield name.decode(), Reply.decode(data[at : at + size])
        at += size


def _pack(source: Path, target: Path) -> None:
    """Compress what is not zero in a file with holes."""
    import pyarrow  # noqa: PLC0415 - most of what opens a layer needs none

    def packed(piece: tuple[int, bytes]) -> tuple[bytes, bytes]:
        at, data = piece
        small = pyarrow.Codec("zstd", compression_level=1).compress(data, asbytes=True)
        return _EXTENT.pack(at, len(data), len(small)), small

    with target.open("wb") as out:
        for head, data in _spread(packed, _pieces(source)):
            out.write(head + data)


def _unpack(source: Path, target: Path, size: int) -> None:
    """The opposite of :func:`_pack`. Raises ``ValueError`` if the file is damaged."""
    import pyarrow  # noqa: PLC0415

    with source.open("rb") as file, target.open("wb") as out:
        out.truncate(size)

        def pieces() -> Iterator[tuple[int, int, bytes]]:
            while head := file.read(_EXTENT.size):
                at, length, packed = _EXTENT.unpack(head)
                if length > _PIECE or at + length > size:
                    raise ValueError("a piece of its memory lies outside")
                yield at, length, file.read(packed)

        def write(piece: tuple[int, int, bytes]) -> None:
            at, length, packed = piece
            try:
                os.pwrite(out.fileno(), pyarrow.decompress(packed, length, codec="zstd"), at)
            except pyarrow.ArrowException as error:
                raise ValueError(error) from error

        for _ in _spread(write, pieces()):
            pass


def _spread(do: Callable[[T], R], items: Iterator[T]) -> Iterator[R]:
    """What each item gives, in their order, on as many processors as there are; few of them are in memory at once."""
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(do, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _digest(folder: Path) -> str:
    """SHA-256 over a snapshot's files, as they lie in the cache."""
    digest = hashlib.sha256()
    for name in (_MEMORY, STATE):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    """What a file with holes holds, but for pieces of zeros."""
    with path.open("rb") as file:
        for begin, end in _extents(file.fileno()):
            for at in range(begin - begin % _PIECE, end, _PIECE):
                data = os.pread(file.fileno(), _PIECE, at)
                if data.count(0) != len(data):
                    yield at, data


def _extents(file: int) -> Iterator[tuple[int, int]]:
    """Where a file has no holes, rounded up to whole pieces."""
    end, size = 0, os.fstat(file).st_size
    while end < size:
        try:
            begin = os.lseek(file, end, os.SEEK_DATA)
        except OSError:  # a hole to the end
            return
        end = min(size, -(-os.lseek(file, begin, os.SEEK_HOLE) // _PIECE) * _PIECE)
        yield begin, end
