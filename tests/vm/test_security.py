"""What environments open to others, whose turn it is to measure, and what a killed harness leaves."""

from __future__ import annotations

import ipaddress
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import paramiko
import psutil
import pytest

from vbench.hosts import keys
from vbench.hosts.local import LocalHost
from vbench.observe import facts

from .conftest import LAYERS, Opener, Running, a_guest, rows

ROOT = Path(__file__).parent.parent.parent
PRIVATE = ipaddress.ip_network("10.77.0.0/16")


def listening() -> set[tuple[str, int]]:
    """Addresses and ports of this network namespace that somebody could connect to, but for loopback's."""
    found = set()
    for kind in ("tcp", "udp"):
        for each in psutil.net_connections(kind):
            if each.laddr and each.status in {psutil.CONN_LISTEN, psutil.CONN_NONE} and not each.raddr:
                address = ipaddress.ip_address(each.laddr.ip.split("%")[0])
                if not address.is_loopback:
                    found.add((str(address), each.laddr.port))
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_no_environment_listens_to_the_world(opener: Opener, layer: str) -> None:
    before = listening()
    with opener(layer) as host:
        opened = {
            (address, port)
            for address, port in listening() - before
            if ipaddress.ip_address(address) not in PRIVATE
        }
        assert opened == set()
        assert host.run(["true"]).code == 0


def test_what_listens_is_seen() -> None:
    before = listening()
    script = (
        "import socket, time; s = socket.create_server(('0.0.0.0', 0)); print(s, flush=True); time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(listening() - before) >= 1
        process.kill()


def test_the_other_end_of_network_workloads_listens_on_the_link_only(
    start: Callable[..., Running], can: Callable[[str], None], tmp_path: Path
) -> None:
    kernel = a_guest()
    can(kernel)
    before, seen = listening(), set[tuple[str, int]]()
    running = start("run", "-s", kernel, "-w", "net-latency", "--blocks", "2", "--out", tmp_path / "run")
    while running.popen.poll() is None:
        seen |= listening() - before
    assert running.end().returncode == 0
    assert seen, "the server was not seen at all"
    assert {address for address, _ in seen if ipaddress.ip_address(address) not in PRIVATE} == set()
    assert listening() <= before


def test_keys_are_secret_pinned_and_the_only_way_in(opener: Opener) -> None:
    path = keys.client_key_path()
    with opener("chroot") as host:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert (
            host.run(["stat", "-c", "%a", "/vbench/hostkey", "/root/.ssh/authorized_keys"]).text == "600\n600"
        )
        (port,) = {int(word.rpartition(":")[2]) for word in _words(host.run(["cat", "/proc/1/cmdline"]).text)}
        transport = paramiko.Transport(("127.0.0.1", port))
        try:
            transport.start_client(timeout=10)
            with pytest.raises(paramiko.BadAuthenticationType) as caught:
                transport.auth_password("root", "")
            assert caught.value.allowed_types == ["publickey"]
            with pytest.raises(paramiko.AuthenticationException):
                transport.auth_publickey("root", paramiko.ECDSAKey.generate())
        finally:
            transport.close()


def _words(text: str) -> list[str]:
    return [word for word in text.split("\0") if re.fullmatch(r"127\.0\.0\.1:\d+", word)]


def test_a_second_run_is_refused_and_says_who_measures(
    start: Callable[..., Running], can: Callable[[str], None], tmp_path: Path
) -> None:
    can("chroot")
    first = start("run", "-s", "chroot", "-w", "os-nullcall", "--blocks", "50", "--out", tmp_path / "first")
    first.wait_for(lambda: len(rows(tmp_path / "first")) > 3)
    for argv in (
        ("run", "-s", "chroot", "-w", "os-nullcall", "--blocks", "1", "--out", tmp_path / "second"),
        ("resume", tmp_path / "first"),
        ("clean", "--capsules"),
    ):
        done = start(*argv).end()
        assert done.returncode in {1, 2}, argv
        assert f"process {first.popen.pid} " in done.stderr, argv
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "second").exists()
    assert start("exec", "chroot", "--", "true").end().returncode == 0  # a session of its own
    first.popen.terminate()
    assert first.end().returncode == 130


def test_faults_in_short(can: Callable[[str], None]) -> None:
    """The fault campaign with few kills: ``benchmarks/faults.py`` does a hundred.

    It looks for mounts that are left, so it has a mount namespace of its own: tests beside this one mount things, too.
    """
    can("chroot")
    alone = ["unshare", "--mount", "--propagation", "private"]
    words = ["--kills", "4", "kills", "disk", "hung", "garbled"]
    done = subprocess.run(
        [*alone, sys.executable, ROOT / "benchmarks/faults.py", *words],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 bundles complete and equal in row keys" in done.stdout


def test_facts_are_of_each_environment(opener: Opener) -> None:
    kernel = a_guest()
    with opener(kernel) as host:
        inside, outside = facts.collect(host), facts.collect(LocalHost())
    assert inside.keys() >= {"kernel", "cpu", "cpu_flags", "memory_kib", "scratch_file_system", "virtualized"}
    assert inside["virtualized"].startswith(kernel)
    assert inside["kernel"] != outside["kernel"]
    assert not inside["scratch_file_system"].startswith("unavailable")
