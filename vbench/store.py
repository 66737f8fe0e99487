"""Where results live: the bundle around a journal of samples.

A bundle is a folder: ``run.json`` (what was planned, where, with what), ``samples.jsonl`` (the journal, the
source of truth) and, once complete, ``samples.parquet`` (the same rows, for other tools).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vbench.errors import BundleError
from vbench.journal import KEY, Journal, extent_of, read_table

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
RUN, JOURNAL, PARQUET = "run.json", "samples.jsonl", "samples.parquet"


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
        try:
            bundle.save()
        except BundleError:
            bundle.close()
            (path / JOURNAL).unlink(missing_ok=True)  # or the folder would count as taken
            raise
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
        table = read_table(file, file.stat().st_size)
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


def _sound_size(path: Path, info: RunInfo, notes: list[Note]) -> int:
    """Bytes of the journal to read. A finished one must be what was sealed; a running one may have a tail."""
    if not path.is_file():
        raise BundleError(f"{path} is missing")
    if info.journal:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == info.journal.sha256:
                return info.journal.size
    extent = extent_of(path)  # raises where a line does not match
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
        samples = read_table(file, size).to_pandas()
    except OSError as error:
        raise BundleError(f"cannot read {file}: {error.strerror or error}") from error
    twice = samples.loc[~samples["warmup"], KEY].duplicated()
    if twice.any():
        number = int(twice[twice].index[0]) + 1
        raise BundleError(f"{file}:{number}: this sample is in the journal twice")
    return Run(folder, info, samples)
