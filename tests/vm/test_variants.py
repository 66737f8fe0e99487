"""Layers with parameters: each is seen from outside to be what it says, on the testbed."""

from __future__ import annotations

import os
import re

import pytest

from vbench.capsule.capsule import Capsule
from vbench.errors import LayerUnavailable
from vbench.hosts.base import Host
from vbench.hosts.placement import Cache, Disk, Medium, Way
from vbench.layers.base import Shape, make_layer
from vbench.layers.stack import Stack, open_layers

from .conftest import SHAPE, Climber


def emulator(parent: Host) -> str:
    """The command line of the emulator that runs a guest on ``parent``."""
    shown = "for each in /proc/[0-9]*; do tr '\\0' ' ' < $each/cmdline; echo; done 2> /dev/null"
    lines = parent.run(["sh", "-c", shown]).text.splitlines()
    found = [line for line in lines if "-accel kvm" in line and "ld-linux" in line.split()[0]]
    assert len(found) == 1, found
    return found[0]


def test_a_guest_without_a_bus(climber: Climber) -> None:
    with climber("testbed/kvm:machine=microvm,cpu=generic,cache=unsafe") as (*_, parent, host):
        assert host.name == "local/testbed/kvm:machine=microvm,cpu=generic,cache=unsafe"
        assert host.placement.disk.cache == Cache.UNSAFE
        assert host.run(["ls", "/sys/bus/virtio/devices"]).text.split() == [f"virtio{n}" for n in range(4)]
        assert host.run(["sh", "-c", "ls /sys/bus/pci/devices 2> /dev/null | wc -l"]).text == "0"
        assert "QEMU Virtual CPU" in host.run(["grep", "-m1", "model name", "/proc/cpuinfo"]).text
        assert "cache=unsafe" in emulator(parent)


def test_a_guest_in_huge_pages_with_what_takes_work_from_the_emulator(climber: Climber) -> None:
    def reserved(host: Host) -> int:
        return int(host.run(["cat", "/proc/sys/vm/nr_hugepages"]).text)

    with climber("testbed") as (*_, parent):
        before = reserved(parent)
        with make_layer("kvm:iothread=on,vhost=on,pages=huge").open(parent, SHAPE) as host:
            assert reserved(parent) - before == SHAPE.memory_mib // 2
            line = emulator(parent)
            assert "iothread=disk" in line
            assert "vhost=on" in line
            assert "hugetlb=on" in line
            assert (
                parent.run(["pgrep", "vhost-"], check=False).code == 0
            )  # the kernel's thread for its packets
            assert host.run(["echo", "here"]).text == "here"
        assert reserved(parent) == before


def test_huge_pages_are_not_taken_from_the_machine_itself(climber: Climber) -> None:
    said = r"pages=huge needs \d+ huge pages, and local has \d+ free"
    with climber("local") as (root,), pytest.raises(LayerUnavailable, match=said) as caught:
        make_layer("qemu:pages=huge").open(root, SHAPE).__enter__()
    assert (caught.value.hint or "").startswith("reserve them: sysctl vm.nr_hugepages=")


def test_a_scheduler_and_a_shim_of_xen_s(built: Capsule) -> None:
    stack, xl = Stack.parse("testbed/xen:sched=credit/pv:shim=on"), "/usr/lib/xen-4.17/bin/xl"
    with open_layers(stack, built, Shape()) as (*_, dom0, host):
        assert dom0.name == "local/testbed/xen:sched=credit"
        assert dom0.run([xl, "info", "xen_scheduler"]).text == "credit"
        assert host.run(["cat", "/sys/hypervisor/guest_type"]).text == "PV"
        assert '"pvshim": "True"' in dom0.run([xl, "list", "--long"]).text  # to dom0 it is the shim's guest
        with pytest.raises(LayerUnavailable, match="shim=on needs 512 MiB, the shape has 256"):
            make_layer("pv:shim=on").open(dom0, SHAPE).__enter__()


def test_scratch_by_qemu_in_dom0(climber: Climber) -> None:
    """It goes through dom0's page cache, unlike the loop device that dom0's kernel serves."""
    opened = (
        "cd /proc/$(pgrep -x xen-qemu-system)/fd;"
        ' for fd in *; do readlink "$fd"; grep flags "../fdinfo/$fd"; done'
    )
    with climber("testbed/xen/pv:disk=qdisk") as (*_, dom0, host):
        assert "/dev/xvdc /scratch" in host.run(["cat", "/proc/mounts"]).text
        assert host.placement.disk == Disk(Medium.RAW_FILE, "xen-blkfront", Cache.WRITEBACK)
        listed = dom0.run(["sh", "-c", opened], check=False).text.splitlines()
        flags = [listed[at + 1].split()[1] for at, line in enumerate(listed) if line.endswith("/scratch")]
        assert flags
        assert not any(int(each, 8) & os.O_DIRECT for each in flags), flags
        host.run(["dd", "if=/dev/zero", f"of={host.scratch}/file", "bs=64k", "count=16", "conv=fsync"])


@pytest.mark.parametrize(("path", "cached"), [("testbed/gvisor", True), ("testbed/oci", False)])
def test_direct_reads_come_to_the_disk_where_they_are_said_to(
    climber: Climber, path: str, cached: bool
) -> None:
    """gVisor's go through its parent's page cache; a container's do not."""
    count = """awk '{ print $1 }' "/sys/dev/block/$(mountpoint -d "$1")/stat" """
    with climber(path) as (*_, parent, host):
        host.run(["dd", "if=/dev/zero", f"of={host.scratch}/file", "bs=64k", "count=16", "conv=fsync"])

        def requests() -> int:
            return int(parent.run(["sh", "-c", count, "sh", parent.scratch]).text)

        before = requests()
        host.run(["dd", f"if={host.scratch}/file", "of=/dev/null", "bs=4k", "iflag=direct"])
        assert (requests() - before < 256) == cached
        assert (host.placement.disk.cache == Cache.WRITEBACK) == cached


def test_a_filter_of_system_calls(climber: Climber) -> None:
    for path, mode in (("testbed/oci", "0"), ("testbed/oci:seccomp=podman", "2")):
        with climber(path) as (*_, host):
            assert host.run(["sh", "-c", "grep ^Seccomp: /proc/self/status"]).text.split()[1] == mode
            assert host.run(["cat", "/proc/self/cgroup"]).text == "0::/"  # a namespace's view of its own


def test_a_container_with_a_user_namespace_of_its_own(climber: Climber) -> None:
    with climber("testbed/oci:users=own") as (*_, parent, host):
        namespace = ["readlink", "/proc/self/ns/user"]
        assert host.run(namespace).text != parent.run(namespace).text
        # It is root there, and owns what root owns; but its privileges end at the namespace.
        assert host.run(["stat", "-c", "%u", "/etc/passwd"]).text == "0"
        assert host.run(["cat", "/proc/self/uid_map"]).text.split() == ["0", "0", "4294967295"]
        assert (
            "not permitted" in host.run(["mknod", "/root/disk", "b", "7", "0"], check=False).stderr.decode()
        )


def test_a_microvm_s_kernel_under_qemu(climber: Climber) -> None:
    """The control of libkrun: the same kernel, and another monitor."""
    with climber("testbed/libkrun:qemu") as (*_, parent, host):
        assert "libkrun" in host.run(["cat", "/proc/version"]).text
        assert "-M microvm" in emulator(parent)
        assert sorted(host.run(["ls", "/sys/class/net"]).text.split()) == ["eth0", "lo"]
        assert host.placement.network.path == Way.TAP


def test_virtualbox_runs_on_the_processor_and_is_what_its_parameter_says(climber: Climber) -> None:
    log = 'cat "$1"/virtualbox.*/vbench/Logs/VBox.log'
    driver = ["test", "-e", "/dev/vboxdrv"]
    with climber("testbed") as (*_, parent):
        if answer := make_layer("virtualbox").lacks(parent):
            pytest.skip(answer.reason)
        with make_layer("virtualbox:paravirt=none").open(parent, SHAPE) as host:
            said = parent.run(["sh", "-c", log, "sh", parent.scratch]).text
            assert "HMR3Init: AMD-V w/ nested paging" in said
            assert re.search(r"IgnoreFlush +<integer> = 0x0000000000000000 \(0\)", said)
            assert host.run(["virt-what"]).text == "virtualbox"  # with KVM's interface it says "kvm", too
            assert host.run(["cat", "/sys/class/dmi/id/product_name"]).text == "VirtualBox"
            assert host.placement.disk.cache == Cache.WRITEBACK
            assert parent.run(driver, check=False).code == 0
        assert parent.run(driver, check=False).code == 1
        assert parent.run(["ls", parent.scratch]).text == "lost+found"
