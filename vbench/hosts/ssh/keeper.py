"""What vbench has on a machine over SSH while it is there, and that nothing of it stays: see ``scripts/keep.sh``."""

from __future__ import annotations

import contextlib
import getpass
import logging
import secrets
import shlex
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from vbench.errors import ConnectionLost, HostError, UsageError
from vbench.hosts.command import script
from vbench.hosts.ssh.host import SshHost

log = logging.getLogger(__name__)

BEAT_S = 20.0
"""Seconds between signs of life."""
PATIENCE_S = 120
"""Seconds without one after which the machine takes away what is ours."""

KEEP = script(Path(__file__).parent / "scripts/keep.sh")
_SWEEP = script(Path(__file__).parent / "scripts/sweep.sh")
_SLOW_S = 60.0


@dataclass(frozen=True)
class Kept:
    """A folder on the machine for working files, and the mark that processes of ours carry there."""

    folder: str
    mark: str


@contextmanager
def keep(host: SshHost, busybox: Sequence[str], cache: str, *, alone: bool) -> Iterator[Kept]:
    """A folder on the machine and the turn to measure there, for as long as the block and the connection last.

    ``alone``: nobody else may measure there meanwhile, as one run would disturb the other. Raises ``UsageError`` naming
    who does.
    """
    mark = secrets.token_hex(8)
    who = f"{getpass.getuser()}@{socket.gethostname()}, since {datetime.now().astimezone():%Y-%m-%d %H:%M}"
    argv = [*busybox, "sh", "-c", KEEP, "keep", cache, who, mark, "x" if alone else "s", str(PATIENCE_S)]
    channel: Any = host.session()
    over = threading.Event()
    try:
        try:
            channel.exec_command(shlex.join(argv))
            lines = channel.makefile("r")
            said = _answer(host, lines)
        except OSError as error:
            raise ConnectionLost(f"{host.name}: the connection dropped") from error
        if said.startswith("busy"):
            raise UsageError(
                f"another run is measuring on {host.name}: {said.removeprefix('busy ') or 'just started'}",
                "wait for it to end: two runs at once would disturb each other's results",
            )
        threading.Thread(target=_beat, args=(channel, over), name=f"beat {host.name}", daemon=True).start()
        yield Kept(said.removeprefix("ready "), mark)
        over.set()
        _leave(host, channel, lines)
    finally:
        over.set()
        with contextlib.suppress(Exception):
            channel.close()


def _leave(host: SshHost, channel: Any, lines: Any) -> None:
    """Have the machine take away what is ours. If the connection has gone, it does so by itself."""
    try:
        channel.shutdown_write()
        channel.settimeout(_SLOW_S)
        said = lines.readline().strip()
    except OSError:
        said = ""
    if said == "ended":
        return
    if channel.get_transport().is_active():
        raise HostError(f"{host.name}: something of ours may be left there", f"see: vbench clean {host.name}")
    log.warning("%s: the connection has gone; the machine itself removes what is ours there", host.name)


def sweep(host: SshHost, cache: str) -> list[str]:
    """End what a harness that has gone left on the machine, and remove all of ours there; what was removed.

    Raises ``UsageError`` if some harness is there now.
    """
    done = host.run(["sh", "-c", _SWEEP, "sweep", cache], check=False, timeout=600.0)
    lines = done.text.splitlines()
    if busy := [line.removeprefix("busy ") for line in lines if line.startswith("busy ")]:
        raise UsageError(
            f"{host.name} is in use: {busy[0]}", "wait for it to end before removing what is there"
        )
    return [line.removeprefix("gone ") for line in lines if line.startswith("gone ")]


def _answer(host: SshHost, lines: Any) -> str:
    while line := str(lines.readline()).strip():
        if not line.startswith("gone"):
            return line
        log.info(
            "%s: removed %s, left there by a harness that has gone", host.name, line.removeprefix("gone ")
        )
    raise HostError(f"{host.name}: its shell ended at once", f"try: ssh {host.name} true")


def _beat(channel: Any, over: threading.Event) -> None:
    while not over.wait(BEAT_S):
        try:
            channel.sendall(b"\n")
        except Exception:  # the connection has ended; whoever uses it will notice
            return
