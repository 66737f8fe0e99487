"""Writing down what a run finds, from one thread or several."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from vbench.bundle import tool_output
from vbench.bundle.samples import canonical, problem, samples_of
from vbench.bundle.store import JOURNAL, Bundle, Failure, Note
from vbench.errors import BundleError
from vbench.harness.invoke import Environment, Invocation
from vbench.harness.plan import Step
from vbench.layers.stack import Stack
from vbench.observe import fairness, noise
from vbench.workload.model import Workload


class Watcher(Protocol):
    """Told what a run is doing. All methods return at once."""

    def say(self, text: str) -> None:
        """One line worth keeping."""

    def doing(self, text: str, done: int, total: int, remaining_s: float | None) -> None:
        """What runs now; ``remaining_s`` from what invocations really took, ``None`` while unknown."""


class Recorder:
    """The bundle of a run in progress, safe to use from the threads that measure side by side.

    ``total`` is the number of invocations planned; ``left`` says of each lane, by name, how many seconds it
    still needs, ``at_once`` how many of them run side by side.
    """

    def __init__(self, bundle: Bundle, watch: Watcher, total: int) -> None:
        self._bundle, self._watch = bundle, watch
        self._lock = threading.RLock()
        self.folder = bundle.path
        self._noise: noise.Watch | None = None
        self._noted: list[Note] = []
        self._block = 0
        tool_output.mend(self.folder)
        rows = self._rows()
        measured = [row for row in rows if not row["warmup"]]
        self.measured = {(row["block"], row["workload"], row["stack"], row["arm"]) for row in measured}
        self.sizes = {(row["stack"], row["workload"]): row["work"] for row in rows if row["warmup"]}
        self.given: Mapping[tuple[str, str], int] = {}  # sizes that an earlier run settled, to be repeated
        self.total, self._done = total, len(self.measured)
        self.left: dict[str, float | None] = {}
        self.at_once = 1
        self.enough: Callable[[int], bool] = lambda block: False  # whether a run may end before a block

    def _rows(self) -> list[dict[str, Any]]:
        """The rows so far. Raises BundleError for what only somebody else can have put there."""
        path = self.folder / JOURNAL
        with path.open() as journal:
            rows = [json.loads(line) for line in journal]
        for number, row in enumerate(rows, 1):
            if wrong := problem(row):
                raise BundleError(f"{path}:{number}: the line {wrong}")
            if row["run"] != self._bundle.info.id:
                raise BundleError(f"{path}:{number}: the sample is of another run, {row['run']!r:.80}")
        return rows

    def doing(self, text: str, lane: str, left: float | None = None) -> None:
        """Tell the watcher what a lane does now, and how long the whole run still takes by what is known."""
        with self._lock:
            self.left[lane] = left
            known = [seconds for seconds in self.left.values() if seconds is not None]
            whole = max([*known, sum(known) / self.at_once]) if len(known) == len(self.left) else left
            self._watch.doing(text, self._done, self.total, whole)

    def finished(self, lane: str) -> None:
        """A lane has nothing more to do."""
        with self._lock:
            self.left[lane] = 0.0
            if self._noise is not None:  # only the wall clock's lane has it watched, and is measured alone
                self._note_noise(self._noise)
                self._noise = None

    def opened(self, stack: Stack, known: Mapping[str, Any]) -> None:
        """Facts of an environment that is open; what a resumed run lost before is noted as opened anew."""
        info, path = self._bundle.info, stack.path
        with self._lock:
            info.hosts[path] = {**info.hosts.get(path, {}), **known}
            earlier = [failure for failure in info.failures if failure.stack == path and not failure.workload]
            for failure in earlier:
                info.failures.remove(failure)
                text = f"it was opened anew when the run was resumed, because {failure.reason}"
                info.notes.append(Note(severity="warning", stacks=[path], text=text))
            self._bundle.save()

    def settled(self, stack: Stack, workload: str, work: int | None) -> None:
        """The frozen work size of a cell."""
        with self._lock:
            self._bundle.info.hosts[stack.path].setdefault("work", {})[workload] = work

    def compare_traits(self) -> None:
        """Note where stacks are not treated as their baseline is, beside the workloads that this touches."""
        info = self._bundle.info
        with self._lock:
            for path in info.hosts:
                base = Stack.parse(path).baseline()
                if base is None or base.path not in info.hosts:
                    continue
                pair = {path: info.hosts[path], base.path: info.hosts[base.path]}
                for found in fairness.unequal(pair, base.path):
                    touched = [name for name, each in info.workloads.items() if each.kind in found.kinds]
                    if touched or not found.kinds:
                        self.note(found.severity, found.stack, found.text, touched)

    def note(self, severity: Any, stack: str, text: str, workloads: Sequence[str] = ()) -> None:
        """A finding on fairness or noise, once."""
        with self._lock:
            note = Note(severity=severity, stacks=[stack], workloads=list(workloads), text=text)
            if note not in self._bundle.info.notes:
                self._bundle.info.notes.append(note)
                self._bundle.save()

    def _look(self, block: int) -> None:
        """Watch this machine from the first sample by the wall clock on, and look after each block."""
        if self._noise is None:
            self._noise = noise.Watch()
        elif block != self._block:
            self._note_noise(self._noise)
        self._block = block

    def _note_noise(self, watch: noise.Watch) -> None:
        """What has disturbed the run so far takes the place of what was noted of it before."""
        info = self._bundle.info
        stacks = [path for path in info.hosts if Stack.parse(path).clock() == "wall"]
        noted = [Note(severity=severity, stacks=stacks, text=text) for severity, text in watch.look()]
        if noted != self._noted:
            info.notes = [note for note in info.notes if note not in self._noted] + noted
            self._noted = noted
            self._bundle.save()

    def failure(self, stack: Stack, workload: str | None, stage: str, error: Exception) -> None:
        """A stack or a cell that could not be measured; the run goes on without it."""
        what = f"{stack.path}: {workload}" if workload else stack.path
        with self._lock:
            self._watch.say(f"{what} is left out, because {error}")
            self._bundle.info.failures = [
                known
                for known in self._bundle.info.failures
                if (known.stack, known.workload) != (stack.path, workload)
            ]
            self._bundle.info.failures.append(
                Failure(stack=stack.path, workload=workload, stage=stage, reason=str(error))
            )
            self._bundle.save()

    def has_failed(self, stack: Stack, workload: str) -> bool:
        """Whether a cell was given up, in this run or before it was interrupted."""
        return any((f.stack, f.workload) == (stack.path, workload) for f in self._bundle.info.failures)

    def sample(
        self, env: Environment, workload: Workload, step: Step, once: Invocation, *, warmup: bool = False
    ) -> None:
        """One invocation: all its samples at once, synced before this returns."""
        base = env.stack.baseline()
        samples = samples_of(
            [(metric.name, metric.unit, metric.better, value) for metric, value in once.values],
            asdict(once.cost),
            run=self._bundle.info.id,
            stack=step.stack,
            baseline=base.path if base else step.stack,
            workload=workload.name,
            params=canonical(workload.params),
            block=step.block,
            order=step.order,
            arm=step.arm,
            warmup=warmup,
            work=env.work[workload.name] or 1,
            clock=env.stack.clock(),
            guest_s=once.guest_s,
            parent_s=once.parent_s,
            start=once.start,
        )
        with self._lock:
            tool_output.keep(
                self.folder, (step.stack, workload.name), (step.block, step.arm, warmup), once.stdout
            )
            self._bundle.append(samples)
            self._done += not warmup
            if env.stack.clock() == "wall":
                self._look(step.block)
