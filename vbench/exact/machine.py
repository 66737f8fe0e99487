"""A deterministic machine that runs: an emulator counting instructions, led request by request through its gate."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vbench.errors import BootError, ConnectionLost, HostError
from vbench.exact.line import HEAD, NOTHING, Reply, Request
from vbench.hosts.base import Host, Process

_ORDER = struct.Struct("<II")
STATE, RAM = "state", "ram"
"""The files of a saved machine: its devices, and its memory."""
_ENDED_BY = {
    signal.SIGBUS: "there is no room left for its memory: what lies in /dev/shm may fill it",
    signal.SIGKILL: "it was killed, as the kernel does when this machine has no memory left; dmesg says if so",
}
_THERE = 'cd "$1" && shift && exec "$@"'
_IGNORE_SHARED = [{"capability": "x-ignore-shared", "state": True}]


@dataclass(frozen=True)
class Hardware:
    """What a machine is made of: the emulator's argv but for its memory, in MiB, and its gate, a plugin's path.

    ``files``: the paths of files by the names that ``argv`` has for them, which are the same on every machine.
    """

    argv: tuple[str, ...]
    memory_mib: int
    gate: str
    files: Mapping[str, str]


class Machine:
    """A machine that has come to its gate and waits for a request."""

    def __init__(
        self, process: Process, gates: socket.socket, line: socket.socket, monitor: _Monitor | None
    ) -> None:
        self._process, self._gates, self._line, self._monitor = process, gates, line, monitor

    def ask(self, request: Request) -> Reply:
        """Have a request carried out. Raises ``ConnectionLost`` when the machine has ended instead."""
        self._order("w", request.encode())
        self._order("g")
        self.await_gate()
        self._order("q", size=HEAD)
        size = Reply.size(self._receive(HEAD))
        self._order("q", size=size)
        return Reply.decode(self._receive(size))

    def await_gate(self) -> int:
        """Wait until the machine is ready for a request; of one just forked, returns the process."""
        return int(_ORDER.unpack(self._receive(_ORDER.size))[1])

    @contextmanager
    def forked(self) -> Iterator[Machine]:
        """A second machine in the same state, for as long as this one waits; it has gone when the block is left."""
        self._order("f")
        with _accepted(self._gates, self._process) as line:
            machine = Machine(self._process, self._gates, line, None)
            pid = machine.await_gate()
            try:
                yield machine
            finally:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with suppress(ConnectionResetError):
                    while line.recv(1 << 16):  # the end of the connection is that of the process
                        pass

    def save(self, folder: Path) -> None:
        """Stop at this instruction for good, and write ``state`` to a folder; the memory's file is all the rest."""
        if self._monitor is None:
            raise HostError("a forked machine has no monitor, which could save it")
        self._order("w", NOTHING)
        with self._monitor.asked("stop"):
            self._order("s")
        self._monitor.ask("migrate-set-capabilities", capabilities=_IGNORE_SHARED)
        self._monitor.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self._monitor.ask("migrate", uri=f"exec:cat > '{folder / STATE}'")
        while (status := self._monitor.ask("query-migrate")["status"]) not in {"completed", "failed"}:
            pass
        if status == "failed":
            raise HostError(f"the testbed's state cannot be written to {folder}", "is the disk full?")

    def _order(self, what: str, data: bytes = b"", *, size: int = 0) -> None:
        with suppress(BrokenPipeError):  # reading will tell
            self._line.sendall(_ORDER.pack(ord(what), size or len(data)) + data)

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                piece = self._line.recv(size - len(data))
            except ConnectionResetError:
                piece = b""
            if not piece:
                said = _last(self._process) if self._monitor else _said(self._process)
                raise ConnectionLost(f"the testbed's emulator has ended: {said}")
            data += piece
        return bytes(data)


def _last(process: Process) -> str:
    with suppress(HostError):
        process.wait(5)
    return _said(process)


def _said(process: Process) -> str:
    """The last that it said; or how it ended, if that tells more."""
    code = process.poll()
    for number, why in _ENDED_BY.items():
        if code in (-number, 128 + number):
            return why
    lines = _console(process).splitlines()
    return lines[-1] if lines else f"exit code {code}"


def _console(process: Process) -> str:
    """The end of its console, without QEMU's list of what its processor cannot do."""
    lines = process.tail().splitlines()
    return "\n".join(line for line in lines if line.strip() and "TCG doesn't support" not in line)


class _Monitor:
    """QEMU's monitor, which speaks the QEMU Machine Protocol (docs/interop/qmp-spec.txt)."""

    def __init__(self, connection: socket.socket, process: Process) -> None:
        self._file: Any = connection.makefile("rw")
        self._process = process
        self._file.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: object) -> Any:
        with self.asked(command, **arguments) as answer:
            pass
        return answer[0]

    @contextmanager
    def asked(self, command: str, **arguments: object) -> Iterator[list[Any]]:
        """Give a command, do what it needs to succeed, and take its answer."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        answer: list[Any] = []
        yield answer
        while not answer:
            try:
                line = self._file.readline()
            except ConnectionResetError:
                line = ""
            if not line:
                raise ConnectionLost(f"the testbed's emulator has ended: {_last(self._process)}")
            said = json.loads(line)
            if "error" in said:
                raise HostError(f"QEMU: {command}: {said['error']['desc']}")
            if "return" in said:
                answer.append(said["return"])


@contextmanager
def _accepted(
    gates: socket.socket, process: Process, deadline: float | None = None
) -> Iterator[socket.socket]:
    """The gate's connection, once the emulator has made it."""
    gates.settimeout(0.1)
    begin = time.monotonic()
    while True:
        with suppress(TimeoutError):
            line, _ = gates.accept()
            line.settimeout(None)
            with line:
                yield line
            return
        if process.poll() is not None:
            raise BootError(f"the testbed does not start: {_last(process)}", _console(process))
        if deadline is not None and time.monotonic() - begin > deadline:
            raise BootError(
                f"the testbed does not start: it has not asked for anything in {deadline:.0f} s",
                _console(process),
            )


@contextmanager
def _dialled(path: str, process: Process) -> Iterator[socket.socket]:
    """A connection to the monitor, once the emulator listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        while True:
            try:
                connection.connect(path)
                break
            except OSError:
                if process.poll() is not None:
                    raise BootError(
                        f"the testbed does not start: {_last(process)}", _console(process)
                    ) from None
                time.sleep(0.002)
        yield connection


@contextmanager
def running(
    parent: Host, hardware: Hardware, work: Path, files: Path, *, saved: bool, private: bool
) -> Iterator[Machine]:
    """A machine on ``parent``, from power-on or as it was ``saved`` in ``files``; it has gone when the block is left.

    ``work`` is an empty folder for its sockets and the names of its files, in which it is started. If ``private``, the
    memory's file stays as it is: the machine takes copies of its pages as it writes to them. Raises ``BootError`` with
    the end of its console.
    """
    with ExitStack() as opened:
        gates = opened.enter_context(_gates(work))
        share = "off" if private else "on"
        memory = (
            f"memory-backend-file,id=ram,size={hardware.memory_mib}M,mem-path={files / RAM},share={share}"
        )
        argv = [
            *hardware.argv,
            *("-object", memory),
            *("-plugin", f"{hardware.gate},socket={work}/gate"),
            *("-qmp", f"unix:{work}/monitor,server=on,wait=off"),
            *(["-incoming", "defer"] if saved else []),
        ]
        for name, path in hardware.files.items():
            (work / name).symlink_to(path)
        process = opened.enter_context(parent.spawn(["sh", "-c", _THERE, "sh", str(work), *argv]))
        line = opened.enter_context(_accepted(gates, process))
        control = opened.enter_context(_dialled(f"{work}/monitor", process))
        monitor = _Monitor(control, process)
        machine = Machine(process, gates, line, monitor)
        if saved:
            monitor.ask("migrate-set-capabilities", capabilities=_IGNORE_SHARED)
            monitor.ask("migrate-incoming", uri=f"exec:cat '{files / STATE}'")
            while monitor.ask("query-status")["status"] in {"inmigrate", "prelaunch", "finish-migrate"}:
                pass
            monitor.ask("cont")
        _come(machine, process)
        yield machine


@contextmanager
def unsaved(parent: Host, argv: Sequence[str], work: Path, deadline: float) -> Iterator[Machine]:
    """A machine from power-on by an emulator that cannot save it; it has gone when the block is left.

    ``argv`` runs it, ``work/gate`` is its gate's socket. Raises ``BootError`` with the end of its console, also if it
    has not come to its gate by the ``deadline``, in seconds of ours.
    """
    with ExitStack() as opened:
        gates = opened.enter_context(_gates(work))
        process = opened.enter_context(parent.spawn(argv))
        line = opened.enter_context(_accepted(gates, process, deadline))
        machine = Machine(process, gates, line, None)
        _come(machine, process)
        yield machine


def _gates(work: Path) -> socket.socket:
    """Where machines make the connections of their gates."""
    gates = socket.socket(socket.AF_UNIX)
    gates.bind(str(work / "gate"))
    gates.listen(1)
    return gates


def _come(machine: Machine, process: Process) -> None:
    """Wait until a machine that starts is at its gate."""
    try:
        machine.await_gate()
    except ConnectionLost as error:
        raise BootError(f"the testbed does not start: {error.message}", _console(process)) from None
