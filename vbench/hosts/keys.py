"""SSH keys: one client key per machine, and a host key of its own for every environment."""

from __future__ import annotations

import os
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from vbench import paths
from vbench.errors import HostError


@dataclass(frozen=True)
class KeyPair:
    """An ed25519 key pair."""

    private: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        """A fresh key pair."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def public(self) -> str:
        """The public half as one line of OpenSSH: ``ssh-ed25519 AAAA...``."""
        return self.private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    @property
    def openssh(self) -> bytes:
        """The private half as OpenSSH keeps it."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


class HostKey(KeyPair):
    """The host key of one environment, made by the harness and pinned when it connects."""

    @property
    def dropbear(self) -> bytes:
        """The private half as dropbear keeps it: the key's type, then seed and public key."""
        seed = self.private.private_bytes_raw()
        point = self.private.public_key().public_bytes_raw()
        return _ssh_string(b"ssh-ed25519") + _ssh_string(seed + point)


def _ssh_string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def client_key_path() -> Path:
    """Where the client key of this machine's user lies."""
    return paths.state() / "id_ed25519"


def client_key() -> KeyPair:
    """The key that vbench logs in with; made on first use, and the same for all processes of this user."""
    path = client_key_path()
    try:
        if not path.exists():
            _publish(KeyPair.generate().openssh, path)
        private = load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise HostError(f"the client key {path} cannot be used: {error}", f"remove it: rm {path}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise HostError(f"the client key {path} is not an ed25519 key", f"remove it: rm {path}")
    return KeyPair(private)


def client_public_key() -> str:
    """The line for an environment's ``authorized_keys``."""
    return client_key().public


def _publish(data: bytes, path: Path) -> None:
    """Write a secret so that it appears whole or not at all; when two processes do so, the first one wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
