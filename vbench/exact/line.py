"""Requests to the first process of a deterministic machine, and what it answers (``sources/agent.c``)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Protocol

from vbench.errors import HostError

_REQUEST = struct.Struct("<IIqIIII")
_REPLY = struct.Struct("<iIIIqq")
ROOM = 16 << 20
"""Bytes of a request or a reply, at most."""


@dataclass(frozen=True)
class Request:
    """What the machine is to do next; ``what`` and its operands as in ``sources/agent.c``."""

    what: str
    argv: tuple[str, ...] = ()
    data: bytes = b""
    seconds: float = 0.0
    child: int = 0
    mode: int = 0

    def encode(self) -> bytes:
        """The bytes of it in the box. Raises ``HostError`` if it does not fit."""
        argv = b"".join(part.encode(errors="surrogateescape") + b"\0" for part in self.argv)
        sizes = (len(self.argv), len(argv), len(self.data))
        head = _REQUEST.pack(ord(self.what), self.child, round(self.seconds * 1e9), *sizes, self.mode)
        if (size := len(head) + len(argv) + len(self.data)) > ROOM:
            raise HostError(
                f"the testbed takes {ROOM >> 20} MiB of input at once, this is {size / 2**20:.1f}",
                "write it to a file there in parts",
            )
        return head + argv + self.data


NOTHING = Request("N").encode()
"""A request that does nothing: what a machine is left with that is stopped and saved."""


@dataclass(frozen=True)
class Reply:
    """What came of a request. ``begin`` and ``end``: nanoseconds of the machine's monotonic clock."""

    status: int
    number: int
    begin: int
    end: int
    out: bytes
    err: bytes

    def encode(self) -> bytes:
        """The bytes of it in the box."""
        head = _REPLY.pack(self.status, len(self.out), len(self.err), self.number, self.begin, self.end)
        return head + self.out + self.err

    @classmethod
    def decode(cls, data: bytes) -> Reply:
        """Read a reply from the box."""
        status, out, err, number, begin, end = _REPLY.unpack_from(data)
        at = _REPLY.size
        return cls(status, number, begin, end, data[at : at + out], data[at + out : at + out + err])

    @staticmethod
    def size(head: bytes) -> int:
        """The size of a reply whose first bytes are these."""
        _, out, err, *_ = _REPLY.unpack(head)
        return _REPLY.size + int(out) + int(err)


HEAD = _REPLY.size


def follow(state: str, request: Request) -> str:
    """The name of the state that a machine is in after a request: a digest over all that it has been given."""
    return hashlib.sha256(state.encode() + request.encode()).hexdigest()


def saved(state: str) -> str:
    """The name of the state of a machine that was saved in another, and started again from there."""
    return hashlib.sha256(f"{state} saved".encode()).hexdigest()


class Led(Protocol):
    """What carries out requests: a running machine, or a trail that remembers what one answered."""

    def ask(self, request: Request) -> Reply: ...  # noqa: D102
