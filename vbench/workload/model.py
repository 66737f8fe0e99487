"""Workloads: what is run in every environment and how its output is read, one TOML file per workload.

A file contains argv templates, never shell text. Placeholders are substituted inside single arguments, and the
harness writes to no path that a file names. The format is described in CONTRIBUTING.md and by the models below.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PrivateAttr, field_validator, model_validator

from vbench.errors import UsageError, VbenchError
from vbench.terms import Better, Kind
from vbench.workload.calibration import Seconds, WorkSize
from vbench.workload.extract import Model, Output, Reading, groups, search
from vbench.workload.resolution import Resolution
from vbench.workload.template import Scalar, check_template, is_program, placeholders, render, unknown_name

# What the harness fills in, and where. {port} is the server's port; {listen}, an address of the parent that the
# environment reaches as {peer}; {scratch}, a directory on the storage that disk workloads measure; {tree}, the
# capsule's root tree.
_IN_COMMAND = frozenset({"work", "scratch", "tree", "peer", "port"})
_IN_SERVER = frozenset({"listen", "port", "scratch", "tree"})
_IN_STEP = frozenset({"scratch", "tree"})

# What has no effect on what is measured.
_PROSE: dict[str, Any] = {
    **dict.fromkeys(("name", "title", "about", "groups", "sweeps"), True),
    "metrics": {"__all__": {"resolution"}},
    "work": {"counted"},
}

_PARAM = re.compile(r"[a-z][a-z0-9_]*")

Text = Annotated[str, Field(min_length=1)]
Template = Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]
Values = Annotated[tuple[Scalar, ...], Field(strict=False, min_length=1)]


class Metric(Reading):
    """One value from an invocation. The primary metric represents the workload in summary figures."""

    name: Text
    unit: Text
    better: Better
    primary: bool = False
    optional: bool = False  # left out if an invocation does not report it, e.g. a cost too small to see
    resolution: Resolution | None = None  # if the tool reports more coarsely than it could


class Step(Model):
    """A command run in the environment once, before or after all samples of the workload."""

    command: Template
    timeout_s: Seconds = 300.0


class Server(Model):
    """The other end, run on the parent host or ``inside`` the environment. It is up once its output matches
    ``ready``.

    A group in ``ready`` captures the port it chose; without a group, the harness picks ``{port}`` beforehand.
    """

    command: Template
    ready: Text
    inside: bool = False
    timeout_s: Seconds = 20.0

    @model_validator(mode="after")
    def _check(self) -> Server:
        if groups(self.ready) + ("port" in placeholders(self.command)) != 1:
            raise ValueError("needs either {port} in its command or one group in ready, the port it chose")
        return self

    @property
    def picks_port(self) -> bool:
        """Whether the server picks its own port; :meth:`port` then reads it."""
        return groups(self.ready) == 1

    def port(self, output: str) -> int | None:
        """The port that the server chose (0 if the harness did), or ``None`` while it is not ready."""
        found = search(self.ready, output)
        if found is None:
            return None
        return _port(found[0]) if self.picks_port else 0


class Cycle(Model):
    """What is done with a separate environment, opened for this purpose by ``vbench.harness.lifecycle``."""

    do: Literal["start", "restart", "idle"]
    seconds: Seconds = 5.0  # how long an idle environment is watched


def _port(text: str) -> int:
    """A port that a program printed; ``VbenchError`` if it is not one."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise VbenchError(f"{text[:60]!r} is not a port")
    return int(text)


class Workload(Model):
    """One workload. ``params`` are its placeholders with their defaults.

    ``sweeps`` gives the parameter values that it takes in a group, instead of the defaults.
    """

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
    cycle: Cycle | None = None
    sweeps: dict[str, dict[str, Values]] = Field(default_factory=dict)
    work: WorkSize | None = None
    timeout_s: Seconds = 120.0
    metrics: Annotated[tuple[Metric, ...], Field(strict=False, min_length=1)]
    guest_seconds: Reading | None = None  # elapsed, by the environment's own clock
    _defaults: dict[str, Scalar] = PrivateAttr(default_factory=dict)

    @field_validator("params", mode="before")
    @classmethod
    def _plain(cls, params: object) -> object:
        for name, value in params.items() if isinstance(params, dict) else ():
            if not _PARAM.fullmatch(name) or name in _IN_COMMAND | _IN_SERVER:
                raise ValueError(f"{name!r} is not allowed as a parameter name")
            if type(value) not in get_args(Scalar):
                raise ValueError(f"{name} must be a string or a number")
        return params

    @model_validator(mode="after")
    def _check(self) -> Workload:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError("metrics: two have the same name")
        if [metric.optional for metric in self.metrics if metric.primary] != [False]:
            raise ValueError("metrics: exactly one needs primary = true, and that one cannot be optional")
        if (self.kind == "lifecycle") != (self.cycle is not None):
            raise ValueError("kind: 'lifecycle' and the table [cycle] go together")
        if lost := set(self.sweeps) - set(self.groups):
            raise ValueError(f"sweeps.{min(lost)}: it is not one of its groups")
        used: set[str] = set()
        for key, argv, filled in self._templates():
            if not re.fullmatch(r"@[^@].*", argv[0]):
                raise ValueError(f"{key}: must begin with a capsule program, such as '@fio'")
            used |= check_template(key, argv, filled | set(self.params))
        if ("work" in placeholders(self.command)) != (self.work is not None):
            raise ValueError("command: {work} and the table [work] go together")
        if "port" in placeholders(self.command) and self.server is None:
            raise ValueError("command: {port} needs a [server]")
        if unused := set(self.params) - used:
            raise ValueError(f"params.{min(unused)} is not used in any command")
        for group, sweep in self.sweeps.items():
            for name, values in sweep.items():
                if name not in self.params or any(type(v) is not type(self.params[name]) for v in values):
                    raise ValueError(f"sweeps.{group}.{name}: must be a parameter, with values of its type")
        return self

    def model_post_init(self, _: object, /) -> None:
        """Keep the defaults, from which a variant's name is derived."""
        self._defaults = dict(self.params)

    def _templates(self) -> Iterable[tuple[str, Template, frozenset[str]]]:
        yield "command", self.command, _IN_COMMAND
        if self.server:
            yield "server.command", self.server.command, _IN_SERVER
        for key, step in ("setup", self.setup), ("teardown", self.teardown):
            if step:
                yield f"{key}.command", step.command, _IN_STEP

    @property
    def programs(self) -> frozenset[str]:
        """Every capsule program that this workload runs."""
        named = (part for _, argv, _ in self._templates() for part in argv)
        return frozenset(self.needs) | {part[1:] for part in named if is_program(part)}

    @property
    def primary(self) -> Metric:
        """The metric that represents the workload."""
        return next(metric for metric in self.metrics if metric.primary)

    @property
    def talks_to_peer(self) -> bool:
        """Whether its other end runs outside the environment, so that its figures depend on where that is."""
        return self.server is not None and not self.server.inside

    @property
    def stores(self) -> bool:
        """Whether it uses scratch storage, so that something of it may wait to be written."""
        return any("scratch" in placeholders(argv) for _, argv, _ in self._templates())

    @property
    def warms_up(self) -> bool:
        """Whether an invocation does its work once before it measures: our probe does, and no other program."""
        return self.command[0] == "@vbench-probe"

    @property
    def digest(self) -> str:
        """SHA-256 over everything that determines what is measured; names, prose and groups are left out."""
        content = self.model_dump(mode="json", by_alias=True, exclude=_PROSE)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def with_params(self, changes: Mapping[str, Scalar]) -> Workload:
        """The same workload with other parameters, shown in its name: ``mem-latency:kib=64``.

        Raises ``UsageError`` for an unknown parameter or one of another type.
        """
        for name, value in changes.items():
            if name not in self.params:
                raise UsageError(f"workload {self.name}: {unknown_name('parameter', name, self.params)}")
            if type(value) is not type(self.params[name]):
                wanted = type(self.params[name]).__name__
                raise UsageError(f"workload {self.name}: parameter {name} is {value!r}, not of type {wanted}")
        values = {**self.params, **changes}
        base = self.name.partition(":")[0]
        apart = ",".join(f"{name}={value}" for name, value in values.items() if value != self._defaults[name])
        changed = self.model_copy(update={"params": values, "name": f"{base}:{apart}" if apart else base})
        changed._defaults = self._defaults
        return changed

    def variant(self, text: str) -> Workload:
        """The same workload with the parameters of ``kib=64,stride=4096``; ``UsageError`` as above."""
        changes: dict[str, Scalar] = {}
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if not equals:
                raise UsageError(f"{self.name}:{text}: write {self.name}:PARAMETER=VALUE,...")
            kind = type(self.params.get(name, ""))
            try:
                changes[name] = kind(value)
            except ValueError:
                raise UsageError(
                    f"workload {self.name}: parameter {name} is {value!r}, not of type {kind.__name__}"
                ) from None
        return self.with_params(changes)

    def sweep(self, values: Mapping[str, Sequence[Scalar]]) -> list[Workload]:
        """This workload with every combination of the given parameter values; ``UsageError`` as above."""
        if math.prod(len(each) for each in values.values()) > 1000:
            raise UsageError(f"workload {self.name}: the sweep has more than 1000 combinations")
        return [
            self.with_params(dict(zip(values, each, strict=True)))
            for each in itertools.product(*values.values())
        ]

    def render(
        self, argv: Sequence[str], program: Callable[[str], Sequence[str]], **values: str | int
    ) -> list[str]:
        """One of its templates as an argv; ``program`` is ``Host.program`` of the host where it will run."""
        try:
            return render(argv, {**self.params, **values}, program)
        except UsageError as error:
            raise UsageError(f"workload {self.name}: {error.message}", error.hint) from None

    def parse(self, stdout: bytes) -> list[tuple[Metric, float]]:
        """Every metric's value; ``VbenchError`` if one is missing or is not a finite number above 0.

        An optional metric is left out instead.
        """
        output = Output(stdout)
        found = []
        for metric in self.metrics:
            with contextlib.suppress(*([VbenchError] if metric.optional else [])):
                found.append((metric, self._value(metric.name, metric, output)))
        return found

    def guest_s(self, stdout: bytes) -> float | None:
        """Seconds elapsed by the environment's own clock, or ``None`` if the tool does not report them."""
        reading = self.guest_seconds
        return self._value("guest_seconds", reading, Output(stdout)) if reading else None

    def measured_s(self, stdout: bytes) -> float | None:
        """Seconds in the measured part, for calibration; 0 if too short for the tool's clock."""
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
