"""SSH connections: to guests, with keys we generated ourselves, and to the user's own machines."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import paramiko
from paramiko.common import cMSG_CHANNEL_CLOSE, cMSG_CHANNEL_REQUEST
from paramiko.packet import Packetizer

from vbench.errors import ConnectionLost, HostError
from vbench.hosts.base import Address, Connection, Host, Setting
from vbench.hosts.keys import HostKey, KeyPair, client_key
from vbench.hosts.ssh.host import SshHost

__all__ = ["SshHost", "connect", "remote"]

_TROUBLE = (paramiko.SSHException, EOFError, OSError)
_FIRST_PATIENCE = 5.0  # seconds for a server's banner; doubled each time none came, for slow guests
_SLOW = 600.0  # seconds that an emulated guest may take for one step of the protocol
_PAUSE = 0.1
_KEEPALIVE = 30

log = logging.getLogger(__name__)

# Whatever the transport logs is raised as an exception too; without this, Python would print it.
_LOG = "vbench.transport"
logging.getLogger(_LOG).addHandler(logging.NullHandler())
logging.getLogger(_LOG).propagate = False


class _Packets(Packetizer):
    """No rekeying during a measurement; AES-CTR is safe for far more data than this."""

    REKEY_BYTES = 1 << 36
    REKEY_PACKETS = 1 << 31


class _Transport(paramiko.Transport):
    """A transport whose channels send in order, and that reports errors by exceptions only."""

    def __init__(self, connection: Any, **options: Any) -> None:
        super().__init__(connection, packetizer_class=_Packets, **options)
        self.set_log_channel(_LOG)
        if isinstance(connection, socket.socket) and connection.family != socket.AF_UNIX:
            # Or the small packets that begin a command wait 40 ms for each other's acknowledgement.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def open_channel(self, *args: Any, **options: Any) -> paramiko.Channel:
        """Open a channel."""
        channel = super().open_channel(*args, **options)
        channel.transport = cast(paramiko.Transport, _Sender(self, channel))
        return channel


class _Sender:
    """Stands between a channel and its transport, and lets no message follow the channel's close.

    Several threads use a channel, and a message from one of them may be overtaken by another one's close.
    Servers drop the whole connection over a message for a channel they no longer know.
    """

    def __init__(self, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        self._transport: Any = transport  # sending is a private method
        self._channel = weakref.proxy(channel)
        self._lock = threading.Lock()
        self._over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _send_user_message(self, message: paramiko.Message) -> None:
        kind = message.asbytes()[:1]
        with self._lock:
            if kind == cMSG_CHANNEL_REQUEST and self._channel.closed:
                raise EOFError("the channel was closed")  # otherwise paramiko would wait for a reply forever
            if not self._over:
                self._over = kind == cMSG_CHANNEL_CLOSE
                self._transport._send_user_message(message)


@contextmanager
def connect(
    parent: Host,
    address: Address,
    setting: Setting,
    *,
    host_key: HostKey,
    deadline: float,
    user: str = "root",
    key: KeyPair | None = None,
    alive: Callable[[], None] = lambda: None,
) -> Iterator[SshHost]:
    """Log in through its parent to an environment that may still be starting; yields a host with ``setting``.

    Retries until ``deadline`` seconds have passed, calling ``alive`` in between, which raises if there is
    nothing left to wait for. Only ``host_key`` is accepted; only ``key`` (vbench's own) is offered.
    """
    login = _Login(setting.name, user, key or client_key(), host_key, time.monotonic() + deadline, alive)
    transport = login.persist(parent, address)
    try:
        yield SshHost(transport, setting)
    finally:
        _close(transport)


@contextmanager
def remote(user: str, host: str, port: int = 22) -> Iterator[SshHost]:
    """Log in to one of the user's machines with the user's own keys; its host key must be in known_hosts."""
    place = f"{user}@{host}" if port == 22 else f"{user}@{host}:{port}"
    hint = f"try: ssh {f'-p {port} ' if port != 22 else ''}{user}@{host}"
    client = paramiko.SSHClient()
    client.set_log_channel(_LOG)
    client.load_system_host_keys()
    client.set_missing_host_key_policy(_Unknown(place, hint))
    try:
        try:
            client.connect(
                host,
                port,
                user,
                timeout=10,
                banner_timeout=60,
                auth_timeout=60,
                transport_factory=_Transport,
            )
        except paramiko.BadHostKeyException as error:
            raise _mismatch(place, error.expected_key, error.key) from error
        except paramiko.AuthenticationException as error:
            raise HostError(f"{place} accepts none of your SSH keys", hint) from error
        except _TROUBLE as error:
            raise HostError(f"cannot connect to {place}: {error}", hint) from error
        transport = client.get_transport()
        assert transport is not None  # noqa: S101
        _tune(transport)
        log.info("%s: logged in", place)
        peer = cast(socket.socket, transport.sock).getsockname()[0]
        yield SshHost(transport, Setting(place, peer=peer), posix=False)
    finally:
        client.close()


class _Unknown(paramiko.MissingHostKeyPolicy):
    def __init__(self, place: str, hint: str) -> None:
        self._error = HostError(f"the host key of {place} is not in your known_hosts", f"{hint}, once")

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        raise self._error


@dataclass(frozen=True)
class _Login:
    """Who logs in where, and how long to keep trying."""

    name: str
    user: str
    key: KeyPair
    host_key: HostKey
    end: float
    alive: Callable[[], None]

    def persist(self, parent: Host, address: Address) -> paramiko.Transport:
        """Retry until a transport is logged in."""
        patience = _FIRST_PATIENCE
        trouble: object = "no time to try"
        begin, tries, logged = time.monotonic(), 0, None
        while (left := self.end - time.monotonic()) > 0:
            if trouble != logged and tries:  # while a guest boots, the same error occurs ten times a second
                log.debug("%s: login attempt %d at %s: %s", self.name, tries, address, trouble)
                logged = trouble
            self.alive()
            tries += 1
            try:
                connection = parent.dial(address, min(left, 10.0))
            except ConnectionLost:
                raise
            except HostError as error:
                trouble = error.message
            else:
                transport = _transport(connection, min(patience, left), left)
                try:
                    self._try(transport)
                except _TROUBLE as error:
                    _close(transport)
                    trouble = str(error) or type(error).__name__
                    if not transport.remote_version:
                        patience *= 2
                except BaseException as error:
                    _close(transport)
                    log.debug("%s: login attempt %d at %s, giving up: %s", self.name, tries, address, error)
                    raise
                else:
                    seconds = time.monotonic() - begin
                    log.info("%s: logged in after %.1f s, on attempt %d", self.name, seconds, tries)
                    return transport
            time.sleep(_PAUSE)
        raise HostError(f"{self.name}: no SSH login at {address} in time: {trouble}")

    def _try(self, transport: paramiko.Transport) -> None:
        """Check the host key and log in; raises one of ``_TROUBLE`` if a retry may succeed."""
        event = threading.Event()
        transport.start_client(event)
        try:
            self._settle(transport, event)
        except paramiko.ssh_exception.IncompatiblePeer as error:
            raise HostError(f"{self.name}: its SSH server is not as vbench set it up: {error}") from error
        pinned, shown = _public(self.host_key), transport.get_remote_server_key()
        if shown.asbytes() != pinned.asbytes():
            raise _mismatch(self.name, pinned, shown)
        event = threading.Event()
        transport.auth_publickey(self.user, _private(self.key), event)
        with contextlib.suppress(paramiko.AuthenticationException):
            self._settle(transport, event)
        if not transport.is_authenticated():
            if transport.is_active():
                raise HostError(f"{self.name} refuses vbench's key for {self.user}")
            raise paramiko.SSHException("the server hung up during login")
        _tune(transport)

    def _settle(self, transport: paramiko.Transport, event: threading.Event) -> None:
        """Wait for a protocol step to succeed."""
        while not event.wait(0.2):
            self.alive()
            if time.monotonic() > self.end:
                raise TimeoutError("the server took too long")
        if (error := transport.get_exception()) is not None:
            raise error
        if not transport.is_active():
            raise paramiko.SSHException("the server hung up")


def _transport(connection: Connection, patience: float, left: float) -> paramiko.Transport:
    transport = _Transport(connection)
    # What dropbear and OpenSSH both support and an emulated processor computes fastest.
    options = transport.get_security_options()
    options.kex = ("curve25519-sha256@libssh.org",)
    options.key_types = ("ssh-ed25519",)
    options.ciphers = ("aes128-ctr",)
    options.digests = ("hmac-sha2-256",)
    transport.banner_timeout = patience
    transport.handshake_timeout = left
    return transport


def _tune(transport: paramiko.Transport) -> None:
    transport.set_keepalive(_KEEPALIVE)
    transport.channel_timeout = _SLOW
    transport.clear_to_send_timeout = _SLOW


def _close(transport: paramiko.Transport) -> None:
    transport.packetizer.complete_handshake()  # otherwise its timer thread lives on
    with contextlib.suppress(*_TROUBLE):
        transport.close()


def _private(key: KeyPair) -> paramiko.PKey:
    return paramiko.Ed25519Key(file_obj=io.StringIO(key.openssh.decode()))


def _public(key: KeyPair) -> paramiko.PKey:
    return paramiko.Ed25519Key(data=base64.b64decode(key.public.split()[1]))


def _mismatch(name: str, pinned: paramiko.PKey, shown: paramiko.PKey) -> HostError:
    return HostError(
        f"{name} presents the host key {shown.fingerprint}, but {pinned.fingerprint} was expected"
    )
