"""Reading and writing a result bundle: run.json, and the files around the journal.

A bundle is a folder: ``run.json`` (what was planned, where it ran and with what), ``samples.jsonl`` (the journal,
the source of truth) and, once the run is complete, ``samples.parquet`` (the samples as a table, for other tools).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vbench.bundle.journal import Journal, extent_of, read_table
from vbench.bundle.migrations import migrate
from vbench.bundle.samples import KEY
from vbench.errors import BundleError, Damaged
from vbench.files import open_inside, read_bounded, remove_drafts, replace, sync_folder
from vbench.technique import Picture
from vbench.workload.resolution import Resolution

if TYPE_CHECKING:
    import pandas as pd

RUN, JOURNAL, PARQUET, RAW = "run.json", "samples.jsonl", "samples.parquet", "raw"
_RUN_LIMIT = 64 << 20


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, validate_assignment=True)


class WorkloadInfo(_Model):
    """What the report needs to know about a workload.

    ``primary``: the metric that represents it. ``talks_to_peer``: its other end runs outside the environment.
    ``resolutions``: by metric, how finely it is read, where the tool reports less precisely than it could.
    """

    digest: str
    kind: str
    title: str
    primary: str
    talks_to_peer: bool = False
    resolutions: dict[str, Resolution] = {}


class Failure(_Model):
    """A stack (``workload`` None) or one of its workloads that could not be measured."""

    stack: str
    workload: str | None = None
    stage: str
    reason: str

    @property
    def planned(self) -> bool:
        """Whether the plan left it out on purpose, so that there is nothing to retry."""
        return self.stage == "plan"


class Note(_Model):
    """A finding about fairness or noise, and the cells it affects; an empty list means all of them."""

    severity: Literal["info", "warning", "error"]
    stacks: list[str] = []
    workloads: list[str] = []
    text: str


class Seal(_Model):
    """Rows, size in bytes and digest of the finished journal."""

    rows: int
    size: int
    sha256: str


class RunInfo(_Model):
    """``run.json``: everything about a run except its samples."""

    schema_version: Literal[4] = Field(default=4, alias="schema")
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    created: str
    status: Literal["running", "complete", "interrupted"] = "running"
    plan: dict[str, Any] = {}
    seed: int
    capsule: dict[str, Any] = {}
    workloads: dict[str, WorkloadInfo] = {}
    hosts: dict[str, dict[str, Any]] = {}
    techniques: dict[str, str] = {}
    pictures: dict[str, Picture] = {}  # by layer name, so that it can be drawn where it is not installed
    failures: list[Failure] = []
    notes: list[Note] = []
    versions: dict[str, str] = {}
    tools: dict[str, str] = {}  # Debian packages of the capsule and their versions
    journal: Seal | None = None
    raw: dict[str, str] = {}  # SHA-256 of each tool output file, by name, once complete

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if any(not isinstance(known.get("work", {}), dict) for known in self.hosts.values()):
            raise ValueError("hosts: work is not a table of work sizes")
        if any(not isinstance(known.get("took_s", {}), dict) for known in self.hosts.values()):
            raise ValueError("hosts: took_s is not a table of seconds")
        return self

    @property
    def primary(self) -> dict[str, str]:
        """The primary metric of each workload."""
        return {name: each.primary for name, each in self.workloads.items()}


def read_info(folder: Path) -> RunInfo:
    """Read a bundle's ``run.json``, of this or an older schema. Raises BundleError naming the invalid key."""
    path = folder / RUN
    if not path.is_file():
        raise BundleError(f"{folder} is not a result bundle: it has no {RUN}")
    try:
        raw = json.loads(read_bounded(path, _RUN_LIMIT))
        json.dumps(raw, ensure_ascii=False).encode()  # a lone surrogate could never be written out again
        return RunInfo.model_validate(migrate(raw, path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        raise Damaged(path, None, f"{where + ': ' if where else ''}{first['msg']}") from error
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise Damaged(path, None, f"it is not JSON: {str(error)[:200]}") from error


def _put(path: Path, write: Callable[[Path], object]) -> None:
    try:
        replace(path, write)
    except OSError as error:
        hint = "make room, then: vbench resume" if error.errno == errno.ENOSPC else None
        raise BundleError(f"cannot write {path}: {error.strerror or error}", hint) from error


def digest_of(path: Path) -> str:
    """SHA-256 of a bundle's file. Raises ``OSError``."""
    with open_inside(path, os.O_RDONLY) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Bundle:
    """A bundle being written: change ``info``, then ``save()``; ``append()`` samples; ``finish()``."""

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path, self.info = path, info
        self.journal = Journal(path / JOURNAL)
        self.append = self.journal.append
        remove_drafts(path, RUN, PARQUET)  # safe: we hold the journal's lock, so nobody is writing them

    @classmethod
    def create(cls, path: Path | str, info: RunInfo) -> Self:
        """Create a bundle in a new folder, or in one that holds no results. Raises BundleError."""
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            sync_folder(path.parent)
        except OSError as error:
            raise BundleError(f"cannot create {path}: {error.strerror}") from error
        journal = path / JOURNAL
        # A process killed here leaves an empty journal and nothing else.
        if (path / RUN).exists() or (journal.exists() and journal.stat().st_size > 0):
            raise BundleError(f"{path} already holds a result bundle", "choose another folder")
        bundle = cls(path, info)
        try:
            bundle.save()
        except BundleError:
            bundle.close()
            (path / JOURNAL).unlink(missing_ok=True)  # otherwise the folder would count as taken
            raise
        return bundle

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open an existing bundle for appending; a torn tail is dropped (see ``journal.dropped``)."""
        path = Path(path)
        read_info(path)  # first, so that no journal is created in a folder without a bundle
        bundle = cls(path, RunInfo(id="unread", created="", seed=0))
        try:
            bundle.info = read_info(path)  # the previous holder of the lock may have changed it
        except BaseException:
            bundle.close()
            raise
        return bundle

    def save(self) -> None:
        """Rewrite run.json atomically."""
        text = self.info.model_dump_json(by_alias=True, indent=1)
        _put(self.path / RUN, lambda temp: temp.write_text(text + "\n", encoding="utf-8"))

    def finish(self) -> None:
        """Write samples.parquet, seal the journal in run.json and mark the run complete."""
        import pyarrow.parquet as pq  # noqa: PLC0415  (the harness runs without it until here)

        file = self.path / JOURNAL
        table = read_table(file, file.stat().st_size)
        _put(self.path / PARQUET, lambda temp: pq.write_table(table, temp))
        try:
            self.info.raw = {path.name: digest_of(path) for path in raw_files(self.path)}
            digest = digest_of(file)
        except OSError as error:
            raise BundleError(f"cannot read {self.path}: {error.strerror or error}") from error
        self.info.journal = Seal(rows=self.journal.rows, size=file.stat().st_size, sha256=digest)
        self.info.status = "complete"
        self.save()

    def reopen(self) -> None:
        """Reopen a complete run so that what failed in it is retried; existing samples stay."""
        info = self.info
        for failure in [each for each in info.failures if each.workload and not each.planned]:
            info.failures.remove(failure)
            text = f"it was tried anew when the run was taken up again, because {failure.reason}"
            touched = [failure.workload] if failure.workload else []
            info.notes.append(Note(severity="warning", stacks=[failure.stack], workloads=touched, text=text))
        info.status, info.journal, info.raw = "interrupted", None, {}
        self.save()

    def close(self) -> None:
        """Close the journal; the bundle can be opened again."""
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def raw_files(folder: Path) -> list[Path]:
    """The tool output files, one per cell, ignoring symlinks and anything else vbench does not put there."""
    raw = folder / RAW
    found = raw.glob("*.jsonl.gz") if raw.is_dir() and not raw.is_symlink() else ()
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _sound_size(path: Path, info: RunInfo, notes: list[Note]) -> int:
    """Bytes of the journal to read. A finished journal must match its seal; an unfinished one may have a torn tail."""
    if not path.exists():
        raise BundleError(f"{path} is missing")
    if info.journal and digest_of(path) == info.journal.sha256:
        return path.stat().st_size
    extent = extent_of(path)  # raises if a line does not match its seal
    if info.journal:
        text = f"the journal ends here with {extent.rows} samples, but {RUN} says {info.journal.rows}"
        raise Damaged(path, extent.rows, text)
    if extent.torn:
        text = f"the last {extent.torn} bytes of the journal are an unfinished sample and were left out"
        notes.append(Note(severity="warning", text=text))
    return extent.size


def read_samples(folder: Path, info: RunInfo, *, check: bool = True) -> pd.DataFrame:
    """Read a bundle's samples, one per row, with the columns of Sample; oddities are added to ``info.notes``.

    Raises BundleError, naming file and line, if the journal is damaged. ``check=False`` skips the seals (not the
    types), for a journal changed on purpose.
    """
    file = folder / JOURNAL
    try:
        size = _sound_size(file, info, info.notes) if check else file.stat().st_size
        samples: pd.DataFrame = read_table(file, size).to_pandas()
    except OSError as error:
        raise BundleError(f"cannot read {file}: {error.strerror or error}") from error
    twice = samples.loc[~samples["warmup"], KEY].duplicated()
    if twice.any():
        number = int(twice[twice].index[0]) + 1
        raise Damaged(file, number, "this sample is in the journal twice")
    return samples
