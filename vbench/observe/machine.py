"""What a machine tells of itself while it is measured: this one reads its own files, others are asked over SSH."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from vbench.hosts.base import Host
from vbench.hosts.command import script
from vbench.hosts.ssh.host import SshHost

_ASK = script(Path(__file__).parent / "scripts/watch.sh")
_HEADER = re.compile(r"^==> /(.+) <==$", re.MULTILINE)


@dataclass(frozen=True)
class Told:
    """What was found at ``at``, the harness's monotonic clock: the machine's time of day then, and files by path.

    ``programs``: how many processes run each, those of this harness left out; ``None`` if nobody asked.
    """

    at: float
    date: float
    files: dict[str, str]
    programs: Counter[str] | None = None

    def lines(self, path: str) -> list[str]:
        """A file's lines; none if it cannot be read."""
        return self.files.get(path, "").splitlines()

    def matching(self, pattern: str) -> list[str]:
        """The lines of all files whose path matches."""
        wanted = re.compile(pattern.replace("*", "[^/]*"))
        return [
            line
            for path, text in sorted(self.files.items())
            if wanted.fullmatch(path)
            for line in text.splitlines()
        ]


class Machine(Protocol):
    """A machine that can be asked. ``cpus``: how many a run may use there."""

    cpus: int

    def tell(self, patterns: tuple[str, ...]) -> Told:
        """The files whose paths, from the root and without its slash, match; and programs."""
        ...


class Here:
    """This machine; ``root`` is the directory that contains proc and sys."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self.cpus = len(os.sched_getaffinity(0))

    def tell(self, patterns: tuple[str, ...]) -> Told:
        """Read its files."""
        at, date, files = time.monotonic(), time.time(), {}
        for pattern in patterns:
            for path in sorted(self._root.glob(pattern)):
                try:
                    files[str(path.relative_to(self._root))] = path.read_text(errors="replace")
                except OSError:
                    continue
        return Told(at, date, files, _programs())


def _programs() -> Counter[str]:
    mine, found = {os.getpid()}, Counter[str]()
    for process in psutil.process_iter(["name", "exe", "ppid"]):
        known = process.info
        if known["ppid"] in mine:
            mine.add(process.pid)  # parents come before their children, unless PIDs were reused
        elif process.pid not in mine:
            found[Path(known["exe"] or known["name"] or "").name] += 1
    return found


class There:
    """A machine over SSH, whose processes of ours carry a mark; ``host`` is a root."""

    def __init__(self, host: SshHost) -> None:
        assert host.leader is not None  # noqa: S101 - every root has one
        self._host, self._mark, self.cpus = host, host.leader.mark, len(host.leader.usable)

    def tell(self, patterns: tuple[str, ...]) -> Told:
        """Ask it, in one command. Raises ``ConnectionLost`` if it has gone."""
        argv = ["sh", "-c", _ASK, "watch", self._mark, *(f"/{each}" for each in patterns)]
        begin = time.monotonic()
        done = self._host.run(argv, check=False, timeout=60)
        at = (begin + time.monotonic()) / 2
        first, *parts = _HEADER.split(done.stdout.decode(errors="replace"))
        date, _, names = first.partition("\n")
        files = dict(zip(parts[::2], (part.strip("\n") for part in parts[1::2]), strict=True))
        return Told(at, float(date), files, Counter(names.split()))


def round_trip(host: Host) -> float:
    """Seconds that a command takes which does nothing, seen from here: the least of five.

    So much of an invocation's length by the harness's clock is not the machine's. Raises ``ConnectionLost``.
    """
    return min(host.run(["true"], timeout=60).elapsed for _ in range(5))


def of(root: Host) -> Machine:
    """The machine that a root host is."""
    return There(root) if isinstance(root, SshHost) else Here()
