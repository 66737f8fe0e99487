"""The append-only journal that holds the samples.

Each line is one sample as a JSON object, plus two keys of the journal's own: ``left``, the number of lines still to
come in the same group (0 ends the group), and ``seal``, a hash over this line and the previous seal. That is how a
torn tail is distinguished from damage, and how an edited, removed or moved line is found by number. The seal
protects against accidents; it is not a signature.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from vbench.bundle.migrations import costs_as_rows
from vbench.bundle.samples import COSTS, HINTS, Sample, is_canonical, is_float, problem
from vbench.errors import BundleError, Damaged
from vbench.files import holders, open_inside

_GROUP_END = re.compile(rb'"left":0,"seal":"[0-9a-f]{16}"\}\n')
_SEAL = re.compile(rb'(.*),"seal":"([0-9a-f]{16})"\}\n', re.DOTALL)
LINE_LIMIT = 1 << 20
"""Maximum line length in bytes; vbench never writes a longer one."""


def _seal(before: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(before + body, digest_size=8).hexdigest().encode()


@dataclass(frozen=True, slots=True)
class Extent:
    """The intact part of a journal: complete groups only. ``torn`` is the number of bytes after it."""

    size: int = 0
    rows: int = 0
    seal: bytes = b""
    torn: int = 0


def extent_of(path: Path) -> Extent:
    """Check every seal and return the intact part. Raises BundleError naming the damaged line.

    Every append is synced, so only the last group can be torn: bad bytes followed by a complete group are damage,
    not a power cut (a NUL byte means that a page never reached the disk).
    """
    size, seal, good = 0, b"", Extent()
    with open_inside(path, os.O_RDONLY) as raw, io.BufferedReader(raw) as file:
        for number, line in enumerate(_bounded(file), 1):
            body, _, rest = line.rpartition(b',"seal":"')
            new = _seal(seal, body)
            if rest != new + b'"}\n':
                ends, holes = 0, False
                for later in itertools.chain((line,), _bounded(file)):
                    ends += _GROUP_END.search(later) is not None
                    holes |= b"\0" in later
                if ends > 1 or (ends == 1 and not holes):
                    raise Damaged(
                        path,
                        number,
                        "the journal was changed after it was written",
                        "restore the file from a copy; a line does not match its seal",
                    )
                break
            size, seal = size + len(line), new
            if body.endswith(b'"left":0'):
                good = Extent(size, number, seal)
        return Extent(good.size, good.rows, good.seal, os.fstat(raw.fileno()).st_size - good.size)


def changed_lines(path: Path) -> Iterator[int]:
    """Yield the numbers of lines that do not match their seals, each checked against the seal in the line before.

    An edited line therefore yields one number, and a removed or inserted line shows up at the line after it.
    """
    seal = b""
    with open_inside(path, os.O_RDONLY) as raw, io.BufferedReader(raw) as file:
        for number, line in enumerate(_bounded(file), 1):
            match = _SEAL.fullmatch(line)
            if match is None or _seal(seal, match[1]) != match[2]:
                yield number
            seal = match[2] if match else b""


def _bounded(file: io.BufferedReader[Any]) -> Iterator[bytes]:
    """Yield the lines of a file, splitting any that exceed ``LINE_LIMIT``."""
    while line := file.readline(LINE_LIMIT):
        yield line


class Journal:
    """Append-only ``samples.jsonl``; each append writes one group, all or nothing.

    Opening takes an exclusive lock and drops a torn tail; ``dropped`` is its size in bytes. Raises BundleError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = open_inside(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        except OSError as error:
            raise BundleError(f"cannot write {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            extent = extent_of(path)
            self._file.truncate(extent.size)
        except BlockingIOError:
            self._file.close()
            who = "; ".join(holders(path)) or "another vbench"
            raise BundleError(f"{path} is being written by {who}", "wait for it to end") from None
        except BaseException:
            self._file.close()
            raise
        self._size, self._seal = extent.size, extent.seal
        self.rows, self.dropped = extent.rows, extent.torn

    def append(self, samples: Sequence[Sample]) -> None:
        """Write and sync one group: all samples of one invocation. On failure the journal is left as it was."""
        lines, seal = [], self._seal
        for left, sample in zip(reversed(range(len(samples))), samples, strict=True):
            row = asdict(sample)
            if wrong := problem(row):
                raise BundleError(f"a sample of {sample.stack}, {sample.workload} {wrong}")
            body = f'{json.dumps(row, separators=(",", ":"))[:-1]},"left":{left}'.encode()
            seal = _seal(seal, body)
            lines.append(body + b',"seal":"' + seal + b'"}\n')
        data = b"".join(lines)
        try:
            rest = memoryview(data)
            while rest:  # a raw write may be short
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            # Best effort: reopening the journal would drop the torn group anyway.
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
                os.fsync(self._file.fileno())
            raise BundleError(
                f"cannot write {self.path}: {error.strerror}",
                "the samples before this one are safe: make room, then `vbench resume`",
            ) from error
        self._size, self._seal, self.rows = self._size + len(data), seal, self.rows + len(samples)

    def close(self) -> None:
        """Close the file and release its lock."""
        self._file.close()


_COLUMNS: dict[str, Any] = {**HINTS, **dict.fromkeys(COSTS, float | None)}
"""The columns of current and older lines together."""


def read_table(path: Path, size: int) -> Any:
    """The samples in the first ``size`` bytes of a journal of any schema, as a pyarrow table of ``COLUMNS``.

    Samples with a line of their own come first, in file order. Raises BundleError naming file and line.
    """
    return costs_as_rows(read_lines(path, size))


def read_lines(path: Path, size: int) -> Any:
    """The unconverted lines in the first ``size`` bytes of a journal: a pyarrow table of ``COLUMNS`` and ``COSTS``.

    Older lines have no ``side``, current ones no costs. Raises BundleError naming file and line.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.json as pj  # noqa: PLC0415

    kinds = {int: pa.int64(), bool: pa.bool_()}
    schema = pa.schema(
        [
            (name, pa.float64() if is_float(hint) else kinds.get(hint, pa.string()))
            for name, hint in _COLUMNS.items()
        ]
    )
    if size == 0:
        return schema.empty_table()
    try:
        with pa.memory_map(str(path)) as file:
            table = pj.read_json(
                pa.BufferReader(file.read_buffer(size)),
                read_options=pj.ReadOptions(block_size=1 << 24),
                parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
        table.validate(full=True)  # mainly to catch text that is not UTF-8
    except pa.ArrowInvalid as error:
        _complain(path, size, str(error))
    # In a nullable column the table cannot show whether the line has the key at all; an older line must.
    older = table["side"].null_count
    sound = not older or older <= sum(line.count(b'"host_cpu_s":') for line in _lines(path, size))
    sound &= (pc.min(table["block"]).as_py() or 0) >= 0
    for name, hint in _COLUMNS.items():
        column = table[name].drop_null() if name == "side" else table[name]
        if type(None) not in get_args(hint):
            sound &= column.null_count == 0
        if is_float(hint):
            sound &= pc.all(pc.is_finite(column), skip_nulls=True, min_count=0).as_py()
        elif get_origin(hint) is Literal:
            sound &= {*pc.unique(column).to_pylist()} <= {*get_args(hint)}
    if not sound or not all(map(is_canonical, pc.unique(table["params"]).to_pylist())):
        _complain(path, size, "a column is missing or of a wrong type")
    return table


def _complain(path: Path, size: int, otherwise: str) -> NoReturn:
    """Raise Damaged for the first bad line. Slow: call it only for a file known to be bad."""
    for number, line in enumerate(_lines(path, size), 1):
        try:
            wrong = problem(json.loads(line))
        except (ValueError, RecursionError) as error:
            wrong = f"is not JSON: {error}"
        if wrong:
            raise Damaged(path, number, f"the line {wrong}")
    raise Damaged(path, None, otherwise)


def _lines(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in _bounded(file):
            if (size := size - len(line)) < 0:
                return
            yield line
