"""One command running at the far end of an SSH channel."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Protocol

from vbench.hosts.base import Connection, Usage
from vbench.hosts.ssh.wrapper import Leader, Markers, new_token, wrap

_CHUNK = 1 << 15
_LINGER = 5.0  # seconds to wait for the server to close a channel after both streams have ended
_QUIET = 0.5  # seconds without data after the command's end before we ask whether more can come


class Channel(Protocol):
    """The part of an SSH session channel used here."""

    @property
    def eof_received(self) -> object: ...  # noqa: D102
    @property
    def status_event(self) -> threading.Event: ...  # noqa: D102
    def exec_command(self, command: bytes, /) -> None: ...  # noqa: D102
    def recv(self, size: int, /) -> bytes: ...  # noqa: D102
    def recv_stderr(self, size: int, /) -> bytes: ...  # noqa: D102
    def recv_ready(self) -> bool: ...  # noqa: D102
    def recv_stderr_ready(self) -> bool: ...  # noqa: D102
    def send(self, data: bytes, /) -> int: ...  # noqa: D102
    def shutdown_write(self) -> None: ...  # noqa: D102
    def settimeout(self, timeout: float | None, /) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Transport(Protocol):
    """The part of a logged-in SSH transport used here. It raises many kinds of exceptions."""

    def open_session(self, *, timeout: float | None) -> Channel: ...  # noqa: D102
    def open_channel(  # noqa: D102
        self, kind: str, dest: tuple[str, int], src: tuple[str, int], /, *, timeout: float | None
    ) -> Connection: ...
    def is_active(self) -> bool: ...  # noqa: D102
    def join(self, timeout: float | None, /) -> None: ...  # noqa: D102


class RemoteCommand:
    """Starts a command on its own channel, and feeds and drains it in threads.

    ``started`` is set when ``pid`` is known, which is also its process group; ``done`` when both streams
    have ended and the channel is closed. ``code`` is ``None`` if the far end has not reported how the command
    ended; ``finished`` then says whether the connection lasted until the command's end.

    ``gate`` keeps the end of one command apart from the start of another on the same connection: when the
    shell of one session exits, dropbear closes any session that has not received its command yet, and fails
    if the command arrives after that.
    """

    def __init__(
        self,
        opener: Callable[[], Channel],
        argv: tuple[str, ...],
        out: Callable[[bytes], None],
        err: Callable[[bytes], None],
        *,
        data: bytes = b"",
        quote: Callable[[str], str] = str,
        gate: threading.Lock,
        ask: Callable[[int], object],
        leader: Leader | None = None,
        account: bool = True,
    ) -> None:
        self.argv = argv
        self.started = threading.Event()
        self.done = threading.Event()
        self.failure: Exception | None = None
        self.finished = False
        self.elapsed = 0.0
        self._opener = opener
        self._channel: Channel | None = None
        self._closing = False
        self._out, self._err = out, err
        self._data = data
        self._gate = gate
        self._holding = False
        self._drained = threading.Event()
        self._ask = ask
        token = new_token()
        self._markers = Markers(token)
        self._line = quote(wrap(argv, token, len(data), leader, account=account)).encode(
            errors="surrogateescape"
        )
        self._thread(self._serve)

    @property
    def pid(self) -> int | None:
        """The command's process group ID at the far end, once known."""
        return self._markers.pid

    @property
    def code(self) -> int | None:
        """Exit code, once reported."""
        return self._markers.code

    @property
    def usage(self) -> Usage | None:
        """What its leader reported that it used, if it has one."""
        return self._markers.usage

    def close(self) -> None:
        """Abandon the command if it is not done."""
        self._closing = True
        if self._channel is not None:
            self._channel.close()

    def _thread(self, target: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, name=f"ssh {self.argv[0]}", daemon=True)
        thread.start()
        return thread

    def _serve(self) -> None:
        begin = time.monotonic()
        threads = []
        try:
            channel, begin = self._exec()
            threads.append(
                self._thread(self._pump, channel.recv, channel.recv_ready, self._out, self._drained.is_set)
            )
            if self._data:
                threads.append(self._thread(self._write, channel))

            def err(piece: bytes) -> None:
                self._err(self._markers.feed(piece))
                if self.pid is not None:
                    self.started.set()
                if self.code is not None and not self.elapsed:
                    self.elapsed = time.monotonic() - begin
                    self._holding = self._gate.acquire()
                    channel.shutdown_write()

            self._pump(channel.recv_stderr, channel.recv_stderr_ready, err, self._all_told)
            self._err(self._markers.rest())
            self._drained.set()
            threads[0].join()
            if channel.eof_received:
                self.finished = True
                channel.status_event.wait(_LINGER)
        except Exception as error:  # whatever the transport raises
            self.failure = error
        finally:
            self.elapsed = self.elapsed or time.monotonic() - begin
            self._release()
            self.close()
            for thread in threads:
                thread.join()
            self.done.set()

    def _exec(self) -> tuple[Channel, float]:
        """A channel on which the command has been started, and the start time."""
        with self._gate:
            channel = self._channel = self._opener()
            if self._closing:
                raise InterruptedError("abandoned before it was started")
            channel.settimeout(_QUIET)
            begin = time.monotonic()
            channel.exec_command(self._line)
            return channel, begin

    def _release(self) -> None:
        if self._holding:
            self._holding = False
            self._gate.release()

    def _all_told(self) -> bool:
        """Whether nothing more will come on the streams, although they are open.

        After the end, only a daemon that left the group can hold them open. The server handles our query
        after what it has read from the command, so an answer means that nothing more will come.
        """
        if self.code is None or self.pid is None:
            return False
        self._release()
        with contextlib.suppress(Exception):
            self._ask(self.pid)
        return True

    def _pump(
        self,
        recv: Callable[[int], bytes],
        ready: Callable[[], bool],
        feed: Callable[[bytes], None],
        over: Callable[[], bool],
    ) -> None:
        while True:
            try:
                piece = recv(_CHUNK)
            except TimeoutError:
                if over() and not ready():
                    return
                continue
            if not piece:
                return
            feed(piece)

    def _write(self, channel: Channel) -> None:
        rest = memoryview(self._data)
        while rest:
            try:
                sent = channel.send(bytes(rest[:_CHUNK]))
            except TimeoutError:
                continue
            except OSError:  # the command has ended without reading all its input
                return
            if not sent:
                return
            rest = rest[sent:]
