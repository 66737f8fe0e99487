"""What all hosts in a deterministic machine do alike."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from vbench.errors import HostError
from vbench.hosts import command
from vbench.hosts.base import Address, Connection, Host

PIECE = 8 << 20
"""What fits into a request (``ROOM`` of agent.c and gate.c)."""
_PUT = command.script(Path(__file__).parents[1] / "hosts/scripts/put.sh")


class Inside(Host):
    """A host in a deterministic machine: files go by commands, and no network leads out."""

    patience: ClassVar[float]
    """Seconds that a file may take; part of what the machine is given, and so of its state."""

    def put(self, data: bytes, path: str, mode: int = 0o644) -> None:
        """Write a file whole."""
        if len(data) > PIECE:
            self._put_pieces(data, path, mode)
            return
        argv = ["sh", "-c", _PUT, "put", f"{path}.draft", path, str(len(data)), f"{mode:o}"]
        result = self.run(argv, check=False, timeout=self.patience, input=data)
        if result.code:
            said = result.stderr.decode(errors="replace").strip()
            raise HostError(f"{self.name}: cannot write {path}: {said}")

    def _put_pieces(self, data: bytes, path: str, mode: int) -> None:
        """The same of what is more than a request holds."""
        parts = [f"{path}.{number}" for number in range(-(-len(data) // PIECE))]
        for number, part in enumerate(parts):
            self.put(data[number * PIECE : (number + 1) * PIECE], part, 0o600)
        joined = 'to=$1 mode=$2; shift 2; cat "$@" > "$to.draft" && rm "$@" && chmod "$mode" "$to.draft"'
        joined += ' && mv "$to.draft" "$to"'
        self.run(["sh", "-c", joined, "sh", path, f"{mode:o}", *parts], timeout=self.patience)

    @abstractmethod
    def exchange(self, order: bytes, folder: str, timeout: float | None) -> tuple[bytes, float]:
        """Have the session in a folder carry out one command: what it says of it, and seconds of the machine's own.

        Raises ``CommandTimeout`` if it says nothing until then.
        """

    def get(self, path: str) -> bytes:
        """Read a file."""
        result = self.run(["cat", path], check=False, timeout=self.patience)
        if result.code:
            said = result.stderr.decode(errors="replace").strip()
            raise HostError(f"{self.name}: cannot read {path}: {said}")
        return result.stdout

    def dial(self, address: Address, timeout: float = 10.0) -> Connection:
        """There is no network that leads out of the machine."""
        raise HostError(f"{self.name}: no network leads out of the testbed")
