"""What every layer must do while it is open."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from vbench.capsule.capsule import Capsule, verify_inside
from vbench.errors import CommandFailed, CommandTimeout
from vbench.hosts.base import Host
from vbench.hosts.local import LocalHost
from vbench.hosts.placement import Way
from vbench.layers.base import Unavailable, make_layer
from vbench.observe import facts

from .conftest import ISOLATORS, LAYERS, SHAPE, Climber, Opener, a_guest

ON_THE_TESTBED = {
    "testbed": "testbed",
    "kvm": "testbed/kvm",
    "gvisor:kvm": "testbed/gvisor:kvm",
    "libkrun": "testbed/libkrun",
    "virtualbox": "testbed/virtualbox",
    "testbed-vt": "testbed-vt",
    "kvm by Intel VT": "testbed-vt/kvm",
    "testbed-power": "testbed-power",
    "lpar": "testbed-power/lpar",
    "testbed-z": "testbed-z",
    "zkvm": "testbed-z/zkvm",
    "xen": "testbed/xen",
    **{name: f"testbed/xen/{name}" for name in ("pv", "pvh", "hvm")},
}
"""Layers that open for real on the testbed, wherever that runs: as these stacks."""
LONG = ("virtualbox", "testbed-vt", "kvm by Intel VT", "testbed-power", "lpar", "testbed-z", "zkvm")
"""Those of them that take minutes to open, or for some test."""
MACHINES = ("testbed", "testbed-vt", "testbed-power", "testbed-z", "xen")
"""Layers that are machines of their own."""
OTHER = ("testbed-power", "lpar", "testbed-z", "zkvm")
"""Layers in which another payload takes the capsule's place, made for another processor."""


class Opened(NamedTuple):
    """An open layer, and what it is open on."""

    layer: str
    parent: Host
    host: Host


@pytest.fixture(scope="module", params=[*LAYERS, *ON_THE_TESTBED])
def opened(request: pytest.FixtureRequest, climber: Climber) -> Iterator[Opened]:
    """An open layer, shared by the tests of this file."""
    name = request.param
    if name in LONG and not os.environ.get("VBENCH_EVERYWHERE"):
        pytest.skip(f"{name} takes minutes; VBENCH_EVERYWHERE=1 runs it")
    path = ON_THE_TESTBED.get(name)
    if path is None:
        with climber("local") as (root,):
            answer = make_layer(name).probe(root)
        if isinstance(answer, Unavailable):
            pytest.skip(f"{name}: {answer.reason}")
    with climber(path or name) as hosts:
        hosts[-1].run(["true"])  # a testbed starts when something is asked that nobody has asked before
        yield Opened((path or name).rpartition("/")[2], hosts[-2], hosts[-1])


@pytest.fixture
def host(opened: Opened) -> Host:
    return opened.host


def test_runs_commands(host: Host, built: Capsule) -> None:
    assert host.run(["echo", "a  b"]).text == "a  b"
    assert host.run(["id", "-u"]).text == "0"
    assert host.run(["cat"], input=b"\0\xff" * 5000).stdout == b"\0\xff" * 5000
    release = (built.directory / "tree/etc/debian_version").read_text().strip()
    assert host.run(["cat", "/etc/debian_version"]).text == release


def test_carries_exit_codes(host: Host) -> None:
    assert host.run(["sh", "-c", "exit 7"], check=False).code == 7
    assert host.run(["sh", "-c", "kill -9 $$"], check=False).code == 137
    assert host.run(["nosuch-program"], check=False).code == 127
    with pytest.raises(CommandFailed, match="gave exit code 7: why"):
        host.run(["sh", "-c", "echo why >&2; exit 7"])
    with pytest.raises(CommandTimeout):
        host.run(["sleep", "60"], timeout=0.5)
    assert "sleep 60" not in host.run(["ps", "ax"]).text


def test_holds_the_capsule_s_bytes(opened: Opened, built: Capsule) -> None:
    digest = verify_inside(opened.host)
    assert (digest == verify_inside(LocalHost(payload=built.payload()))) == (opened.layer not in OTHER)


def test_runs_the_kernel_of_its_technique(opened: Opened, built: Capsule) -> None:
    release = opened.host.run(["uname", "-r"]).text
    if opened.layer in ISOLATORS:
        assert release == opened.parent.run(["uname", "-r"]).text
    elif opened.layer.startswith("gvisor"):
        assert release != opened.parent.run(["uname", "-r"]).text
        assert "Starting gVisor" in opened.host.run(["dmesg"]).text
    elif opened.layer == "libkrun":
        assert "libkrun" in opened.host.run(["cat", "/proc/version"]).text
    elif opened.layer == "uml":
        assert release in [path.name for path in (built.directory / "tree/usr/lib/uml/modules").iterdir()]
    elif opened.layer in ("testbed-z", "zkvm"):
        assert release.endswith("-s390x")
        above = opened.host.run(["grep", "Control Program", "/proc/sysinfo"], check=False).text
        assert ("KVM/Linux" in above) == (opened.layer == "zkvm")
    elif opened.layer in OTHER:
        assert release.endswith("-powerpc64le")
        said = opened.host.run(["dmesg"]).text
        assert ("Using radix MMU under hypervisor" in said) == (opened.layer == "lpar")
    else:
        assert release == built.manifest.kernel


def test_has_its_own_processes(host: Host) -> None:
    listed = host.run(["ps", "-e", "-o", "comm="]).text.split()
    assert "dropbear" in listed
    assert "pytest" not in listed
    assert "python" not in listed


def test_gets_what_it_says(opened: Opened) -> None:
    """CPUs, memory and disk are those of its placement, which is the shape's where the technique can enforce it."""
    host, placed = opened.host, opened.host.placement
    known = facts.collect(host)
    assert host.run(["nproc"]).text == str(placed.vcpus) == "1"
    if opened.layer not in {*ISOLATORS, "gvisor", "gvisor:kvm", *MACHINES}:
        assert placed.memory_mib == SHAPE.memory_mib
        assert known["cpus"] == "1"
        size = int(host.run(["df", "-Pk", host.scratch]).text.split()[-5])
        assert 0.8 < size / 1024 / SHAPE.disk_mib <= 1
    if placed.memory_mib is not None:
        assert 0.75 < int(known["memory_kib"]) / 1024 / placed.memory_mib <= 1


def test_states_what_the_facts_show(opened: Opened) -> None:
    """Who hands on its parent's own disk or network says so by being equal, and nobody else is equal."""
    host, parent = opened.host, opened.parent

    def same(*argv: str) -> bool:
        return host.run(argv).text == parent.run(argv).text

    if opened.layer == "xen":  # the same machine, booted otherwise
        assert replace(host.placement, memory_mib=None) == replace(parent.placement, memory_mib=None)
        return
    one_kernel = same("grep", "^btime", "/proc/stat")  # some containers are given a boot_id of their own
    assert one_kernel == (opened.layer in ISOLATORS)
    assert (host.placement.disk == parent.placement.disk) == one_kernel
    if opened.layer not in MACHINES:  # which is its own peer
        one_network = one_kernel and same("readlink", "/proc/self/ns/net")
        assert (host.placement.network == parent.placement.network) == one_network
        assert one_network == (opened.layer == "chroot")
        assert host.placement.clock == parent.placement.clock
        chosen = [re.findall(r"\[\w+\]", facts.collect(each)["huge_pages"]) for each in (parent, host)]
        assert chosen[0] == chosen[1] or [] in chosen  # User Mode Linux and a paravirtualized dom0 have none


def test_reaches_its_peer(opened: Opened) -> None:
    """The other end of networks runs on the machine itself; a testbed is a machine of its own, and so is its own."""
    machine = "local/testbed" if "testbed" in opened.host.name else "local"
    if opened.layer in MACHINES:
        assert (opened.host.peer_at, opened.host.peer) == ("", "127.0.0.1")
    elif machine == "local":
        assert opened.host.peer_at == "local"
        says_hello(opened.host)
    else:
        assert opened.host.peer_at == opened.parent.name
        translated = opened.host.placement.network.path is Way.NAT
        assert opened.host.bind == ("127.0.0.1" if translated else opened.host.peer)
        port = "20777"
        serve = 'echo hello | exec "$@"'
        listen = [*opened.parent.program("busybox"), "nc", "-l", "-p", port]
        ask = [*opened.host.program("busybox"), "nc", opened.host.peer, port]
        with opened.parent.spawn(["sh", "-c", serve, "sh", *listen]):
            for _ in range(20):  # until it listens
                if (said := opened.host.run(ask, check=False, timeout=120).text) == "hello":
                    break
            assert said == "hello"


def says_hello(host: Host) -> None:
    """A server on this machine, where the host's peer listens, is reached from inside."""
    with socket.create_server((host.bind, 0)) as server:
        server.settimeout(20)

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"hello\n")

        thread = threading.Thread(target=answer)
        thread.start()
        port = str(server.getsockname()[1])
        said = host.run([*host.program("busybox"), "nc", host.peer, port], timeout=20)
        thread.join()
    assert said.text == "hello"


def test_is_accounted(opened: Opened) -> None:
    host = opened.host
    if opened.layer in MACHINES:  # what emulating it costs the machine outside is no figure of it
        assert (host.process, host.usage()) == (None, None)
        return
    before = host.usage()
    host.run(["sh", "-c", "i=0; while [ $i -lt 50000 ]; do i=$((i + 1)); done"])
    after = host.usage()
    assert host.process is not None
    if opened.layer in {"pv", "pvh", "hvm"}:  # no process of dom0: Xen tells what it holds, and no more
        assert before is None
        held = host.process.holds()
        assert held is not None
        assert SHAPE.memory_mib < held["pss"] / 1024 < SHAPE.memory_mib + 96
        return
    assert before is not None
    assert after is not None
    assert after.cpu_s > before.cpu_s
    assert after.rss_bytes > 0


def test_writes_stay_inside(opened: Opened, built: Capsule) -> None:
    """Two of the same layer at once share the capsule, and nothing that one of them writes."""
    host, parent = opened.host, opened.parent
    if make_layer(opened.layer).own_machine:
        pytest.skip("a machine of its own: a second one shares nothing but the capsule's image, read-only")
    if opened.layer == "hvm":
        pytest.skip("pv and pvh have shown it, by the same code, and its firmware takes half a minute")
    issue = built.directory / "tree/etc/issue"
    before = issue.read_bytes()
    version = host.get("/etc/debian_version")
    with make_layer(opened.layer).open(parent, SHAPE) as other:
        assert other.run(["sh", "-c", "exit 7"], check=False).code == 7
        host.put(b"changed\n", "/etc/issue")
        host.put(b"mine\n", f"{host.scratch}/file")
        host.run(["rm", "/etc/debian_version"])
        assert host.get("/etc/issue") == b"changed\n"
        assert other.get("/etc/issue") == before
        assert other.run(["test", "-e", "/etc/debian_version"], check=False).code == 0
        assert other.run(["test", "-e", f"{other.scratch}/file"], check=False).code == 1
        host.put(version, "/etc/debian_version")
        # Asked, not tried: a write that succeeded would damage the user's capsule.
        assert host.run(["test", "-w", "/capsule/tree/etc/issue"], check=False).code == 1
    assert issue.read_bytes() == before
    assert host.run(["echo", "still there"]).text == "still there"


NESTED = [(a_guest(), "chroot"), ("qemu", "bubblewrap")]


def inventory(host: Host) -> tuple[str, ...]:
    """What an environment opened inside a guest could leave in it."""
    commands = (
        "ps --ppid 2 -p 2 --deselect -o comm=",
        "cut -d' ' -f3-5 /proc/self/mountinfo",
        "ls /sys/class/net /scratch",
    )
    return tuple("\n".join(sorted(host.run(["sh", "-c", command]).text.splitlines())) for command in commands)


def routes() -> dict[str, list[str]]:
    """The machine's routes, by interface."""
    found: dict[str, list[str]] = {}
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        found.setdefault(line.split()[0], []).append(line)
    return found


@pytest.mark.parametrize(("below", "above"), NESTED, ids=["/".join(pair) for pair in NESTED])
def test_layers_stack(opener: Opener, built: Capsule, below: str, above: str) -> None:
    with opener(below) as parent:
        answer = make_layer(above).probe(parent)
        assert not isinstance(answer, Unavailable), answer
        before, led = inventory(parent), routes()
        with make_layer(above).open(parent, SHAPE) as inner:
            assert inner.name == f"local/{below}/{above}"
            assert (inner.peer_at, inner.peer, inner.bind) == ("local", parent.peer, parent.bind)
            says_hello(inner)  # on the machine itself, as its parent's peer is
            assert inner.run(["uname", "-r"]).text == parent.run(["uname", "-r"]).text
            assert inner.run(["sh", "-c", "exit 7"], check=False).code == 7
            assert verify_inside(inner) == verify_inside(LocalHost(payload=built.payload()))
            inner.put(b"inner\n", "/etc/issue")
            assert parent.get("/etc/issue") != b"inner\n"
        assert inventory(parent) == before
        now = routes()
        stayed = led.keys() & now.keys()  # links of other workers' guests come and go
        assert {name: now[name] for name in stayed} == {name: led[name] for name in stayed}


def test_kvm_tells_the_truth(built: Capsule, tmp_path: Path) -> None:
    """Its probe boots a kernel: where that works the layer opens, and where not it says why, in bounded time."""
    host = LocalHost(payload=built.payload(), scratch=str(tmp_path))
    answer = make_layer("kvm").probe(host)
    if isinstance(answer, Unavailable):
        assert answer.reason
        assert "\n" not in answer.reason
        assert answer.hint
    else:
        with make_layer("kvm").open(host, SHAPE) as guest:
            assert guest.run(["uname", "-r"]).text == built.manifest.kernel
