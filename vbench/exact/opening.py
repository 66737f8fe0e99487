"""Deterministic machines as layers open them: a console on a trail, with the snapshots of this user behind it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from vbench import paths
from vbench.exact.console import Console
from vbench.exact.hop import Hop
from vbench.exact.machine import Machine
from vbench.exact.snapshots import Raw, Snapshots
from vbench.exact.trail import Trail
from vbench.hosts.base import Host, Setting
from vbench.hosts.command import script
from vbench.hosts.workspace import memory

_REST = script(Path(__file__).parent / "scripts/come-to-rest.sh")


Run = Callable[[Path, Path, bool, bool], AbstractContextManager[Machine]]
"""Runs a machine in an empty folder, from its files in another: see :func:`vbench.exact.machine.running`."""


@contextmanager
def console(run: Run, made_of: Sequence[str], setting: Setting, *, saves: bool = True) -> Iterator[Console]:
    """The console of a machine that is off until something has to be asked of it that nobody has asked before.

    ``made_of`` names all that the machine is made of, its seed included, wherever that lies: two machines of which it
    says the same answer the same. ``saves``: whether it can be saved, and started again from there.
    """
    origin = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    with ExitStack() as opened:
        folder = opened.enter_context(memory())
        snapshots = Snapshots(paths.cache() / "snapshots", folder)

        @contextmanager
        def start(raw: Raw, saved: bool, private: bool) -> Iterator[Machine]:
            work = Path(tempfile.mkdtemp(prefix="w", dir=folder))
            try:
                with run(work, raw.folder, saved, private) as machine:
                    yield machine
            finally:
                shutil.rmtree(work, ignore_errors=True)

        trail = Trail(origin, snapshots, start, saves=saves)
        opened.callback(trail.discard)
        yield Console(trail, setting)


def settled(hosts: Sequence[Host]) -> list[Host]:
    """Let a deterministic machine and the environments in it come to rest, the innermost first, and save it.

    ``hosts``: the machine and what is open in it, lowest first; anything else is left alone. Those that did not come
    to rest.
    """
    if (trail := trail_of(hosts[-1])) is None:
        return []
    inside = [host for host in reversed(hosts) if trail_of(host) is trail]
    restless = [host for host in inside if host.run(["sh", "-c", _REST], check=False, timeout=900).code]
    trail.mark()
    return restless


def trail_of(host: Host) -> Trail | None:
    """The trail of the deterministic machine that a host is in, if it is in one."""
    while isinstance(host, Hop):
        host = host.via
    return host.trail if isinstance(host, Console) else None
