"""What the terminal shows: lines, tables and the progress of a run."""

from __future__ import annotations

import json as jsonlib
import logging
import re
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.progress import TaskID

    from vbench.harness.events import Began

log = logging.getLogger(__name__)

_out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

# What controls a terminal, reverses text or cannot be encoded; it may come from a stranger.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """Text in which nothing controls a terminal."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def shown(text: str) -> str:
    """Harmless text, escaped so that rich takes none of it for markup."""
    return escape(harmless(text))


def say(text: str) -> None:
    """One line on standard output."""
    _out.print(shown(text))


def warn(text: str) -> None:
    """One message on standard error."""
    err.print(shown(f"vbench: {text}"))


def tell(text: str) -> None:
    """One line on standard error, above the progress of a run."""
    log.debug("%s", text)
    err.print(shown(text))


_SHORT = 28  # columns up to this width are never folded: a name broken in two cannot be copied
_PROSE = 24  # least width of a folded column


def show_table(rows: Sequence[dict[str, Any]], *, json: bool, columns: Sequence[str] | None = None) -> None:
    """Rows as a table of the named columns, or in full as JSON."""
    if json:
        sys.stdout.write(jsonlib.dumps(list(rows), indent=1, allow_nan=False) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    names = columns or (list(rows[0]) if rows else [])
    widths = {name: max([len(name), *(len(_cell(row.get(name))) for row in rows)]) for name in names}
    for name in names:
        whole = widths[name] <= _SHORT or name == "stack"
        table.add_column(name, overflow="fold", no_wrap=whole, min_width=None if whole else _PROSE)
    for row in rows:
        table.add_row(*(shown(_cell(row.get(name))) for name in names))
    least = sum(
        2 + (width if width <= _SHORT or name == "stack" else _PROSE) for name, width in widths.items()
    )
    Console(highlight=False, width=max(Console().width, least)).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "n/a"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class ConsoleProgress:
    """Shows what a run is doing: a progress bar on a terminal, else a line whenever there is news."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.description}"),
            console=err,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, left="", visible=False)
        self._quiet = not err.is_terminal
        self._shown: set[str] = set()
        self._sending: dict[str, tuple[float, int, TaskID]] = {}
        self._held = False

    def __enter__(self) -> Self:
        if not self._quiet:
            self._bar.start()
        self._held = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._quiet:
            self._bar.stop()

    def say(self, text: str) -> None:
        """One line worth keeping."""
        tell(text)

    def sending(self, machine: str, done: int, whole: int) -> None:
        """How much of the capsule has arrived on a machine, in bytes, and how fast."""
        now, mib = time.monotonic(), whole >> 20
        if machine not in self._sending:
            self._sending[machine] = (now, done, self._bar.add_task("", total=mib, left=""))
            if self._quiet:
                err.print(shown(f"sending the capsule to {machine}: {mib} MiB, once"))
        begun, first, task = self._sending[machine]
        rate = (done - first) / (1 << 20) / max(now - begun, 1e-3)
        text = f"MiB of the capsule sent to {machine}, {rate:.1f} MiB/s"
        if not self._quiet:
            self._bar.start()  # nothing, if it shows already
            self._bar.update(task, completed=done >> 20, description=shown(text))
        if done >= whole:
            self._bar.remove_task(task)
            del self._sending[machine]
            log.info("%s has all %d MiB of the capsule, at %.1f MiB/s", machine, mib, rate)
            if not (self._held or self._quiet):
                self._bar.stop()

    def doing(self, now: Began, done: int, total: int, remaining_s: float | None) -> None:
        """What runs now, how far the run is, and how long the rest takes at this rate."""
        left = "" if remaining_s is None else f"about {span(remaining_s)} left"
        what = f"{now.stage} {now.workload} in {now.stack}" if now.workload else f"{now.stage} {now.stack}"
        text = what if now.block is None else f"block {now.block + 1}: {what}"
        log.info("%s (%d/%d)", text, done, total)
        if not self._quiet:
            self._bar.update(
                self._task, description=shown(text), completed=done, total=total, left=left, visible=True
            )
            return
        # Without a terminal, a line for each stack that is prepared, and one for each block.
        line = f"{now.stage} {now.stack}" if now.block is None else f"block {now.block + 1}"
        if line not in self._shown:
            self._shown.add(line)
            err.print(shown(f"{line} ({done}/{total}) {left}".rstrip()))


def span(seconds: float) -> str:
    """A length of time: ``12 s``, ``3 min 05 s``, ``1 h 02 min``."""
    if seconds >= 3600:
        hours, rest = divmod(round(seconds / 60), 60)
        return f"{hours} h {rest:02} min"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
