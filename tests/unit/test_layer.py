"""Stack paths, baselines, shapes, and what is said of names that are none."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from vbench.errors import UsageError
from vbench.harness.plan import with_baselines
from vbench.hosts.base import Host, Result
from vbench.hosts.local import LocalHost
from vbench.layers import guest
from vbench.layers.base import Available, Shape, Unavailable, layer_classes, make_layer
from vbench.layers.kvm import Kvm
from vbench.layers.oci import filter_of
from vbench.layers.qemu import Qemu
from vbench.layers.roots import cpus_for
from vbench.layers.stack import Stack


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("local", "local"),
        ("uml", "local/uml"),
        ("local/uml", "local/uml"),
        ("/local/uml/", "local/uml"),
        ("uml/chroot", "local/uml/chroot"),
        ("alice@lab7", "alice@lab7"),
        ("alice@lab7:2222/qemu", "alice@lab7:2222/qemu"),
        ("alice@[fe80::1]:22/qemu/chroot", "alice@[fe80::1]:22/qemu/chroot"),
    ],
)
def test_path(text: str, path: str) -> None:
    stack = Stack.parse(text)
    assert stack.path == path
    assert Stack.parse(path) == stack
    assert stack.depth == path.count("/")
    assert stack.prefix(stack.depth) == stack
    assert stack.prefix(0).path == path.split("/", maxsplit=1)[0]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("gvisor:kvm", "local/gvisor:kvm"),
        ("gvisor:platform=kvm", "local/gvisor:kvm"),
        ("gvisor:systrap", "local/gvisor"),
        ("kvm:cache=writeback,machine=microvm", "local/kvm:machine=microvm,cache=writeback"),
        ("testbed/kvm:machine=q35/oci:seccomp=podman,runc", "local/testbed/kvm/oci:runc,seccomp=podman"),
    ],
)
def test_parameters_are_written_in_one_way(text: str, path: str) -> None:
    """What is not the first choice, in the order of the layer; so that one stack has one name."""
    stack = Stack.parse(text)
    assert stack.path == path
    assert Stack.parse(path) == stack
    top = stack.top()
    assert top is not None
    assert top.word == stack.layers[-1]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("gvisor:kvn", "gvisor takes no parameter 'kvn'", "did you mean gvisor:kvm?"),
        ("gvisor:platform=kvn", "gvisor: platform is 'kvn'", "did you mean kvm?"),
        ("gvisor:platform=zz", "gvisor: platform is 'zz'", "it takes systrap, ptrace, kvm"),
        ("kvm:microvm", "kvm takes no parameter 'microvm'", "did you mean kvm:machine=microvm?"),
        ("kvm:cache=none,cache=none", "kvm: cache is given twice", "give it once"),
        ("chroot:x=1", "chroot takes no parameter 'x=1'", "it takes none: write chroot"),
        ("kvm:", "'kvm:' names no parameter", "write kvm"),
        ("kvm:,", "kvm takes no parameter ''", "it takes machine=q35|microvm, cpu=host|generic"),
        ("kwm:cache=none", "there is no layer 'kwm'", "did you mean kvm?"),
    ],
)
def test_bad_parameters(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        Stack.parse(f"local/{text}")
    assert caught.value.message == message
    assert (caught.value.hint or "").startswith(hint)


def test_a_parameter_changes_what_is_started_and_what_is_drawn() -> None:
    plain, small = make_layer("kvm"), make_layer("kvm:machine=microvm,cpu=generic")
    assert isinstance(plain, Kvm)
    assert isinstance(small, Kvm)
    assert "q35,usb=off,graphics=off,memory-backend=ram" in plain.machine(Shape())
    assert small.machine(Shape())[1].startswith("microvm,")
    assert "qemu64" in small.machine(Shape())
    assert plain.drawn() == Kvm.picture
    drawn = small.drawn()
    assert drawn is not None
    assert drawn.boxes[-1][2] == "devices by QEMU, machine=microvm, cpu=generic"


def test_a_profile_becomes_the_filter_of_a_runtime() -> None:
    """Rules for other architectures, and those for capabilities that are not there, are left out."""
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "syscalls": [
            {
                "names": ["read"],
                "action": "SCMP_ACT_ALLOW",
                "args": [],
                "comment": "",
                "includes": {},
                "excludes": {},
            },
            {"names": ["breakpoint"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm"]}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0}],
                "excludes": {"caps": ["CAP_SYS_ADMIN"]},
            },
        ],
    }

    def allowed(*capabilities: str) -> list[str]:
        made = filter_of(profile, [*capabilities])
        assert (made["defaultAction"], made["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
        assert all(rule.keys() <= {"names", "action", "args", "errnoRet"} for rule in made["syscalls"])
        return [name for rule in made["syscalls"] for name in rule["names"]]

    assert allowed() == ["read", "arch_prctl", "clone"]
    assert allowed("CAP_SYS_ADMIN") == ["read", "arch_prctl", "mount"]


@pytest.mark.parametrize("text", ["", "/", "local//uml", "uml//chroot"])
def test_no_path(text: str) -> None:
    with pytest.raises(UsageError, match="is not a stack path") as caught:
        Stack.parse(text)
    assert "local/uml" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quemu", "did you mean qemu?"),
        ("chrot", "did you mean chroot?"),
        ("local", None),
        ("zzz", None),
        ("UML ", None),
    ],
)
def test_unknown_layer(name: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        Stack.parse(f"local/{name}")
    assert caught.value.message == f"there is no layer {name!r}"
    assert caught.value.hint == (hint or f"known layers: {', '.join(layer_classes())}")


def test_layers_are_found_by_name() -> None:
    known = layer_classes()
    assert {
        "chroot",
        "bubblewrap",
        "uml",
        "qemu",
        "kvm",
        "testbed",
        "xen",
        "pv",
        "pvh",
        "hvm",
        "oci",
        "nspawn",
        "lxc",
        "podman",
        "docker",
        "gvisor",
        "virtualbox",
        "libkrun",
    } <= known.keys()
    for name, layer in known.items():
        assert layer.name == name  # what an environment's path says is what a stack is asked for by
        assert "\n" not in layer.summary


def test_what_is_below_xen_need_not_be_the_testbed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Stack.parse("testbed/xen").baseline() == Stack.parse("testbed")
    assert Stack.parse("testbed/xen/pvh").baseline() == Stack.parse("testbed")
    assert Stack.parse("qemu/xen").baseline() is None  # a real dom0, or would be
    assert Stack.parse("qemu/xen/pv").baseline() == Stack.parse("qemu/xen")
    monkeypatch.setattr(Qemu, "takes_system", True)
    assert Stack.parse("qemu/xen/pv").baseline() == Stack.parse("qemu/xen").baseline() == Stack.parse("qemu")


@pytest.mark.parametrize(
    ("path", "baseline"),
    [
        ("local/uml", "local"),
        ("local/uml/chroot", "local/uml"),
        ("local/testbed/kvm/bubblewrap", "local/testbed/kvm"),
        ("alice@lab7/qemu", "alice@lab7"),
    ],
)
def test_baseline(path: str, baseline: str) -> None:
    found = Stack.parse(path).baseline()
    assert found is not None
    assert found.path == baseline


def test_bare_root_has_no_baseline() -> None:
    stack = Stack.parse("local")
    assert stack.baseline() is None
    assert stack.top() is None
    assert stack.technique() == "none"


@pytest.mark.parametrize("path", ["local", "local/uml", "local/testbed", "local/qemu/chroot"])
def test_ratios_never_cross_clocks_unseen(path: str) -> None:
    assert Stack.parse(path).clock() == ("instructions" if "testbed" in path else "wall")


def test_clock_is_inherited() -> None:
    assert Stack.parse("testbed/kvm/bubblewrap").clock() == "instructions"


def test_with_baselines() -> None:
    paths = [stack.path for stack in with_baselines(["uml/chroot", "qemu", "local/uml/chroot", "local"])]
    assert sorted(paths) == ["local", "local/qemu", "local/uml", "local/uml/chroot"]
    assert [path.count("/") for path in paths] == sorted(path.count("/") for path in paths)


@pytest.mark.parametrize(("name", "least"), [("vcpus", 1), ("memory_mib", 192), ("disk_mib", 128)])
def test_least_shape(name: str, least: int) -> None:
    assert getattr(Shape(**{name: least}), name) == least
    with pytest.raises(UsageError, match=f"{name} is {least - 1}, the minimum is {least}"):
        Shape(**{name: least - 1})


def test_cpus() -> None:
    usable = os.sched_getaffinity(0)
    inside, others = cpus_for(Shape())
    assert len(inside) == 1
    assert inside <= usable
    assert others
    assert (inside & others) == (inside if len(usable) == 1 else frozenset())
    everything, rest = cpus_for(Shape(vcpus=len(usable)))
    assert everything == rest == usable
    with pytest.raises(UsageError, match=f"{len(usable) + 1} vCPUs requested, this machine has"):
        cpus_for(Shape(vcpus=len(usable) + 1))


def test_a_host_is_complete_and_equals_itself_only() -> None:
    host = LocalHost()
    assert host != LocalHost()
    assert len({host, LocalHost(), host}) == 2
    with pytest.raises(FrozenInstanceError):
        host.peer_at = "elsewhere"  # type: ignore[misc]
    other = host.but(name="local/xen")
    assert (other.name, other.scratch, other.cpus) == ("local/xen", host.scratch, host.cpus)
    assert host.name == "local"
    assert other != host


def test_probes_without_a_capsule() -> None:
    host: Host = LocalHost()
    for name in ("qemu", "kvm"):
        answer = make_layer(name).probe(host)
        assert "holds no capsule" in getattr(answer, "reason", "")


class Told(LocalHost):
    """A host that is what its signs say, with no /dev/kvm and no Xen's files."""

    def __init__(self, name: str, signs: str) -> None:
        super().__init__(name)
        self.signs = signs

    def run(self, argv: Any, **_: Any) -> Result:
        said = self.signs if "/proc/cpuinfo" in argv[-1] else ""
        return Result(tuple(argv), 1, said.encode(), b"", 0.0, None)


@pytest.mark.parametrize(
    ("name", "signs", "hint"),
    [
        ("local", "vendor_id : GenuineIntel", "enable VT-x or AMD-V in the firmware, or use testbed/kvm"),
        ("local", "vendor_id : GenuineIntel\nvmx", "load kvm_intel or kvm_amd"),
        ("local", "vendor_id : AuthenticAMD\nhypervisor", "allow it nested guests, or use testbed/kvm"),
        ("local", "xen\nxen\nvendor_id : AuthenticAMD\nhypervisor", "boot without Xen, or use testbed/kvm"),
        (
            "local/testbed/xen",
            "xen\nvendor_id : AuthenticAMD\nhypervisor",
            "Xen keeps the processor's virtualization from dom0 and most guests; "
            "open it without Xen: local/testbed/kvm",
        ),
        ("local/testbed/xen/pv", "xen\nhypervisor", "open it without Xen: local/testbed/kvm"),
        ("local/uml", "vendor_id : User Mode Linux", "User Mode Linux runs no guests under KVM"),
    ],
)
def test_what_gives_kvm_fits_the_host(
    monkeypatch: pytest.MonkeyPatch, name: str, signs: str, hint: str
) -> None:
    monkeypatch.setattr(Qemu, "probe", lambda *_: Available())
    monkeypatch.setattr(guest, "load_modules", lambda *_: None)
    answer = make_layer("kvm").probe(Told(name, signs))
    assert isinstance(answer, Unavailable)
    assert answer.reason == f"{name} has no /dev/kvm"
    assert hint in answer.hint
    assert ("firmware" in answer.hint) == (signs == "vendor_id : GenuineIntel")


def test_a_guest_is_not_told_to_be_booted_under_xen() -> None:
    answers = {name: make_layer("xen").probe(Told(name, "")) for name in ("local", "local/uml")}
    hints = {name: getattr(answer, "hint", "") for name, answer in answers.items()}
    assert hints == {"local": "boot it under Xen, or use testbed/xen", "local/uml": "use testbed/xen"}
