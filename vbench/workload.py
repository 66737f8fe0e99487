"""Workloads: what is run in every environment and how its output is read, one TOML file each.

A file holds argv templates, never shell text. Placeholders are substituted inside single arguments, and the
harness writes to no path that a file names. The format is described in CONTRIBUTING.md, by the models below.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from vbench.errors import UsageError, VbenchError
from vbench.paths import workload_files
from vbench.reading import Model, Output, Reading, groups
from vbench.template import Scalar, check_template, is_program, placeholders, render, unknown_name

Kind = Literal["cpu", "memory", "disk", "network", "os"]

# What the harness fills in, and where. {port} is the server's; {listen} an address of the parent's that the
# environment reaches as {peer}; {scratch} a directory on the storage that disk workloads measure.
_IN_COMMAND = frozenset({"work", "scratch", "peer", "port"})
_IN_SERVER = frozenset({"listen", "port"})
_IN_STEP = frozenset({"scratch"})

_NAME = re.compile(r"[a-z0-9-]+")
_PARAM = re.compile(r"[a-z][a-z0-9_]*")

Text = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, le=10**15)]
Template = Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]


class Metric(Reading):
    """One value of an invocation. The primary one stands for the workload in summary figures."""

    name: Text
    unit: Text
    better: Literal["higher", "lower"]
    primary: bool = False


class WorkSize(Model):
    """How much ``{work}`` asks for: calibrated per environment to take about ``target_s``, then frozen."""

    unit: Text  # what one unit of work is
    start: Count
    min: Count = 1
    max: Count
    target_s: Seconds = 0.4
    seconds: Reading | None = None  # time in the measured part, for calibration; default: guest_seconds

    @model_validator(mode="after")
    def _check(self) -> WorkSize:
        if not self.min <= self.start <= self.max:
            raise ValueError("needs min <= start <= max")
        return self


class Step(Model):
    """A command run in the environment once, before or after all samples of the workload."""

    command: Template
    timeout_s: Seconds = 300.0


class Server(Model):
    """The other end, run on the parent host. It serves once its output matches ``ready``.

    A group in ``ready`` is the port that it chose; without one, the harness picks ``{port}`` beforehand.
    """

    command: Template
    ready: Text
    timeout_s: Seconds = 20.0

    @model_validator(mode="after")
    def _check(self) -> Server:
        if groups(self.ready) + ("port" in placeholders(self.command)) != 1:
            raise ValueError("needs either {port} in its command or one group in ready, the port it chose")
        return self

    @property
    def picks_port(self) -> bool:
        """Whether the server picks its port, to be read with :meth:`port`."""
        return groups(self.ready) == 1

    def port(self, output: str) -> int | None:
        """The port that the server chose (0 when the harness did), or ``None`` while it is not ready."""
        match = re.search(self.ready, output, re.MULTILINE)
        if match is None:
            return None
        return int(match[1]) if self.picks_port else 0


class Workload(Model):
    """One workload. ``params`` are its placeholders with their defaults."""

    name: str
    kind: Kind
    title: Text
    about: Text  # what it measures, what it does not, which technique it exposes
    groups: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    needs: Annotated[tuple[Text, ...], Field(strict=False)] = ()  # programs besides those in the commands
    params: dict[str, Scalar] = Field(default_factory=dict)
    setup: Step | None = None
    teardown: Step | None = None
    server: Server | None = None
    command: Template
    work: WorkSize | None = None
    timeout_s: Seconds = 120.0
    metrics: Annotated[tuple[Metric, ...], Field(strict=False, min_length=1)]
    guest_seconds: Reading | None = None  # elapsed, by the environment's own clock

    @field_validator("params", mode="before")
    @classmethod
    def _plain(cls, params: object) -> object:
        for name, value in params.items() if isinstance(params, dict) else ():
            if not _PARAM.fullmatch(name) or name in _IN_COMMAND | _IN_SERVER:
                raise ValueError(f"{name!r} cannot be a parameter's name")
            if type(value) not in get_args(Scalar):
                raise ValueError(f"{name} needs a string or a number")
        return params

    @model_validator(mode="after")
    def _check(self) -> Workload:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError("metrics: two have the same name")
        if sum(metric.primary for metric in self.metrics) != 1:
            raise ValueError("metrics: exactly one needs primary = true")
        used: set[str] = set()
        for key, argv, filled in self._templates():
            if not re.fullmatch(r"@[^@].*", argv[0]):
                raise ValueError(f"{key}: begins with a program of the capsule, such as '@fio'")
            used |= check_template(key, argv, filled | set(self.params))
        if ("work" in placeholders(self.command)) != (self.work is not None):
            raise ValueError("command: {work} and the table [work] go together")
        if "port" in placeholders(self.command) and self.server is None:
            raise ValueError("command: {port} needs a [server]")
        if unused := set(self.params) - used:
            raise ValueError(f"params.{min(unused)} is used by no command")
        return self

    def _templates(self) -> Iterable[tuple[str, Template, frozenset[str]]]:
        yield "command", self.command, _IN_COMMAND
        if self.server:
            yield "server.command", self.server.command, _IN_SERVER
        for key, step in ("setup", self.setup), ("teardown", self.teardown):
            if step:
                yield f"{key}.command", step.command, _IN_STEP

    @property
    def programs(self) -> frozenset[str]:
        """Every capsule program that it runs."""
        named = (part for _, argv, _ in self._templates() for part in argv)
        return frozenset(self.needs) | {part[1:] for part in named if is_program(part)}

    @property
    def primary(self) -> Metric:
        """The metric that stands for the workload."""
        return next(metric for metric in self.metrics if metric.primary)

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides what is measured; prose and groups are left out."""
        content = self.model_dump(mode="json", by_alias=True, exclude={"title", "about", "groups"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def with_params(self, changes: Mapping[str, Scalar]) -> Workload:
        """The same workload with other parameters; ``UsageError`` for an unknown one or another type."""
        for name, value in changes.items():
            if name not in self.params:
                raise UsageError(f"workload {self.name}: {unknown_name('parameter', name, self.params)}")
            if type(value) is not type(self.params[name]):
                wanted = type(self.params[name]).__name__
                raise UsageError(f"workload {self.name}: parameter {name} is {value!r}, not of type {wanted}")
        return self.model_copy(update={"params": {**self.params, **changes}})

    def render(
        self, argv: Sequence[str], program: Callable[[str], Sequence[str]], **values: str | int
    ) -> list[str]:
        """One of its templates as an argv; ``program`` is the ``Host.program`` of where it will run."""
        try:
            return render(argv, {**self.params, **values}, program)
        except UsageError as error:
            raise UsageError(f"workload {self.name}: {error.message}", error.hint) from None

    def parse(self, stdout: bytes) -> list[tuple[Metric, float]]:
        """Every metric's value; ``VbenchError`` when one is missing or is not a finite number above 0."""
        output = Output(stdout)
        return [(metric, self._value(metric.name, metric, output)) for metric in self.metrics]

    def guest_s(self, stdout: bytes) -> float | None:
        """Seconds elapsed by the environment's own clock, or ``None`` when the tool does not tell."""
        reading = self.guest_seconds
        return self._value("guest_seconds", reading, Output(stdout)) if reading else None

    def measured_s(self, stdout: bytes) -> float | None:
        """Seconds in the measured part, for calibration: 0 when too short for the tool's clock."""
        reading = (self.work and self.work.seconds) or self.guest_seconds
        if reading is None:
            return None
        output = Output(stdout)
        too_short = re.fullmatch(r"0(\.0*)?", str(reading.find(output)))
        return 0.0 if too_short else self._value("work.seconds", reading, output)

    def _value(self, name: str, reading: Reading, output: Output) -> float:
        try:
            return reading.value(output)
        except VbenchError as error:
            raise VbenchError(f"workload {self.name}: {name}: {error.message}") from None


def calibrate(measure: Callable[[int], float], work: WorkSize) -> int:
    """The work size that takes about ``target_s``; ``measure`` gives the seconds that a size took.

    Grows geometrically until half the target is reached, so that the last step scales from a time long
    enough to trust; a machine 1000 times slower than another stops earlier, never waits 1000 times longer.
    """
    size = work.start
    while True:
        elapsed = measure(size)
        if elapsed >= work.target_s * 0.5 or size >= work.max:
            break
        growth = 10.0 if elapsed <= 0 else min(10.0, max(2.0, work.target_s / elapsed))
        size = min(work.max, math.ceil(size * growth))
    if elapsed > 0:
        size = round(size * work.target_s / elapsed)
    return max(work.min, min(work.max, size))


def load_workloads(directories: Sequence[Path] | None = None) -> dict[str, Workload]:
    """Every ``*.toml`` of the directories (default: those that come with vbench), by name, sorted."""
    found: dict[str, tuple[Path, Workload]] = {}
    for directory in [workload_files()] if directories is None else directories:
        if not directory.is_dir():
            raise UsageError(f"{directory} is not a directory of workloads")
        for path in sorted(directory.glob("*.toml")):
            if path.stem in found:
                raise UsageError(f"workload {path.stem} is defined by both {found[path.stem][0]} and {path}")
            found[path.stem] = (path, load_workload(path))
    return {name: found[name][1] for name in sorted(found)}


def load_workload(path: Path) -> Workload:
    """One workload from its file; its name is the file's. ``UsageError`` says where a file is wrong."""
    if not _NAME.fullmatch(path.stem):
        raise UsageError(f"{path}: a workload's name is made of a-z, 0-9 and '-'")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from None
    if "name" in raw:
        raise UsageError(f"{path}: the key name is not allowed: the workload is named after its file")
    try:
        return Workload(name=path.stem, **raw)
    except ValidationError as error:
        raise UsageError(f"{path}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """The first problem of a file: key path, and what is allowed there."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown_name("key", where, _keys_beside(first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    given = first["input"]
    if isinstance(given, str | int | float) and first["type"] != "value_error":
        message += f", not {given!r}"
    return f"{where}: {message}" if where else message


def _keys_beside(location: Sequence[int | str]) -> list[str]:
    """The keys allowed in the table that an unknown key was found in."""
    model: type[BaseModel] = Workload
    for part in location[:-1]:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation) or model
    return sorted(
        {field.alias or name for name, field in model.model_fields.items()}
        - ({"name"} if model is Workload else set())
    )


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
