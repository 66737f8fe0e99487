"""Verification of a bundle: every problem that can be found, each with its file and line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbench.bundle import tool_output
from vbench.bundle.journal import changed_lines, extent_of, read_lines
from vbench.bundle.migrations import costs_as_rows
from vbench.bundle.reasons import FILE, read_reasons
from vbench.bundle.samples import KEY, LATER, OLDER
from vbench.bundle.store import JOURNAL, PARQUET, RAW, RUN, RunInfo, digest_of, raw_files, read_info
from vbench.errors import BundleError, Damaged

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 20
"""How many problems of one kind are listed individually."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with a bundle: the file, the line (from 1) if it is one line, and what."""

    file: str
    line: int | None
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"{self.text:.1000}")  # it may quote something endless

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f':{self.line}'}: {self.text}"


def examine(folder: Path) -> list[Problem]:
    """Everything wrong with the bundle in ``folder``; an empty list if nothing is.

    Checks the schema of ``run.json``; the seal and columns of every journal line, and the seal of the whole
    journal; that each sample belongs to this run and occurs once, with one work size per cell; that no planned
    invocation is missing, except for recorded failures; that ``samples.parquet`` equals the journal; and that the
    tools' output matches its digests and has a line for every invocation.
    """
    try:
        info = read_info(folder)
    except BundleError as error:
        return [_problem(folder, error)]
    found = []
    if info.status != "complete":
        found.append(Problem(RUN, None, f"the run is {info.status}: finish it with vbench resume {folder}"))
    try:
        found += _few(_journal(folder, info))
        lines = read_lines(folder / JOURNAL, _whole_size(folder / JOURNAL, info))
    except (BundleError, OSError) as error:
        return [*found, _problem(folder / JOURNAL, error)]
    rows = costs_as_rows(lines)
    samples = rows.to_pandas()
    found += _few(_samples(samples[: lines.num_rows], info))
    if info.status == "complete":
        found += _few(_completeness(samples[samples["side"] == "workload"], info))
        found += _parquet(folder, lines, rows)
    return found + _few(_raw(folder, info, samples)) + _reasons(folder)


def _reasons(folder: Path) -> list[Problem]:
    try:
        read_reasons(folder)
    except BundleError as error:
        return [_problem(folder / FILE, error)]
    return []


def _problem(path: Path, error: Exception) -> Problem:
    """Turn an error in one of the bundle's files into a problem."""
    if isinstance(error, Damaged):
        return Problem(error.path.name, error.line, error.what)
    text = error.message if isinstance(error, BundleError) else str(getattr(error, "strerror", "") or error)
    return Problem(path.name, None, text)


def _few(problems: Iterator[Problem]) -> list[Problem]:
    shown: list[Problem] = []
    more = 0
    for problem in problems:
        if len(shown) < _SHOWN:
            shown.append(problem)
        else:
            more += 1
    return [*shown, Problem(shown[-1].file, None, f"and {more} more such problems")] if more else shown


def _whole_size(path: Path, info: RunInfo) -> int:
    """Bytes of the journal, without the torn tail that an unfinished run may have."""
    return path.stat().st_size if info.journal else extent_of(path).size


def _journal(folder: Path, info: RunInfo) -> Iterator[Problem]:
    path = folder / JOURNAL
    if not path.exists():
        raise BundleError(f"{path} is missing")
    if info.journal is None:
        if info.status == "complete":
            yield Problem(RUN, None, "the run is complete, but its journal was not sealed")
        if torn := extent_of(path).torn:
            yield Problem(
                JOURNAL, None, f"the last {torn} bytes are an unfinished sample, which resuming drops"
            )
        return
    if digest_of(path) == info.journal.sha256:
        return
    wrong = 0
    for wrong, number in enumerate(changed_lines(path), 1):  # noqa: B007
        yield Problem(
            JOURNAL, number, "the line was changed, or one before it added or removed, after it was written"
        )
    with path.open("rb") as file:
        rows = sum(1 for _ in file)
    if rows != info.journal.rows:
        yield Problem(
            JOURNAL, rows, f"the journal ends here with {rows} samples, {RUN} says {info.journal.rows}"
        )
    elif not wrong:
        yield Problem(
            JOURNAL, None, f"every line fits its seal, but the whole is not what {RUN} says was sealed"
        )


def _samples(samples: pd.DataFrame, info: RunInfo) -> Iterator[Problem]:
    known = {
        "run": ({info.id}, "of another run"),
        "stack": ({*info.techniques}, "of a stack that the run does not have"),
        "workload": ({*info.workloads}, "of a workload that the run does not have"),
    }
    for column, (allowed, meaning) in known.items():
        for index in samples.index[~samples[column].isin(allowed)]:
            yield Problem(JOURNAL, int(index) + 1, f"the sample is {meaning}: {samples[column][index]!r:.80}")
    twice = samples[~samples["warmup"]].duplicated(KEY)
    for index in twice.index[twice]:
        yield Problem(JOURNAL, int(index) + 1, "the sample is in the journal twice")
    first = samples.groupby(["stack", "workload"])["work"].transform("first")
    for index in samples.index[samples["work"] != first]:
        yield Problem(
            JOURNAL,
            int(index) + 1,
            f"work size {samples['work'][index]}, in this cell until then {first[index]}",
        )


def _completeness(samples: pd.DataFrame, info: RunInfo) -> Iterator[Problem]:
    """Planned cells that lack an invocation and have no recorded failure to explain it."""
    failed = {(failure.stack, failure.workload) for failure in info.failures}
    measured = samples[~samples["warmup"]]
    baselines = {*measured.loc[measured["baseline"] != measured["stack"], "baseline"]}
    blocks = _blocks(info)
    have: dict[Any, set[int]] = {
        names: {*part} for names, part in measured.groupby(["stack", "workload", "arm"])["block"]
    }
    for stack in info.techniques:
        for workload in info.workloads:
            if (stack, None) in failed or (stack, workload) in failed:
                continue
            for arm in ("A", "A'") if stack in baselines else ("A",):
                done = have.get((stack, workload, arm), set())
                if missing := sorted({*range(blocks)} - done):
                    which = f"{len(missing)} of {blocks} blocks, the first is block {missing[0]}"
                    yield Problem(JOURNAL, None, f"{workload} in {stack}, arm {arm}, lacks {which}")
    primary = measured["workload"].map(info.primary)
    by = ["stack", "workload", "block", "arm"]
    has = (measured["metric"] == primary).groupby([measured[name] for name in by]).any()
    for names in has.index[~has]:
        cell = dict(zip(by, names, strict=True))
        text = f"{cell['workload']} in {cell['stack']}, block {cell['block']}, arm {cell['arm']}"
        yield Problem(JOURNAL, None, f"{text}, lacks its primary metric")


def _blocks(info: RunInfo) -> int:
    blocks: Any = info.plan.get("blocks")
    return blocks if type(blocks) is int and 0 <= blocks <= 10_000 else 0


def _parquet(folder: Path, lines: Any, rows: Any) -> Iterator[Problem]:
    """Compare ``samples.parquet`` with the journal, given as its ``lines`` and as the samples (``rows``) in them.

    A run finished by an older version has a table of the lines instead.
    """
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    path = folder / PARQUET
    if not path.is_file():
        yield Problem(PARQUET, None, "it is missing")
        return
    try:
        file = pq.ParquetFile(path)
        if "side" not in file.schema_arrow.names and lines["side"].null_count == len(lines):
            rows = _older(lines, file.schema_arrow.names)
        count = file.metadata.num_rows
        table = pq.read_table(path, partitioning=None) if count == rows.num_rows else None
        if table is not None:
            table.validate(full=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        yield Problem(PARQUET, None, f"it cannot be read: {str(error).splitlines()[0][:200]}")
        return
    if table is None:
        yield Problem(PARQUET, None, f"{count} rows, the journal has {rows.num_rows}")
        return
    if table.column_names != rows.column_names:
        odd = ", ".join(sorted({*table.column_names} ^ {*rows.column_names})) or "their order"
        yield Problem(PARQUET, None, f"its columns are not those of the journal: {odd:.200}")
        return
    for name in rows.column_names:
        ours, theirs = rows[name].to_pylist(), table[name].to_pylist()
        if ours != theirs:
            number = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
            text = (
                f"row {number + 1}, {name}: {theirs[number]!r:.80} where the journal has {ours[number]!r:.80}"
            )
            yield Problem(PARQUET, None, text)


def _older(lines: Any, names: list[str]) -> Any:
    """Lines up to schema 3, in the form of the table that was written with them; ``names``: that table's columns.

    Columns added later are unknown throughout in the oldest runs, and their tables lack them.
    """
    lacking = {*LATER} - {*names}
    known = not all(lines[name].null_count == len(lines) for name in lacking)
    return lines.select([name for name in OLDER if known or name not in lacking])


def _raw(folder: Path, info: RunInfo, samples: pd.DataFrame) -> Iterator[Problem]:
    here = {path.name: path for path in raw_files(folder)}
    for name in sorted(info.raw.keys() - here.keys()):
        yield Problem(f"{RAW}/{name}", None, "it is missing")
    for name, path in here.items():
        try:
            if name in info.raw and digest_of(path) != info.raw[name]:
                yield Problem(f"{RAW}/{name}", None, f"it was changed: its digest is not what {RUN} says")
        except OSError as error:
            yield Problem(f"{RAW}/{name}", None, f"it cannot be read: {error.strerror or error}")
    if not here:
        return  # the bundle predates kept tool output, or was not made by a run
    for cell, part in samples.groupby(["stack", "workload"]):
        path = tool_output.file_of(folder, cell)  # type: ignore[arg-type]
        where = f"{RAW}/{path.name}"
        if path.name not in here:
            if path.name not in info.raw:
                yield Problem(where, None, "it is missing")
            continue
        try:
            told = {*tool_output.invocations(path)}
        except (BundleError, OSError) as error:
            problem = _problem(path, error)
            yield Problem(where, problem.line, problem.text)
            continue
        wanted = {*part[["block", "arm", "warmup"]].itertuples(index=False, name=None)}
        if lacking := sorted(wanted - told):
            block, arm, _ = lacking[0]
            yield Problem(
                where, None, f"no output of {len(lacking)} invocations, the first is block {block}, arm {arm}"
            )
