"""Recording workers' events in a bundle, from one thread or several."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict

from vbench.bundle import tool_output
from vbench.bundle.samples import Sample, samples_of
from vbench.bundle.store import Bundle, Failure, Note
from vbench.harness.events import Began, Event, Failed, Measured, Noted, Opened, Settled

SMALL = 100
"""Stacks up to which run.json is written at every change. It is written whole, so with more of them, only when one part
in so many has changed: otherwise the time it takes would grow with the square of their number."""
LONGEST_S = 60.0
"""Seconds that a change waits at most, while there are events."""


class Recorder:
    """A sink for events: when :meth:`take` returns, samples are in the journal and synced. Raises ``BundleError``.

    So is run.json, up to ``SMALL`` stacks. With more, facts and failures may wait in memory, for ``LONGEST_S`` or until
    the bundle is saved: a run that is killed before opens those stacks once more when it is resumed.

    It decides nothing: what to measure, when to stop and what a finding means has been settled elsewhere.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._lock = threading.RLock()
        self._topics: dict[str, tuple[Note, ...]] = {}
        self._changes, self._saved = 0, time.monotonic()

    def take(self, event: Event) -> None:
        """Record an event."""
        with self._lock:
            match event:
                case Measured():
                    self._measured(event)
                case Opened():
                    self._opened(event)
                case Settled():
                    known = self._bundle.info.hosts[event.stack]
                    known.setdefault("work", {})[event.workload] = event.work
                    if event.took_s is not None:
                        known.setdefault("took_s", {})[event.workload] = event.took_s
                case Failed():
                    self._failed(event)
                case Noted():
                    self._noted(event)
                case Began():
                    pass
            due = self._changes > len(self._bundle.info.hosts) // SMALL
            if due or (self._changes and time.monotonic() - self._saved > LONGEST_S):
                self._bundle.save()
                self._changes, self._saved = 0, time.monotonic()

    def _opened(self, event: Opened) -> None:
        """Record an environment's facts, and note it if it had been lost before the run was resumed."""
        info = self._bundle.info
        info.hosts[event.stack] = {**info.hosts.get(event.stack, {}), **event.facts}
        for failure in [each for each in info.failures if each.stack == event.stack and not each.workload]:
            info.failures.remove(failure)
            text = f"it was opened anew later, because {failure.reason}"
            info.notes.append(Note(severity="warning", stacks=[event.stack], text=text))
        self._changes += 1

    def _failed(self, event: Failed) -> None:
        info, cell = self._bundle.info, (event.stack, event.workload)
        info.failures = [known for known in info.failures if (known.stack, known.workload) != cell]
        info.failures.append(
            Failure(stack=event.stack, workload=event.workload, stage=event.stage, reason=event.reason)
        )
        self._changes += 1

    def _noted(self, event: Noted) -> None:
        info = self._bundle.info
        old = self._topics.get(event.topic, ()) if event.topic else ()
        if event.topic:
            self._topics[event.topic] = event.notes
        kept = [note for note in info.notes if note not in old]
        new = [note for note in event.notes if note not in kept]
        if new or old:
            info.notes = kept + new
            self._changes += 1

    def _measured(self, event: Measured) -> None:
        """Record an invocation: the tool's output first, then all its samples at once."""
        samples = samples_from(event, self._bundle.info.id)
        once = (event.block, event.arm, event.warmup)
        tool_output.keep(self._bundle.path, (event.stack, event.workload), once, event.stdout)
        self._bundle.append(samples)


def samples_from(event: Measured, run: str) -> list[Sample]:
    """The samples of an invocation, as a run's journal has them."""
    return samples_of(
        [(each.metric, each.unit, each.better, each.value) for each in event.values],
        asdict(event.cost),
        run=run,
        stack=event.stack,
        baseline=event.baseline,
        workload=event.workload,
        params=event.params,
        block=event.block,
        order=event.order,
        arm=event.arm,
        warmup=event.warmup,
        work=event.work,
        clock=event.clock,
        guest_s=event.guest_s,
        parent_s=event.parent_s,
        start=event.start,
    )
