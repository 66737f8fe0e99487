"""Logging in to the user's own machines, the way that ``ssh`` does: ~/.ssh/config, keys, agent, known hosts."""

from __future__ import annotations

import contextlib
import fnmatch
import getpass
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import paramiko

from vbench.errors import HostError, UsageError
from vbench.hosts.base import Setting
from vbench.hosts.ssh.connect import _LOG, _TROUBLE, _Transport, _tune
from vbench.hosts.ssh.host import SshHost

log = logging.getLogger(__name__)

_PLACE = re.compile(r"(?:(?P<user>[^@\s/]+)@)?(?P<host>\[[0-9a-fA-F:.]+\]|[^@\s/:\[\]]+)(?::(?P<port>\d+))?")
_SYSTEM = Path("/etc/ssh")
_PATIENCE_S = 15.0  # to connect
_SILENCE_S = 40  # that what was sent may stay unacknowledged (tcp(7)): less than any command is given
_HANDSHAKE_S = 60.0  # for each step of the protocol


@dataclass(frozen=True)
class Way:
    """How a machine is reached: as ``user`` at an address, with these keys, through other machines first.

    ``alias``: what known_hosts calls it. ``only``: the agent's keys are offered only if they are among ``keys``.
    """

    name: str
    user: str
    host: str
    port: int
    keys: tuple[str, ...] = ()
    only: bool = False
    alias: str = ""
    through: tuple[Way, ...] = ()

    @property
    def known_as(self) -> str:
        """Its name in known_hosts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
        name = self.alias or self.host
        return name if self.port == 22 or self.alias else f"[{name}]:{self.port}"


def config() -> paramiko.SSHConfig:
    """The user's SSH configuration, and then the system's. Raises ``UsageError`` for a file that cannot be read."""
    lines: list[str] = []
    for path in (Path.home() / ".ssh/config", _SYSTEM / "ssh_config"):
        try:
            lines += path.read_text().splitlines()
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read {path}: {error}") from error
    parsed = paramiko.SSHConfig()
    try:
        parsed.parse(lines)
    except Exception as error:  # paramiko raises bare exceptions for what it cannot parse
        raise UsageError(f"~/.ssh/config: {error}", "try: ssh -G NAME") from error
    return parsed


def names(settings: paramiko.SSHConfig | None = None) -> set[str]:
    """The machines that the user's SSH configuration names, patterns left out."""
    known = (settings or config()).get_hostnames()
    return {name for name in known if not set(name) & set("*?!")}


def way(name: str, settings: paramiko.SSHConfig | None = None) -> Way:
    """How the machine ``name`` is reached: an alias of the SSH configuration, or ``user@host:port``.

    Raises ``UsageError`` for a name that is neither, and for settings that vbench does not follow.
    """
    return _way(name, settings or config(), ())


def _way(name: str, settings: paramiko.SSHConfig, before: tuple[str, ...]) -> Way:
    match = _PLACE.fullmatch(name)
    if match is None:
        raise UsageError(f"{name!r} names no machine", "write an alias of ~/.ssh/config, or user@host:port")
    asked = match["host"].strip("[]")
    if not match["user"] and not before and not _named(asked, settings):
        raise UsageError(
            f"{name} is neither a layer nor a machine: ~/.ssh/config has no Host {asked}",
            "see: vbench layers; or write user@host",
        )
    found: dict[str, Any] = dict(settings.lookup(asked))
    if (command := found.get("proxycommand", "none")) != "none":
        raise UsageError(
            f"{name} is reached by ProxyCommand {command}, which vbench does not run",
            "use ProxyJump in ~/.ssh/config",
        )
    jumps = [each for each in found.get("proxyjump", "none").split(",") if each.strip().lower() != "none"]
    if name in before or len(before) > 8:
        raise UsageError(f"the way to {name} leads through itself: {' > '.join((*before, name))}")
    return Way(
        name,
        match["user"] or found.get("user") or getpass.getuser(),
        found.get("hostname", asked),
        int(match["port"] or found.get("port", 22)),
        tuple(str(Path(path).expanduser()) for path in found.get("identityfile", ())),
        found.get("identitiesonly", "no").lower() == "yes",
        found.get("hostkeyalias", ""),
        tuple(_way(each.strip(), settings, (*before, name)) for each in jumps),
    )


def _named(name: str, settings: paramiko.SSHConfig) -> bool:
    """Whether the configuration has something to say of this name, other than of all."""
    patterns = settings.get_hostnames() - {"*"}
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns if not pattern.startswith("!"))


@contextmanager
def log_in(to: Way, *, accept_new: bool = False) -> Iterator[SshHost]:
    """A login at one of the user's machines, by the user's keys; its host key must be in known_hosts.

    With ``accept_new``, a machine that is in no known_hosts is added to the user's. Raises ``HostError`` with what to
    do about it.
    """
    with ExitStack() as opened:
        transport: paramiko.Transport | None = None
        for each in (*to.through, to):
            transport = opened.enter_context(_transport(each, transport, accept_new))
        assert transport is not None  # noqa: S101
        log.info("%s: logged in as %s at %s, port %d", to.name, to.user, to.host, to.port)
        sock = transport.sock
        peer = sock.getsockname()[0] if isinstance(sock, socket.socket) else "127.0.0.1"
        yield SshHost(transport, Setting(to.name, peer=peer), posix=False)


@contextmanager
def _transport(to: Way, before: paramiko.Transport | None, accept_new: bool) -> Iterator[paramiko.Transport]:
    hint = f"try: ssh {to.name}"
    client = paramiko.SSHClient()
    client.set_log_channel(_LOG)
    for path in (Path.home() / ".ssh/known_hosts", _SYSTEM / "ssh_known_hosts"):
        with contextlib.suppress(FileNotFoundError):
            client.load_system_host_keys(str(path))
    client.set_missing_host_key_policy(_Unknown(to, accept_new))
    try:
        try:
            sock: Any = None
            if before is not None:
                sock = before.open_channel(
                    "direct-tcpip", (to.host, to.port), ("127.0.0.1", 0), timeout=_PATIENCE_S
                )
            elif to.alias:  # paramiko looks a machine up by the name that it is connected by
                sock = socket.create_connection((to.host, to.port), _PATIENCE_S)
            client.connect(
                to.alias or to.host,
                22 if to.alias else to.port,
                to.user,
                key_filename=cast(Any, [path for path in to.keys if Path(path).exists()] or None),
                allow_agent=not (to.only and to.keys),
                look_for_keys=not to.keys,
                sock=sock,
                timeout=_PATIENCE_S,
                banner_timeout=_HANDSHAKE_S,
                auth_timeout=_HANDSHAKE_S,
                transport_factory=_Transport,
            )
        except paramiko.BadHostKeyException as error:
            raise HostError(
                f"{to.name} presents the host key {error.key.fingerprint}, "
                f"but known_hosts has {error.expected_key.fingerprint} for {to.known_as}",
                f"if the machine was set up anew: ssh-keygen -R '{to.known_as}'",
            ) from error
        except paramiko.PasswordRequiredException as error:
            raise HostError(f"{to.name}: the key is locked by a passphrase", "unlock it: ssh-add") from error
        except paramiko.AuthenticationException as error:
            raise HostError(f"{to.name} accepts none of your SSH keys for {to.user}", hint) from error
        except _TROUBLE as error:
            raise HostError(
                f"cannot connect to {to.name} ({to.host}, port {to.port}): {error}", hint
            ) from error
        transport = client.get_transport()
        assert transport is not None  # noqa: S101
        _tune(transport)
        if isinstance(transport.sock, socket.socket):
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_S * 1000)
        yield transport
    finally:
        client.close()


class _Unknown(paramiko.MissingHostKeyPolicy):
    """What happens with the key of a machine that is in no known_hosts."""

    def __init__(self, to: Way, accept: bool) -> None:
        self._to, self._accept = to, accept

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        line = f"{self._to.known_as} {key.get_name()} {key.get_base64()}"
        if not self._accept:
            raise HostError(
                f"the host key of {self._to.name} is not known; it shows {key.fingerprint}",
                f"if that is the right one, add to ~/.ssh/known_hosts (vbench identify --accept-new does):\n{line}",
            )
        path = Path.home() / ".ssh/known_hosts"
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with path.open("a") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise HostError(f"cannot write {path}: {error.strerror}") from error
        log.warning("the host key of %s is now in %s: %s", self._to.name, path, key.fingerprint)
