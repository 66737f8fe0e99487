"""One command running at the other end of an SSH channel."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Protocol

from vbench.hosts.base import Connection
from vbench.hosts.ssh.wrapper import Markers, new_token, wrap

_CHUNK = 1 << 15
_LINGER = 5.0  # seconds to wait for the server to close a channel whose streams have ended
_QUIET = 0.5  # seconds without a byte after the command's end, until we ask whether more can come


class Channel(Protocol):
    """What is used here of an SSH session channel."""

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
    """What is used of an SSH transport once it is logged in. It raises exceptions of many kinds."""

    def open_session(self, *, timeout: float | None) -> Channel: ...  # noqa: D102
    def open_channel(  # noqa: D102
        self, kind: str, dest: tuple[str, int], src: tuple[str, int], /, *, timeout: float | None
    ) -> Connection: ...
    def is_active(self) -> bool: ...  # noqa: D102
    def join(self, timeout: float | None, /) -> None: ...  # noqa: D102


class RemoteCommand:
    """Starts a command on a channel of its own, and feeds and drains it in threads.

    ``started`` is set when ``pid`` is known, which is its process group as well; ``done`` when both streams
    have ended and the channel is closed. ``code`` is ``None`` when the far end has not told how the command
    ended; ``finished`` then says whether the connection lived up to the command's end.

    ``gate`` keeps the ends of commands apart from the starts of others on the same connection: dropbear
    closes a session that has not been given its command yet when the shell of another session exits, and
    breaks down when the command comes after that.
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
        self._line = quote(wrap(argv, token, len(data))).encode(errors="surrogateescape")
        self._thread(self._serve)

    @property
    def pid(self) -> int | None:
        """Number of the command's process group at the far end, once known."""
        return self._markers.pid

    @property
    def code(self) -> int | None:
        """Exit code, once told."""
        return self._markers.code

    def close(self) -> None:
        """Give the command up, if it is not done."""
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
        except Exception as error:  # whatever the transport has to say
            self.failure = error
        finally:
            self.elapsed = self.elapsed or time.monotonic() - begin
            self._release()
            self.close()
            for thread in threads:
                thread.join()
            self.done.set()

    def _exec(self) -> tuple[Channel, float]:
        """A channel on which the command has been started, and when."""
        with self._gate:
            channel = self._channel = self._opener()
            if self._closing:
                raise InterruptedError("given up before it was started")
            channel.settimeout(_QUIET)
            begin = time.monotonic()
            channel.exec_command(self._line)
            return channel, begin

    def _release(self) -> None:
        if self._holding:
            self._holding = False
            self._gate.release()

    def _all_told(self) -> bool:
        """Whether the streams have nothing more to come, although they are open.

        After the end, only a daemon that left the group can hold them open. The server handles our question
        after what it has read from the command, so an answer means that nothing more comes.
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
            except OSError:  # the command has ended without reading all of it
                return
            if not sent:
                return
            rest = rest[sent:]
