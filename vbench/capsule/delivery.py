"""Bringing the capsule to a machine over SSH: once, in pieces, and from where it was broken off.

It is kept there under its digest, in the user's cache, and is used only once the digest of what measurements execute
has been computed there and is the capsule's.
"""

from __future__ import annotations

import logging
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vbench.capsule import rootfs
from vbench.capsule.capsule import Capsule, payload_at, verify_inside
from vbench.errors import CommandTimeout, ConnectionLost, HostError, VbenchError
from vbench.hosts.base import Host, Payload
from vbench.hosts.command import script

log = logging.getLogger(__name__)

PIECE = 4 << 20
"""Bytes of the archive that are sent at once."""

_SCRIPTS = Path(__file__).parent / "scripts"
_LOOK, _TAKE, _SETTLE = (script(_SCRIPTS / f"{name}.sh") for name in ("look", "take", "settle"))
_MACHINE = "Linux x86_64"
_SPARE = 64 << 20
_PATIENCE_S = 600.0


@dataclass(frozen=True)
class There:
    """What a machine has of a capsule: its folder of capsules, what has arrived, and bytes of room."""

    folder: str
    delivered: bool
    sent: int
    free: int
    unpacker: str


def deliver(capsule: Capsule, host: Host) -> Payload:
    """The capsule on a machine over SSH, brought there if it is not there yet.

    Several harnesses may bring it at once: they write the same bytes to the same places, and the first to have it whole
    gives it its name. Raises ``VbenchError`` if there is no room for it, before anything is sent, and
    ``DigestMismatch`` if it did not arrive as it is.
    """
    there = look(capsule, host)
    name = capsule.digest[:16]
    home = f"{there.folder}/{name}"
    if not there.delivered:
        archive = capsule.directory / "rootfs.tar"
        whole = archive.stat().st_size
        if there.free < (wanted := 3 * whole - there.sent + _SPARE):
            raise VbenchError(
                f"{host.name} has {there.free >> 20} MiB free in {there.folder}, the capsule needs {wanted >> 20}",
                "make room there, or set XDG_CACHE_HOME for its login shells",
            )
        try:
            _send(archive, capsule, host, there, home)
            _settle(capsule, host, there.folder, name)
        except HostError:
            # Whoever was first has removed what was sent, maybe while this harness was unpacking it.
            if not look(capsule, host).delivered:
                raise
        log.info("%s has the capsule, in %s", host.name, home)
    return payload_at(home, capsule.manifest)


def look(capsule: Capsule, host: Host) -> There:
    """What a machine has of a capsule. Raises ``HostError`` if the capsule cannot run on such a machine."""
    asked = "a login there must run the command that it is given, and print nothing of its own"
    try:
        done = host.run(["sh", "-c", _LOOK, "look", capsule.digest[:16]], check=False)
    except (ConnectionLost, CommandTimeout):
        raise
    except HostError as error:
        raise HostError(f"{host.name}: its shell does not run the command that it is given", asked) from error
    said = dict(line.partition(" ")[::2] for line in done.text.splitlines())
    if done.code == 0 and not {"cache", "machine", "free"} <= said.keys():
        raise HostError(f"{host.name}: its shell does not answer as asked, but {done.text[:80]!r}", asked)
    if done.code:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or "it says nothing"
        raise HostError(f"{host.name}: the user's cache cannot be used: {reason}")
    if said["machine"] != _MACHINE:
        raise HostError(f"{host.name} is {said['machine']}, and the capsule runs on {_MACHINE}")
    return There(
        f"{said['cache']}/capsules",
        said.get("delivered") == capsule.digest,
        int(said.get("sent", 0)),
        int(said["free"]) << 10,
        "gzip -dc" if "gzip" in said else "cat",
    )


def _send(archive: Path, capsule: Capsule, host: Host, there: There, home: str) -> None:
    whole = archive.stat().st_size
    number = min(there.sent, whole) // PIECE
    with archive.open("rb") as file, ThreadPoolExecutor(1) as ahead:

        def pack() -> bytes:
            data = file.read(PIECE)
            return data if there.unpacker == "cat" or not data else zlib.compress(data, 1, wbits=31)

        file.seek(number * PIECE)
        coming = ahead.submit(pack)
        while packed := coming.result():
            coming = ahead.submit(pack)  # while this one is on its way
            argv = ["sh", "-c", _TAKE, "take", home, str(number), str(PIECE), there.unpacker]
            done = host.run(argv, check=False, timeout=_PATIENCE_S, input=packed)
            if done.text == "delivered":  # by somebody else
                return
            if done.code:
                raise HostError(
                    f"{host.name}: the capsule does not arrive: {_last(done.stderr)}", "is its disk full?"
                )
            number += 1
            capsule.sent(host.name, min(number * PIECE, whole), whole)


def _settle(capsule: Capsule, host: Host, folder: str, name: str) -> None:
    """Unpack what has arrived, check it, and give it its name; what was sent is removed in any case."""
    part = f"{folder}/{name}.part"
    try:
        image = [str(rootfs.image_mib(capsule.directory / "rootfs.tar")), str(rootfs.EPOCH)]
        argv = [
            "sh",
            "-c",
            rootfs.IMAGE + _SETTLE,
            "settle",
            folder,
            name,
            *image,
            rootfs.LOADER,
            rootfs.LIBRARIES[0],
        ]
        done = host.run(argv, check=False, timeout=_PATIENCE_S)
        if done.code:
            raise HostError(
                f"{host.name}: the capsule cannot be unpacked: {_last(done.stderr)}", "is its disk full?"
            )
        draft = done.text
        try:
            verify_inside(host.but(payload=payload_at(draft, capsule.manifest)))
            host.put(f"{capsule.digest}".encode(), f"{draft}/delivered")
            host.run(
                ["mv", "-T", draft, f"{folder}/{name}"], check=False
            )  # somebody else may have been first
        finally:
            host.run(["rm", "-rf", draft], timeout=_PATIENCE_S)
    finally:
        host.run(["rm", "-f", part], check=False)


def _last(stderr: bytes) -> str:
    return stderr.decode(errors="replace").strip().rpartition("\n")[2] or "no reason is given"
