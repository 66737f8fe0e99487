"""What only hosts over SSH do: log in, refuse the wrong key, notice that the connection is gone."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from vbench.errors import BootError, ConnectionLost, HostError
from vbench.hosts import keys
from vbench.hosts.keys import HostKey, KeyPair
from vbench.hosts.local import LocalHost
from vbench.hosts.ssh.connect import remote
from vbench.hosts.ssh.wrapper import Markers, new_token, signal_group

from .conftest import Server, Subject, free_port, program


def soon(action: Callable[[], None] | None) -> threading.Timer:
    assert action is not None
    timer = threading.Timer(1.0, action)
    timer.start()
    return timer


def test_connection_lost_during_run(doomed: Subject) -> None:
    timer = soon(doomed.cut)
    start = time.monotonic()
    with pytest.raises(ConnectionLost, match="there"):
        doomed.host.run(["sleep", "30"])
    assert time.monotonic() - start < 10
    timer.join()
    for attempt in (
        lambda: doomed.host.run(["true"]),
        lambda: doomed.host.get("/etc/passwd"),
        lambda: doomed.host.put(b"x", "/tmp/vbench-never"),
        lambda: doomed.host.dial(("127.0.0.1", 1)),
        lambda: doomed.host.spawn(["true"]).__enter__(),
    ):
        with pytest.raises(ConnectionLost, match="there"):
            attempt()


def test_connection_lost_under_a_process(doomed: Subject) -> None:
    assert doomed.cut is not None
    with doomed.host.spawn(["sleep", "30"]) as process:
        assert process.poll() is None
        doomed.cut()
        with pytest.raises(ConnectionLost):
            process.wait(20)
        with pytest.raises(ConnectionLost):
            process.poll()


def test_wrong_host_key(server: Server) -> None:
    start = time.monotonic()
    with (
        pytest.raises(HostError, match=r"SHA256:.* SHA256:"),
        server.connect(LocalHost(), host_key=HostKey.generate()),
    ):
        pass
    assert time.monotonic() - start < 5


def test_wrong_client_key(server: Server) -> None:
    start = time.monotonic()
    with pytest.raises(HostError, match="refuses"), server.connect(LocalHost(), key=KeyPair.generate()):
        pass
    assert time.monotonic() - start < 10


def test_nobody_there() -> None:
    key = KeyPair.generate()
    nobody = Server(None, ("127.0.0.1", free_port()), HostKey.generate(), key, "root")
    start = time.monotonic()
    with pytest.raises(HostError, match="nothing answers"), nobody.connect(LocalHost(), deadline=1.0):
        pass
    assert 0.9 < time.monotonic() - start < 3


def test_boot_failure_ends_the_wait() -> None:
    nobody = Server(None, ("127.0.0.1", free_port()), HostKey.generate(), KeyPair.generate(), "x")
    looks: list[float] = []

    def alive() -> None:
        looks.append(time.monotonic())
        if len(looks) > 3:
            raise BootError("the guest has died")

    with pytest.raises(BootError), nobody.connect(LocalHost(), alive=alive):
        pass


def test_nothing_is_left_of_a_handshake_given_up() -> None:
    script = """
import sys, threading, time
from vbench.errors import BootError
from vbench.hosts.base import Setting
from vbench.hosts.keys import HostKey, KeyPair
from vbench.hosts.local import LocalHost
from vbench.hosts.ssh.connect import connect
end = time.monotonic() + 1.5
def alive():
    if time.monotonic() > end: raise BootError("dead")
try:
    with connect(LocalHost(), ("127.0.0.1", int(sys.argv[1])), Setting("x"), host_key=HostKey.generate(),
                 key=KeyPair.generate(), deadline=300, alive=alive): pass
except BootError:
    time.sleep(0.5)
    print([thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)])
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        argv = [sys.executable, "-c", script, str(silent.getsockname()[1])]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as harness:
            connection = silent.accept()[0]
            connection.send(b"SSH-2.0-silent\r\n")
            try:
                assert harness.communicate(timeout=15)[0] == b"[]\n"
            finally:
                harness.kill()
                connection.close()


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_marks_are_taken_out(size: int) -> None:
    token = new_token()
    told = f"{token} P 12\nvben vbench-\n{token[:-1]}\nno newline{token} X 143\nlate{token[:9]}".encode()
    markers = Markers(token)
    clear = b"".join(markers.feed(told[i : i + size]) for i in range(0, len(told), size)) + markers.rest()
    assert clear == f"vben vbench-\n{token[:-1]}\nno newlinelate{token[:9]}".encode()
    assert (markers.pid, markers.code) == (12, 143)


def test_text_is_not_held_back() -> None:
    assert Markers(new_token()).feed(b"ready\n") == b"ready\n"


def test_kill_before_there_is_a_group() -> None:
    with LocalHost().spawn(["sh", "-c", "sleep 1000 & echo $!; wait; echo gone"]) as process:
        while not process.tail():
            time.sleep(0.02)
        LocalHost().run(signal_group(int(process.tail()), signal.SIGKILL))
        process.wait(5)
        assert "gone" in process.tail()


@pytest.mark.parametrize("prologue", ["", "sleep 2.5; ", "sleep 8; "])
def test_slow_server(prologue: str, server: Server, tmp_path: Path) -> None:
    """A server behind something that accepts at once and lets nothing through for a while."""
    nc = program("busybox")
    port = free_port()
    relay = tmp_path / "relay"
    relay.write_text(f"#!/bin/sh\n{prologue}exec {nc} nc 127.0.0.1 {server.address[1]}\n")
    relay.chmod(0o755)
    argv = [nc, "nc", "-ll", "-p", str(port), "-e", str(relay)]
    with LocalHost().spawn(argv):
        slow = Server(server.process, ("127.0.0.1", port), server.host_key, server.client, server.user)
        with slow.connect(LocalHost()) as host:
            assert host.run(["echo", "hi"]).text == "hi"


def test_through_another_host(server: Server) -> None:
    with server.connect(LocalHost(), name="outer") as outer, server.connect(outer, name="inner") as inner:
        assert inner.run(["cat"], input=bytes(3 << 20)).stdout == bytes(3 << 20)
        assert inner.run(["sh", "-c", "exit 3"], check=False).code == 3


def test_nothing_is_left_on_the_server(server: Server) -> None:
    with server.connect(LocalHost()) as host:
        for _ in range(20):
            host.run(["true"])
        with host.spawn(["sleep", "1000"]):
            pass
    assert server.process is not None
    end = time.monotonic() + 5
    while left := psutil.Process(server.process.pid).children(recursive=True):
        assert time.monotonic() < end, left
        time.sleep(0.05)


def test_remote(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    folder, (address, port) = tmp_path / ".ssh", server.address
    folder.mkdir()
    with pytest.raises(HostError, match="known_hosts") as caught, remote(server.user, address, port):
        pass
    assert f"ssh -p {port} {server.user}@{address}" in (caught.value.hint or "")
    (folder / "known_hosts").write_text(f"[{address}]:{port} {server.host_key.public}\n")
    with pytest.raises(HostError, match="methods"), remote(server.user, address, port):
        pass
    (folder / "id_ed25519").write_bytes(KeyPair.generate().openssh)
    with pytest.raises(HostError, match="accepts none of your SSH keys"), remote(server.user, address, port):
        pass
    (folder / "id_ed25519").write_bytes(server.client.openssh)
    (folder / "id_ed25519").chmod(0o600)
    with remote(server.user, address, port) as host:
        assert host.name == f"{server.user}@{address}:{port}"
        assert host.run(["printf", "%s", "it's $x\n"]).stdout == b"it's $x\n"
        assert host.run(["sh", "-c", "sleep 100 & exit 4"], check=False).code == 4
    (folder / "known_hosts").write_text(f"[{address}]:{port} {HostKey.generate().public}\n")
    with pytest.raises(HostError, match="SHA256"), remote(server.user, address, port):
        pass


def test_client_key_is_made_once(tmp_path: Path) -> None:
    script = "from vbench.hosts.keys import client_public_key; print(client_public_key())"
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={"XDG_STATE_HOME": str(tmp_path / "a/state")},
        )
        for _ in range(4)
    ]
    assert len({maker.communicate()[0] for maker in makers}) == 1
    folder = tmp_path / "a/state/vbench"
    assert [path.name for path in folder.iterdir()] == ["id_ed25519"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "id_ed25519").stat().st_mode) == 0o600


def test_client_key_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = keys.client_key()
    assert keys.client_key().public == made.public
    keys.client_key_path().write_text("nonsense")
    with pytest.raises(HostError, match="client key"):
        keys.client_key()


def test_dropbear_reads_our_key(tmp_path: Path) -> None:
    tool, key = program("dropbearkey"), HostKey.generate()
    (tmp_path / "key").write_bytes(key.dropbear)
    assert key.public in LocalHost().run([tool, "-y", "-f", str(tmp_path / "key")]).text


def test_openssh_reads_our_key(tmp_path: Path) -> None:
    tool, key = program("ssh-keygen"), HostKey.generate()
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_bytes(key.openssh)
    assert LocalHost().run([tool, "-y", "-f", str(tmp_path / "key")]).text == key.public
