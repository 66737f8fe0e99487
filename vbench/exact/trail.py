"""What a deterministic machine was given since power-on, and what it answered: enough to be there again at any time.

From the same origin, the same requests lead to the same answers. So what was asked once need not be asked again: a
trail answers from memory as long as it knows the way. Only then does it have a machine started, from the last snapshot
on that way, to which it repeats what came after.

To be saved and started again is a step of its own on the way: a machine that was restored can take an interrupt a few
instructions earlier or later than one that just went on (Xen's dom0 did, by 4 us). So all go on from the snapshot.
"""

from __future__ import annotations

import itertools
import logging
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from vbench.errors import ConnectionLost, HostError
from vbench.exact.line import Reply, Request, follow, saved
from vbench.exact.machine import Machine
from vbench.exact.snapshots import Raw, Snapshots

log = logging.getLogger(__name__)

Start = Callable[[Raw, bool, bool], AbstractContextManager[Machine]]
"""Starts a machine with its files in a folder: whether as it was saved there or from power-on, and whether it leaves
the files as they are, taking copies of the memory's pages as it writes to them."""


class Trail:
    """A machine seen as the requests that it was given. ``origin`` names its hardware, its system and its seed.

    One that cannot be saved (``saves``) waits where it would be, and a fork of it goes on.
    """

    def __init__(self, origin: str, snapshots: Snapshots, start: Start, *, saves: bool = True) -> None:
        self.origin, self._snapshots, self._start, self._saves = origin, snapshots, start, saves
        self._known = snapshots.answers(origin)
        self._states = [origin]
        self.chance = random.Random(origin)  # noqa: S311 - the same names and keys each time are the point
        self._lock = threading.Lock()
        self._marks: dict[str, object] = {}
        self._path: list[tuple[Request, Reply] | None] = []  # None: it was saved and started again
        self._machine: Machine | None = None
        self._raw: Raw | None = None  # the files of a machine that can become a snapshot
        self._running = ExitStack()
        self._parked: list[tuple[str, Machine, ExitStack]] = []
        self._held: list[tuple[str, Machine, ExitStack]] = []  # in place of snapshots
        self._back = self._left = self._over = False

    @property
    def state(self) -> str:
        """The name of where the machine is."""
        return self._states[-1]

    @property
    def clock(self) -> float:
        """Seconds of the machine's monotonic clock, at its last answer."""
        last = next((step for step in reversed(self._path) if step is not None), None)
        return last[1].end / 1e9 if last else 0.0

    def ask(self, request: Request) -> Reply:
        """Have a request answered. Raises ``ConnectionLost`` once the machine has been discarded."""
        with self._lock:
            if self._over or self._left:
                raise ConnectionLost("the testbed has been switched off")
            state = follow(self.state, request)
            known = None if self._machine else self._known.get(state)
            reply = known or self._live().ask(request)
            self._states.append(state)
            self._path.append((request, reply))
            return reply

    def mark(self) -> str:
        """Go on from a snapshot, made if there is none, to which one can come back. The state's name."""
        if not self._path or self._path[-1] is not None:
            if self._back:
                raise HostError("a machine that was put back cannot become a snapshot")
            state = saved(self.state)
            if not self._snapshots.holds(state) and (self._saves or self._machine):
                self._save(state, self._live(), self._raw, len(self._path))
            self._halt()
            self._states.append(state)
            self._path.append(None)
            self._marks[state] = self.chance.getstate()
        return self.state

    def _save(self, state: str, machine: Machine, raw: Raw | None, at: int) -> None:
        """Make a snapshot of a machine that has gone so far on the way, and ends with that."""
        if not self._saves:
            self._held.append((state, machine, self._running.pop_all()))
            self._machine = self._raw = None
            self._snapshots.note(state, self.origin, self._answers(at))
            return
        assert raw is not None  # noqa: S101 - it has not been put back
        machine.save(raw.folder)
        self._halt()
        self._snapshots.keep(state, self.origin, raw, self._answers(at))

    def park(self) -> str:
        """Let the machine wait here, to be forked whenever somebody comes this way again. The state's name.

        That takes a hundredth of a second, and a fork has all the code translated that this machine has. Of the states
        beyond the first one parked, only the last is kept.
        """
        if not self._back:
            raise HostError("a machine that can become a snapshot cannot be parked")
        if self.state not in (state for state, _, _ in self._parked):
            machine = self._live()
            for _, _, running in self._parked[1:]:
                running.close()
            self._parked[1:] = [(self.state, machine, self._running.pop_all())]
            self._machine = None
            self._known |= self._answers()
        self._marks[self.state] = self.chance.getstate()
        return self.state

    def note(self) -> None:
        """Keep what has been answered up to here, without a snapshot."""
        if any(state not in self._known for state in self._states[1:]):
            self._snapshots.note(self.state, self.origin, self._answers())

    def _answers(self, end: int | None = None) -> dict[str, Reply]:
        steps = zip(self._states[1:], self._path, strict=True)
        return {state: step[1] for state, step in itertools.islice(steps, end) if step is not None}

    def leave(self) -> None:
        """Switch the machine off until an earlier state is come back to: nothing in it has to be closed any more."""
        self._left = True
        self._halt()

    def back_to(self, mark: str) -> None:
        """Be in an earlier state again. From here on, the machine cannot become a snapshot."""
        self._left = False
        self._halt()
        self.chance.setstate(self._marks[mark])  # type: ignore[arg-type]
        at = self._states.index(mark)
        del self._states[at + 1 :], self._path[at:]
        self._back = True

    def discard(self) -> None:
        """Switch the machine off, with all that is in it: nothing there has to be closed any more."""
        self._over = True
        self._halt()
        for waiting in (self._parked, self._held):  # forks first
            while waiting:
                waiting.pop()[2].close()

    def _halt(self) -> None:
        self._machine = self._raw = None
        self._running.close()

    def _live(self) -> Machine:
        """The machine in this state, started if it is off."""
        if self._machine is None:
            at, machine = self._started()
            self._repeat(machine, self._path[at:])
            self._machine = machine
        return self._machine

    def _repeat(self, machine: Machine, steps: Sequence[tuple[Request, Reply] | None]) -> None:
        for request, reply in filter(None, steps):
            if machine.ask(request) != reply:
                self._halt()
                raise HostError(
                    f"the testbed answered {request.argv[:3]} otherwise than before: it is not exact here",
                    "remove its snapshots: vbench clean --snapshots",
                )

    def _started(self) -> tuple[int, Machine]:
        """A machine in the last state on the way here that one can be started in, and that state's place on the way."""
        while True:
            for state, machine, _ in reversed(self._held + self._parked):
                if state in self._states:
                    return self._states.index(state), self._running.enter_context(machine.forked())
            at, raw = self._nearest()
            log.info("the testbed starts from %s", f"snapshot {self._states[at][:16]}" if raw else "power-on")
            # Where the snapshot of a later step is missing, it is made anew first, and gone on from.
            missing = next((n for n, step in enumerate(self._path[at:], at) if step is None), None)
            private = self._back and missing is None
            files = raw or self._snapshots.blank()
            machine = self._running.enter_context(self._start(files, raw is not None, private))
            if missing is None:
                self._raw = None if private else files
                return at, machine
            self._repeat(machine, self._path[at:missing])
            self._save(self._states[missing + 1], machine, files, missing)

    def _nearest(self) -> tuple[int, Raw | None]:
        """The last state on the way here that there is a snapshot of, by its place on the way, and that snapshot."""
        for at in reversed(range(len(self._states))):
            if self._snapshots.holds(self._states[at]):
                last = None not in self._path[at:]
                take = self._snapshots.raw if self._back and last else self._snapshots.moved
                if (raw := take(self._states[at])) is not None:
                    return at, raw
        return 0, None
