"""gVisor: a kernel in user space, written in Go, that answers a container's system calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from vbench.hosts.base import Host
from vbench.hosts.placement import Cache, Network, Placement, Way
from vbench.layers import guest
from vbench.layers.base import Available, Unavailable
from vbench.layers.container import FOLDER, Container
from vbench.layers.environment import Site
from vbench.layers.isolation import server
from vbench.layers.kvm import Kvm
from vbench.layers.oci import config, held
from vbench.layers.parameters import Parameter
from vbench.technique import AddOn, Picture, Technique

_WAIT = (
    "until ip -4 -o addr show dev eth0 2> /dev/null | grep -q inet && ip route | grep -q default; do sleep 0.02; done"
    '; core=/proc/sys/net/core; [ ! -e $core/rmem_default ] || mount -t tmpfs vbench $core; exec "$@"'
)
"""It takes over the address and the route that its network namespace has when it starts. A namespace in which it sees
this setting it takes for the machine's own; some kernels show it in all of them."""


class GVisor(Container):
    """A container whose system calls are answered by the Sentry, which itself makes few of them.

    How it comes by them is the platform: ``systrap`` by a seccomp filter that sends a signal, ``ptrace`` by tracing,
    ``kvm`` by running as a guest of KVM (gVisor documentation, "Platforms").
    """

    name: ClassVar[str] = "gvisor"
    technique: ClassVar[Technique] = Technique.USER_KERNEL
    summary: ClassVar[str] = (
        "gVisor: a container on a kernel in user space, by system call traps, ptrace or KVM"
    )
    picture: ClassVar[Picture | None] = Picture("on", (("kernel", "gVisor", "Sentry, a process"),))
    catalogue: ClassVar[str | None] = "gVisor"
    processes: ClassVar[tuple[str, ...]] = ("runsc", "runsc-sandbox")
    needs: ClassVar[AddOn | None] = AddOn(
        "gvisor",
        packages=("runsc/bookworm-backports",),
        lock=Path(__file__).with_name("gvisor.lock.json"),
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("platform", ("systrap", "ptrace", "kvm"), "how it comes by system calls", bare=True),
    )

    def probe(self, parent: Host) -> Available | Unavailable:
        """What a container needs, and user namespaces; with the platform kvm, a /dev/kvm on which a kernel boots."""
        answer = super().probe(parent)
        if isinstance(answer, Unavailable):
            return answer
        if parent.run(["unshare", "--user", "--map-root-user", "true"], check=False).code != 0:
            hint = "it may itself be in a container, or in a chroot, where there are none"
            return Unavailable(f"{parent.name} gives no user namespace, which gVisor makes", hint)
        if self.chosen["platform"] != "kvm":
            return answer

        found = Kvm().probe(parent)
        return found if isinstance(found, Unavailable) else answer

    def said(self) -> str:
        """The platform."""
        return f"runsc, {self.chosen['platform']}"

    def place(self, site: Site) -> Placement:
        """Files by way of a process of its own that opens them, packets by a network stack of its own.

        Its open() takes O_DIRECT and does not pass it on (google/gvisor issue 3626), so all files go through the
        parent's page cache: of 2,000 direct reads in it not one came to the testbed's disk, of as many beside it all.
        """
        disk = replace(site.parent.placement.disk, driver="gofer", cache=Cache.WRITEBACK)
        return replace(site.parent.placement, disk=disk, network=Network(Way.VETH, "netstack"))

    def files(self, site: Site) -> Mapping[str, bytes]:
        """The bundle's configuration."""
        # It tells a program that asks from its own mounts alone what may be written to.
        capsule = {
            "destination": guest.DIRECTORY,
            "type": "bind",
            "source": f"{FOLDER}/rootfs{guest.DIRECTORY}",
        }
        made = config(
            server(site.link),
            name=self.name,
            capabilities=held(site.parent),
            network="/proc/1/ns/net",
            devices=False,
        )
        made["mounts"].append(capsule | {"options": ["rbind", "ro"]})
        return {"config.json": json.dumps(made, indent=1).encode()}

    def command(self, site: Site) -> list[str]:
        """Its own network stack; no overlay, as the root is one already."""
        options = [
            "--root=/run/runsc",
            f"--platform={self.chosen['platform']}",
            "--ignore-cgroups",
            "--overlay2=none",
        ]
        return ["sh", "-c", _WAIT, "sh", "/usr/bin/runsc", *options, "run", f"--bundle={FOLDER}", "vbench"]
