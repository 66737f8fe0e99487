"""The hosts that the contract is checked on. A further kind is one more factory in ``HOSTS``."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from vbench.hosts.base import Host, Process, Setting
from vbench.hosts.keys import HostKey, KeyPair
from vbench.hosts.local import LocalHost
from vbench.hosts.ssh.connect import connect

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@dataclass
class Subject:
    """A host under test, and what cuts the connection to it, if there is one."""

    host: Host
    cut: Callable[[], None] | None = None


@dataclass
class Server:
    """An SSH server on the loopback."""

    process: Process | None
    address: tuple[str, int]
    host_key: HostKey
    client: KeyPair
    user: str

    def connect(self, parent: Host, **options: object) -> AbstractContextManager[Host]:
        setting = Setting(str(options.pop("name", "there")))
        given = {
            "user": self.user,
            "host_key": self.host_key,
            "key": self.client,
            "deadline": 30.0,
        }
        return connect(parent, self.address, setting, **(given | options))  # type: ignore[arg-type]

    def kill(self) -> None:
        """Kill the server and the processes it has started for its connections."""
        assert self.process is not None
        server = psutil.Process(self.process.pid)
        for process in [*server.children(recursive=True), server]:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since
                process.kill()


def program(name: str) -> str:
    """Path of a server program; skips the test where there is none."""
    path = shutil.which(name, path=PATH)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(argv: list[str], port: int, host_key: HostKey, client: KeyPair, user: str) -> Iterator[Server]:
    address = ("127.0.0.1", port)
    with LocalHost().spawn(argv) as process:
        end = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(address) == 0:
                    break
            time.sleep(0.02)
        else:
            pytest.skip(f"{argv[0]} does not start here: {process.tail()}")
        yield Server(process, address, host_key, client, user)


@contextmanager
def sshd() -> Iterator[Server]:
    """OpenSSH, never as root: root gives it to nobody, who has a shell in a mount namespace of its own."""
    path, root = program("sshd"), os.geteuid() == 0
    user = pwd.getpwnam("nobody") if root else pwd.getpwuid(os.geteuid())
    with tempfile.TemporaryDirectory(prefix="vbench-sshd-") as name:
        home, port, host_key, client = Path(name), free_port(), HostKey.generate(), KeyPair.generate()
        (home / "config").write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {home}/host_key\nAuthorizedKeysFile {home}/keys\n"
            "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPrintMotd no\n"
        )
        (home / "keys").write_text(client.public + "\n")
        (home / "host_key").touch(mode=0o600)
        (home / "host_key").write_bytes(host_key.openssh)
        argv = [path, "-D", "-e", "-f", str(home / "config")]
        if root:
            (home / "passwd").write_text(f"nobody:x:{user.pw_uid}:{user.pw_gid}::{home}:/bin/sh\n")
            (home / "shadow").write_text("nobody:x:19000:0:99999:7:::\n")
            for entry in (home, *home.iterdir()):
                os.chown(entry, user.pw_uid, user.pw_gid)
            argv = [
                *("unshare", "--mount", "sh", "-c"),
                'mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/shadow" /etc/shadow &&'
                ' u=$2 g=$3 && shift 3 && exec setpriv --reuid "$u" --regid "$g" --clear-groups -- "$@"',
                *("sshd", str(home), str(user.pw_uid), str(user.pw_gid)),
                *argv,
            ]
        with served(argv, port, host_key, client, user.pw_name) as server:
            yield server


@contextmanager
def dropbear() -> Iterator[Server]:
    """Dropbear, which looks for keys in the user's home only: it gets one in a mount namespace of its own."""
    path = program("dropbear")
    user = pwd.getpwuid(os.geteuid())
    with tempfile.TemporaryDirectory(prefix="vbench-dropbear-") as name:
        home, port, host_key, client = Path(name), free_port(), HostKey.generate(), KeyPair.generate()
        (home / ".ssh").mkdir(mode=0o700)
        (home / ".ssh/authorized_keys").write_text(client.public + "\n")
        (home / "host_key").touch(mode=0o600)
        (home / "host_key").write_bytes(host_key.dropbear)
        mine = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
        argv = [
            *("unshare", "--mount", *mine, "sh", "-c"),
            'mount --bind "$1" "$2" && shift 2 && exec "$@"',
            *("dropbear", str(home), user.pw_dir),
            *(path, "-F", "-E", "-s", "-m", "-p", f"127.0.0.1:{port}"),
            *("-r", f"{home}/host_key", "-P", f"{home}/pid"),  # removes the latter when it ends
        ]
        with served(argv, port, host_key, client, user.pw_name) as server:
            yield server


SERVERS: dict[str, Callable[[], AbstractContextManager[Server]]] = {"sshd": sshd, "dropbear": dropbear}


@contextmanager
def over_ssh(kind: str) -> Iterator[Subject]:
    with SERVERS[kind]() as server, server.connect(LocalHost()) as host:
        yield Subject(host, server.kill)


@contextmanager
def local() -> Iterator[Subject]:
    yield Subject(LocalHost())


HOSTS: dict[str, Callable[[], AbstractContextManager[Subject]]] = {
    "local": local,
    "ssh-sshd": lambda: over_ssh("sshd"),
    "ssh-dropbear": lambda: over_ssh("dropbear"),
}


@pytest.fixture(scope="module", params=HOSTS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    with HOSTS[request.param]() as subject:
        yield subject


@pytest.fixture
def host(subject: Subject) -> Host:
    return subject.host


@pytest.fixture
def scratch(host: Host) -> Iterator[str]:
    """An empty folder on the host."""
    path = host.run(["mktemp", "-d", "/tmp/vbench-contract-XXXXXX"]).text
    yield path
    host.run(["rm", "-rf", path])


@pytest.fixture(params=[name for name in HOSTS if name.startswith("ssh-")])
def doomed(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """A host of its own for a test that cuts the connection."""
    with HOSTS[request.param]() as subject:
        yield subject


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with SERVERS[request.param]() as server:
        yield server
