"""Machines as a hosts file declares them, what they say of themselves, and how they are reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paramiko
import pytest

from vbench.advisor import catalog
from vbench.errors import UsageError
from vbench.harness.plan import load_plan, with_baselines
from vbench.hosts.declared import Machine, read_hosts
from vbench.hosts.ssh.login import way
from vbench.observe import identity
from vbench.observe.facts import UNAVAILABLE
from vbench.workload.library import load_workloads

SYSTEMS = catalog.systems()
TWO = """
[[machine]]
name = "esxi-guest"
ssh = "root@10.0.0.7"
system = "ESXi"
baseline = "bare-7"
hardware = "rack7-node3"
[[machine]]
name = "bare-7"
ssh = "rack7-node3"
hardware = "rack7-node3"
"""


def read(tmp_path: Path, text: str) -> dict[str, Machine]:
    path = tmp_path / "hosts.toml"
    path.write_text(text)
    return read_hosts(path, SYSTEMS, ["kvm", "uml"])


def test_a_machine_stands_on_its_baseline(tmp_path: Path) -> None:
    machines = read(tmp_path, TWO)
    assert machines["esxi-guest"].address == "root@10.0.0.7"
    assert [each.technique for each in machines.values()] == ["type 1", ""]
    known = load_workloads()
    plan = load_plan(None, known, stacks=["esxi-guest/chroot"], workloads=["cpu-int"], machines=machines)
    assert [stack.path for stack in plan.all_stacks()] == ["esxi-guest", "bare-7", "esxi-guest/chroot"]
    assert {each.name for each in plan.machines} == machines.keys()
    other = load_plan(None, known, stacks=["bare-7"], workloads=["cpu-int"], machines=machines)
    assert [each.name for each in other.machines] == ["bare-7"]
    assert [stack.path for stack in with_baselines(["esxi-guest"])] == ["esxi-guest"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'hardware = "rack7-node3"\n[[',
            'hardware = "rack8"\n[[',
            "is on hardware 'rack8', its baseline bare-7 on",
        ),
        ('hardware = "rack7-node3"\n[[', "[[", "is on hardware that is not named"),
        ('baseline = "bare-7"', 'baseline = "bare-8"', "its baseline 'bare-8' is not declared"),
        ('system = "ESXi"', 'system = "ESXii"', "the catalogue has no system 'ESXii'"),
        ('name = "bare-7"', 'name = "kvm"', "'kvm' cannot be a machine's name"),
        ('name = "bare-7"', 'name = "esxi-guest"', "the machine esxi-guest is declared twice"),
        ('name = "bare-7"', 'name = "local"', "local is this machine"),
        ("ssh = ", "shh = ", "shh"),
        ("ssh = ", 'technique = "type 1"\nssh = ', "esxi-guest: unknown key technique"),
        ("[[machine]]", "[[machine]", "hosts.toml"),
        ('ssh = "rack7-node3"', 'baseline = "esxi-guest"', "a machine is its own baseline"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TWO
    with pytest.raises(UsageError) as caught:
        read(tmp_path, TWO.replace(old, new, 1) if new != "[[machine]" else TWO.replace(old, new))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("system", "virtualized", "words"),
    [
        ("ESXi", "vmware (/sys/class/dmi/id/product_name)", None),
        ("ESXi", "kvm (/sys/class/dmi/id/sys_vendor)", "declared to be ESXi, and shows kvm"),
        ("ESXi", "no sign of it", "shows no sign of any hypervisor"),
        ("ESXi", "yes, by a hypervisor that does not say its name (the processor's flag)", None),
        ("", "no sign of it", None),
        ("", "vmware (/sys/class/dmi/id/product_name)", "declared without a hypervisor, and shows vmware"),
        ("Xen dom0", "xen, of which this is dom0 (/proc/xen/capabilities)", None),
        ("LXC", "kvm (/sys/class/dmi/id/sys_vendor)", None),  # its host may be a guest
    ],
)
def test_a_declaration_is_held_against_what_is_seen(system: str, virtualized: str, words: str | None) -> None:
    found = [*identity.contradictions(system, {"virtualized": virtualized})]
    assert (len(found) == 0) if words is None else (words in found[0])


def test_systems_that_are_seen_are_in_the_catalogue() -> None:
    named = frozenset().union(*identity._SEEN.values()) | identity.WITHOUT_HYPERVISOR
    assert named <= {*SYSTEMS}, named - {*SYSTEMS}


def test_hardware_is_told_by_facts_that_both_have() -> None:
    mine: dict[str, Any] = {"cpu": "EPYC 7742", "microcode": f"{UNAVAILABLE}none", "machine": "x86_64"}
    assert identity.other_hardware(mine, {**mine, "microcode": "0x1"}) == []
    assert identity.odd_hardware(mine, {**mine, "microcode": "0x1"}) == [], "one of them cannot tell"
    told = {**mine, "microcode": "0x2"}
    assert identity.other_hardware(told, {**told, "microcode": "0x1"}) == [], (
        "guests are shown what is not there"
    )
    assert identity.odd_hardware(told, {**told, "microcode": "0x1"}) == ["microcode: 0x2 here, 0x1 there"]
    assert identity.other_hardware(mine, {**mine, "cpu": "Xeon"}) == ["cpu: EPYC 7742 here, Xeon there"]


CONFIG = """
Host lab7 lab8
  HostName 10.0.0.7
  User alice
  Port 2222
  IdentityFile ~/.ssh/lab
  IdentitiesOnly yes
  ProxyJump gate
Host gate
  HostName gate.example
  HostKeyAlias door
Host *.farm
  User root
Host loop
  ProxyJump loop
Host command
  ProxyCommand nc %h %p
Host *
  ServerAliveInterval 10
"""


def settings() -> paramiko.SSHConfig:
    return paramiko.SSHConfig.from_text(CONFIG)


def test_the_way_is_that_of_the_user_s_configuration() -> None:
    lab = way("lab7", settings())
    assert (lab.user, lab.host, lab.port, lab.only) == ("alice", "10.0.0.7", 2222, True)
    assert lab.keys == (str(Path("~/.ssh/lab").expanduser()),)
    assert lab.known_as == "[10.0.0.7]:2222"
    (gate,) = lab.through
    assert (gate.host, gate.port, gate.known_as) == ("gate.example", 22, "door")
    assert way("node3.farm", settings()).user == "root"
    other = way("root@lab7:22", settings())
    assert (other.user, other.port, other.host) == ("root", 22, "10.0.0.7")
    assert way("bob@[fd00::7]:2022", settings()).host == "fd00::7"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lab9", "lab9 is neither a layer nor a machine"),
        ("loop", "leads through itself: loop > loop"),
        ("command", "ProxyCommand nc"),
        ("a@b@c", "names no machine"),
    ],
)
def test_ways_that_lead_nowhere(name: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        way(name, settings())
    assert words in str(caught.value)
