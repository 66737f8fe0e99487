"""Where results live: the append-only journal and the bundle around it.

A bundle is a folder: ``run.json`` (what was planned, where, with what), ``samples.jsonl`` (the journal, the
source of truth) and, once complete, ``samples.parquet`` (the same rows, for other tools).

A journal line is one sample as a JSON object, followed by two keys of ours: ``left``, how many lines of the
same group are still to come (0 ends the group), and ``seal``, a hash over this line and the seal before it.
So a torn tail can be told from damage, and an edited, removed or moved line is found by its number. The seal
guards against accidents; it is no signature.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vbench.errors import BundleError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
RUN, JOURNAL, PARQUET = "run.json", "samples.jsonl", "samples.parquet"


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


_HINTS: dict[str, Any] = get_type_hints(Sample)
COLUMNS = tuple(_HINTS)
_KEY = ["run", "stack", "workload", "params", "metric", "block", "arm"]


def canonical(params: dict[str, Any]) -> str:
    """Parameters as the one string that equal parameters share."""
    return json.dumps(params, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _problem(row: Any) -> str | None:
    """What is wrong with one decoded journal row, or None."""
    if not isinstance(row, dict):
        return "is not a JSON object"
    for name, hint in _HINTS.items():
        if name not in row:
            return f"lacks the column {name!r}"
        if wrong := _mismatch(row[name], hint):
            return f"has {name} = {row[name]!r:.80}, {wrong}"
    if row["block"] < 0:
        return f"has block = {row['block']}, below 0"
    return None if _is_canonical(row["params"]) else "has params that are not a canonical JSON object"


def _mismatch(value: Any, hint: Any) -> str | None:
    if get_origin(hint) is Literal:
        return None if value in get_args(hint) else f"not one of {', '.join(get_args(hint))}"
    if not isinstance(value, hint | int if _is_float(hint) else hint) or (type(value) is bool) > (
        hint is bool
    ):
        return f"not {getattr(hint, '__name__', hint)}"
    return "not a finite number" if isinstance(value, float) and not math.isfinite(value) else None


def _is_float(hint: Any) -> bool:
    return hint is float or float in get_args(hint)


def _is_canonical(params: str) -> bool:
    try:
        value = json.loads(params)
        return isinstance(value, dict) and canonical(value) == params
    except (ValueError, RecursionError):
        return False


# --- the journal -------------------------------------------------------------------------------------------

_GROUP_END = re.compile(rb'"left":0,"seal":"[0-9a-f]{16}"\}\n')


def _seal(before: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(before + body, digest_size=8).hexdigest().encode()


@dataclass(frozen=True, slots=True)
class _Extent:
    """The sound part of a journal: whole groups only. ``torn`` counts the bytes after it."""

    size: int = 0
    rows: int = 0
    seal: bytes = b""
    torn: int = 0


def _extent(path: Path) -> _Extent:
    """Check every seal. Raises BundleError naming the line where the journal is damaged.

    Every append is synced, so at most the last group can be torn: bad bytes with a whole group behind them
    are damage, not a power cut (a NUL tells of a page that never reached the disk).
    """
    size, seal, good = 0, b"", _Extent()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            body, _, rest = line.rpartition(b',"seal":"')
            new = _seal(seal, body)
            if rest != new + b'"}\n':
                tail = line + file.read()
                ends = len(_GROUP_END.findall(tail))
                if ends > 1 or (ends == 1 and b"\0" not in tail):
                    raise BundleError(
                        f"{path}:{number}: the journal was changed after it was written",
                        "restore the file from a copy; a line does not match its seal",
                    )
                break
            size, seal = size + len(line), new
            if body.endswith(b'"left":0'):
                good = _Extent(size, number, seal)
    return _Extent(good.size, good.rows, good.seal, path.stat().st_size - good.size)


class Journal:
    """Append-only ``samples.jsonl``; one append is one group, on disk wholly or not at all.

    Opening takes an exclusive lock and drops a torn tail; ``dropped`` counts its bytes. Raises BundleError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise BundleError(f"cannot write {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            extent = _extent(path)
            self._file.truncate(extent.size)
        except BlockingIOError:
            self._file.close()
            raise BundleError(f"{path} is being written by another vbench", "wait for it to end") from None
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
            if wrong := _problem(row):
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


# --- run.json ----------------------------------------------------------------------------------------------


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, validate_assignment=True)


class WorkloadInfo(_Model):
    """What the report needs to know about a workload. ``primary`` is the metric that stands for it."""

    digest: str
    kind: str
    title: str
    primary: str


class Failure(_Model):
    """A stack (``workload`` None) or one of its workloads that could not be measured."""

    stack: str
    workload: str | None = None
    stage: str
    reason: str


class Note(_Model):
    """A finding on fairness or noise, beside the cells it touches."""

    severity: Literal["info", "warning", "error"]
    stacks: list[str] = []
    workload: str | None = None
    text: str


class Seal(_Model):
    """What the finished journal was."""

    rows: int
    size: int
    sha256: str


class RunInfo(_Model):
    """``run.json``: everything about a run but its samples."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    created: str
    status: Literal["running", "complete", "interrupted"] = "running"
    plan: dict[str, Any] = {}
    seed: int
    capsule: dict[str, Any] = {}
    workloads: dict[str, WorkloadInfo] = {}
    hosts: dict[str, dict[str, Any]] = {}
    techniques: dict[str, str] = {}
    failures: list[Failure] = []
    notes: list[Note] = []
    versions: dict[str, str] = {}
    journal: Seal | None = None


def _read_info(folder: Path) -> RunInfo:
    path = folder / RUN
    if not path.is_file():
        raise BundleError(f"{folder} is not a result bundle: it has no {RUN}")
    try:
        raw = json.loads(path.read_bytes())
        version = raw.get("schema") if isinstance(raw, dict) else None
        if version != SCHEMA:
            raise BundleError(f"{path}: schema is {version!r}, this vbench reads {SCHEMA}")
        return RunInfo.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: {where}: {first['msg']}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {error}") from error


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Put a new file in place of ``path``: the old one or the new one is there at every moment."""
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temp)
        with temp.open("rb") as file:
            os.fsync(file.fileno())
        temp.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temp.unlink(missing_ok=True)


class Bundle:
    """A bundle being written. Change ``info``, then ``save()``; ``append()`` samples; ``finish()``."""

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path, self.info = path, info
        self.journal = Journal(path / JOURNAL)
        self.append = self.journal.append

    @classmethod
    def create(cls, path: Path | str, info: RunInfo) -> Self:
        """Begin a bundle in a new or empty-of-results folder."""
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BundleError(f"cannot create {path}: {error.strerror}") from error
        if any((path / name).exists() for name in (RUN, JOURNAL)):
            raise BundleError(f"{path} already holds a result bundle", "choose another folder")
        bundle = cls(path, info)
        bundle.save()
        return bundle

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Go on with a bundle that exists; a torn tail is dropped (see ``journal.dropped``)."""
        return cls(Path(path), _read_info(Path(path)))

    def save(self) -> None:
        """Write run.json anew, atomically."""
        text = self.info.model_dump_json(by_alias=True, indent=1)
        _replace(self.path / RUN, lambda temp: temp.write_text(text + "\n", encoding="utf-8"))

    def finish(self) -> None:
        """Write samples.parquet, seal the journal in run.json and mark the run complete."""
        import pyarrow.parquet as pq  # noqa: PLC0415  (the harness runs without it until here)

        file = self.path / JOURNAL
        with file.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        table = _table(file, file.stat().st_size)
        _replace(self.path / PARQUET, lambda temp: pq.write_table(table, temp))
        self.info.journal = Seal(rows=table.num_rows, size=file.stat().st_size, sha256=digest)
        self.info.status = "complete"
        self.save()

    def close(self) -> None:
        """Close the journal; the bundle can be opened again."""
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# --- reading -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A loaded bundle. ``samples`` has the columns of Sample, one row a sample, warm-ups included."""

    path: Path
    info: RunInfo
    samples: pd.DataFrame

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """Facts of every host, by stack."""
        return self.info.hosts

    def overheads(self, *, level: float = 0.95, threshold: float = 0.0) -> pd.DataFrame:
        """Overhead of each stack: see ``vbench.overhead.overheads``."""
        from vbench.overhead import overheads  # noqa: PLC0415  (overhead sits above store)

        kinds = {name: workload.kind for name, workload in self.info.workloads.items()}
        return overheads(self.samples, level=level, threshold=threshold, kinds=kinds)


def _table(path: Path, size: int) -> Any:
    """The first ``size`` bytes of a journal as a pyarrow table. Raises BundleError naming file and line."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.json as pj  # noqa: PLC0415

    kinds = {int: pa.int64(), bool: pa.bool_()}
    schema = pa.schema(
        [(n, pa.float64() if _is_float(hint) else kinds.get(hint, pa.string())) for n, hint in _HINTS.items()]
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
    except pa.ArrowInvalid as error:
        _complain(path, size, str(error))
    sound = (pc.min(table["block"]).as_py() or 0) >= 0
    for name, hint in _HINTS.items():
        column = table[name]
        if type(None) not in get_args(hint):
            sound &= column.null_count == 0
        if _is_float(hint):
            sound &= pc.all(pc.is_finite(column), skip_nulls=True, min_count=0).as_py()
        elif get_origin(hint) is Literal:
            sound &= {*pc.unique(column).to_pylist()} <= {*get_args(hint)}
    if not sound or not all(map(_is_canonical, pc.unique(table["params"]).to_pylist())):
        _complain(path, size, "a column is missing or of a wrong type")
    return table


def _complain(path: Path, size: int, otherwise: str) -> NoReturn:
    """Raise BundleError for the first bad line: slow, and only for a file known to be bad."""
    for number, line in enumerate(_lines(path, size), 1):
        try:
            wrong = _problem(json.loads(line))
        except (ValueError, RecursionError) as error:
            wrong = f"is not JSON: {error}"
        if wrong:
            raise BundleError(f"{path}:{number}: the line {wrong}")
    raise BundleError(f"{path}: {otherwise}")


def _lines(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            if (size := size - len(line)) < 0:
                return
            yield line


def _sound_size(path: Path, info: RunInfo, notes: list[Note]) -> int:
    """Bytes of the journal to read. A finished one must be what was sealed; a running one may have a tail."""
    if not path.is_file():
        raise BundleError(f"{path} is missing")
    if info.journal:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == info.journal.sha256:
                return info.journal.size
    extent = _extent(path)  # raises where a line does not match
    if info.journal:
        raise BundleError(
            f"{path}:{extent.rows}: the journal ends here with {extent.rows} samples, "
            f"but {RUN} says {info.journal.rows}"
        )
    if extent.torn:
        text = f"the last {extent.torn} bytes of the journal are an unfinished sample and were left out"
        notes.append(Note(severity="warning", text=text))
    return extent.size


def load(path: Path | str, *, check: bool = True) -> Run:
    """Read a bundle. Raises BundleError, naming file and line, where it is damaged.

    ``check=False`` skips the seals (not the types), for a journal changed on purpose.
    """
    folder = Path(path)
    info = _read_info(folder)
    file = folder / JOURNAL
    try:
        size = _sound_size(file, info, info.notes) if check else file.stat().st_size
        samples = _table(file, size).to_pandas()
    except OSError as error:
        raise BundleError(f"cannot read {file}: {error.strerror or error}") from error
    twice = samples.loc[~samples["warmup"], _KEY].duplicated()
    if twice.any():
        number = int(twice[twice].index[0]) + 1
        raise BundleError(f"{file}:{number}: this sample is in the journal twice")
    return Run(folder, info, samples)
