"""Samples, and the append-only journal that holds them.

A journal line is one sample as a JSON object, followed by two keys of ours: ``left``, how many lines of the
same group are still to come (0 ends the group), and ``seal``, a hash over this line and the seal before it.
So a torn tail can be told from damage, and an edited, removed or moved line is found by its number. The seal
guards against accidents; it is no signature.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import itertools
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from vbench.errors import BundleError
from vbench.files import holders, open_inside


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured value: a tidy row. Times are in seconds."""

    run: str
    stack: str  # "local/uml"
    baseline: str  # the stack that this one is held against, "local"; a baseline names itself
    workload: str
    params: str  # canonical JSON object: see canonical()
    metric: str
    unit: str
    better: Literal["higher", "lower"]
    value: float
    block: int  # from 0
    order: int  # position in the block's sequence
    arm: Literal["A", "A'"]  # A' only for the baseline's second measurement in the block
    warmup: bool
    work: int  # work size used
    clock: Literal["wall", "instructions"]  # what a second is in this environment's own clock
    guest_s: float | None  # elapsed inside, by the environment's own clock
    parent_s: float  # elapsed as the harness saw it
    host_cpu_s: float | None  # CPU seconds that the whole environment used on its host meanwhile
    rss_mib: float | None
    start: str  # ISO 8601, UTC
    # Also of the whole environment on its host; rows of older versions lack these, which means not known.
    host_switches: float | None = None  # context switches
    host_read_mib: float | None = None  # what storage did for it
    host_written_mib: float | None = None
    steal_s: float | None = None  # time that a guest's kernel waited for a processor of its host's


LATER = ("host_switches", "host_read_mib", "host_written_mib", "steal_s")
HINTS: dict[str, Any] = get_type_hints(Sample)
COLUMNS = tuple(HINTS)
KEY = ["run", "stack", "workload", "params", "metric", "block", "arm"]


def canonical(params: dict[str, Any]) -> str:
    """Parameters as the one string that equal parameters share."""
    return json.dumps(params, sort_keys=True, separators=(",", ":"), allow_nan=False)


def problem(row: Any) -> str | None:
    """What is wrong with one decoded journal row, or None."""
    if not isinstance(row, dict):
        return "is not a JSON object"
    for name, hint in HINTS.items():
        if name not in row:
            if name in LATER:
                continue
            return f"lacks the column {name!r}"
        if wrong := _mismatch(row[name], hint):
            return f"has {name} = {row[name]!r:.80}, {wrong}"
    if row["block"] < 0:
        return f"has block = {row['block']}, below 0"
    return None if is_canonical(row["params"]) else "has params that are not a canonical JSON object"


def _mismatch(value: Any, hint: Any) -> str | None:
    if get_origin(hint) is Literal:
        return None if value in get_args(hint) else f"not one of {', '.join(get_args(hint))}"
    if not isinstance(value, hint | int if is_float(hint) else hint) or (type(value) is bool) > (
        hint is bool
    ):
        return f"not {getattr(hint, '__name__', hint)}"
    return "not a finite number" if isinstance(value, float) and not math.isfinite(value) else None


def is_float(hint: Any) -> bool:
    """Whether a column holds floating-point numbers, or those and None."""
    return hint is float or float in get_args(hint)


def is_canonical(params: str) -> bool:
    """Whether ``params`` is what :func:`canonical` makes of the same parameters."""
    try:
        value = json.loads(params)
        return isinstance(value, dict) and canonical(value) == params
    except (ValueError, RecursionError):
        return False


_GROUP_END = re.compile(rb'"left":0,"seal":"[0-9a-f]{16}"\}\n')
_SEAL = re.compile(rb'(.*),"seal":"([0-9a-f]{16})"\}\n', re.DOTALL)
LINE_LIMIT = 1 << 20
"""Most bytes of a line: what is longer was not written by vbench."""


def _seal(before: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(before + body, digest_size=8).hexdigest().encode()


@dataclass(frozen=True, slots=True)
class Extent:
    """The sound part of a journal: whole groups only. ``torn`` counts the bytes after it."""

    size: int = 0
    rows: int = 0
    seal: bytes = b""
    torn: int = 0


def extent_of(path: Path) -> Extent:
    """Check every seal. Raises BundleError naming the line where the journal is damaged.

    Every append is synced, so at most the last group can be torn: bad bytes with a whole group behind them
    are damage, not a power cut (a NUL tells of a page that never reached the disk).
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
                    raise BundleError(
                        f"{path}:{number}: the journal was changed after it was written",
                        "restore the file from a copy; a line does not match its seal",
                    )
                break
            size, seal = size + len(line), new
            if body.endswith(b'"left":0'):
                good = Extent(size, number, seal)
        return Extent(good.size, good.rows, good.seal, os.fstat(raw.fileno()).st_size - good.size)


def changed_lines(path: Path) -> Iterator[int]:
    """Numbers of the lines that do not match their seals, each judged by the seal that the line before bears.

    So one edited line is one number, and a line that was taken out or put in is told by the one after it.
    """
    seal = b""
    with open_inside(path, os.O_RDONLY) as raw, io.BufferedReader(raw) as file:
        for number, line in enumerate(_bounded(file), 1):
            match = _SEAL.fullmatch(line)
            if match is None or _seal(seal, match[1]) != match[2]:
                yield number
            seal = match[2] if match else b""


def _bounded(file: io.BufferedReader[Any]) -> Iterator[bytes]:
    """The lines of a file, the overlong ones in pieces."""
    while line := file.readline(LINE_LIMIT):
        yield line


class Journal:
    """Append-only ``samples.jsonl``; one append is one group, on disk wholly or not at all.

    Opening takes an exclusive lock and drops a torn tail; ``dropped`` counts its bytes. Raises BundleError.
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
        """Write and sync one group: all metrics of one invocation. On failure the journal is as before."""
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
            # Best effort: opening the journal again would drop the torn group just as well.
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
                os.fsync(self._file.fileno())
            raise BundleError(
                f"cannot write {self.path}: {error.strerror}",
                "the samples before this one are safe: make room, then `vbench resume`",
            ) from error
        self._size, self._seal, self.rows = self._size + len(data), seal, self.rows + len(samples)

    def close(self) -> None:
        """Close the file and give up its lock."""
        self._file.close()


def read_table(path: Path, size: int) -> Any:
    """The first ``size`` bytes of a journal as a pyarrow table. Raises BundleError naming file and line."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.json as pj  # noqa: PLC0415

    kinds = {int: pa.int64(), bool: pa.bool_()}
    schema = pa.schema(
        [(n, pa.float64() if is_float(hint) else kinds.get(hint, pa.string())) for n, hint in HINTS.items()]
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
        table.validate(full=True)  # text that is no UTF-8, above all
    except pa.ArrowInvalid as error:
        _complain(path, size, str(error))
    sound = (pc.min(table["block"]).as_py() or 0) >= 0
    for name, hint in HINTS.items():
        column = table[name]
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
    """Raise BundleError for the first bad line: slow, and only for a file known to be bad."""
    for number, line in enumerate(_lines(path, size), 1):
        try:
            wrong = problem(json.loads(line))
        except (ValueError, RecursionError) as error:
            wrong = f"is not JSON: {error}"
        if wrong:
            raise BundleError(f"{path}:{number}: the line {wrong}")
    raise BundleError(f"{path}: {otherwise}")


def _lines(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in _bounded(file):
            if (size := size - len(line)) < 0:
                return
            yield line
