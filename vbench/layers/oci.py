"""OCI containers: a runtime that other managers call, here by itself, with the profile that it is given."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from vbench.hosts.base import Host
from vbench.layers.container import FOLDER, Container
from vbench.layers.environment import Site
from vbench.layers.isolation import server
from vbench.layers.parameters import Parameter
from vbench.technique import AddOn, Picture

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP"
)
CAPABILITIES = tuple(f"CAP_{name}" for name in _NAMES.split())
"""In the order of their numbers (Linux, include/uapi/linux/capability.h)."""
PROFILE = "usr/share/containers/seccomp.json"
"""Podman's own profile, which Debian packages as golang-github-containers-common."""
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def held(parent: Host) -> list[str]:
    """The capabilities that a container gets: all that the parent has to give, as what it may do is not measured."""
    status = parent.run(["cat", "/proc/self/status"]).text
    mask = int(re.search(r"^CapPrm:\s*(\w+)$", status, re.MULTILINE)[1], 16)  # type: ignore[index]
    return [name for number, name in enumerate(CAPABILITIES) if mask >> number & 1]


def config(
    argv: list[str],
    *,
    name: str,
    capabilities: list[str],
    seccomp: Mapping[str, Any] | None = None,
    network: str = "",
    devices: bool = True,
    users: bool = False,
) -> dict[str, Any]:
    """The ``config.json`` of a bundle (OCI runtime specification 1.0.2).

    ``network``: the path of its network namespace, if it is not the runtime's own. ``users``: in a user namespace,
    which has all users of the parent by the same numbers.
    """
    caps = dict.fromkeys(("bounding", "effective", "permitted"), capabilities)
    mounts = [
        ("/proc", "proc", "proc", []),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777"]),  # noqa: S108 - inside
        ("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev"]),
        ("/tmp", "tmpfs", "tmp", ["mode=1777"]),  # noqa: S108 - inside
        ("/run", "tmpfs", "run", ["mode=755"]),
    ]
    namespaces: list[dict[str, str]] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")]
    if network:
        namespaces.append({"type": "network", "path": network})
    linux: dict[str, Any] = {"namespaces": namespaces}
    if users:
        namespaces.append({"type": "user"})
        linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 0xFFFFFFFF}]
        # The network is not the namespace's own, so it may not mount its /sys, and has a part of its parent's.
        mounts = [mount for mount in mounts if mount[0] != "/sys"]
        mounts.append(("/sys", "none", "/sys", ["rbind", "nosuid", "noexec", "nodev", "ro"]))
    if devices:
        linux["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}
    if seccomp is not None:
        linux["seccomp"] = seccomp
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": argv,
            "env": [PATH],
            "cwd": "/",
            "capabilities": caps,
        },
        "root": {"path": "rootfs"},
        "hostname": name,
        "mounts": [
            {"destination": where, "type": kind, "source": source, "options": options}
            for where, kind, source, options in mounts
        ],
        "linux": linux,
    }


def filter_of(profile: Mapping[str, Any], capabilities: list[str]) -> dict[str, Any]:
    """A profile as Podman and Docker write it, as a runtime takes it, for x86-64 and these capabilities.

    Rules that only hold on other architectures, or with capabilities that the container does not have, are left out
    (containers/common, pkg/seccomp; Moby, profiles/seccomp).
    """
    rules, given = [], set(capabilities)
    for rule in profile["syscalls"]:
        only, never = rule.get("includes") or {}, rule.get("excludes") or {}
        if only.get("arches") and not {"amd64", "x86_64"} & set(only["arches"]):
            continue
        if {"amd64", "x86_64"} & set(never.get("arches") or []):
            continue
        if not set(only.get("caps") or []) <= given or given & set(never.get("caps") or []):
            continue
        kept = {key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)}
        rules.append(kept)
    made = {
        "defaultAction": profile["defaultAction"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }
    if "defaultErrnoRet" in profile:
        made["defaultErrnoRet"] = profile["defaultErrnoRet"]
    return made


class Oci(Container):
    """A container as crun or runc make it, who do it for Podman, Docker and Kubernetes."""

    name: ClassVar[str] = "oci"
    summary: ClassVar[str] = "an OCI container by crun or runc, with or without a seccomp filter"
    picture: ClassVar[Picture | None] = Picture(
        "around", (("isolator", "OCI container", "namespaces, control group"),)
    )
    catalogue: ClassVar[str | None] = "OCI container"
    needs: ClassVar[AddOn | None] = AddOn(
        "oci",
        packages=("crun", "runc", "golang-github-containers-common"),
        exclude=("/usr/lib/cni/*", "/usr/lib/x86_64-linux-gnu/*.a", "/usr/lib/x86_64-linux-gnu/xtables/*"),
        lock=Path(__file__).with_name("oci.lock.json"),
    )
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("runtime", ("crun", "runc"), "the runtime", bare=True),
        Parameter("seccomp", ("none", "podman"), "the filter of system calls: none, or Podman's own profile"),
        Parameter(
            "users",
            ("parent", "own"),
            "the parent's user namespace, or one of its own, as a rootless container has",
        ),
    )

    def said(self) -> str:
        """The runtime."""
        return f"{self.chosen['runtime']} in a control group"

    def files(self, site: Site) -> Mapping[str, bytes]:
        """The bundle's configuration."""
        seccomp, capabilities = None, held(site.parent)
        if self.chosen["seccomp"] == "podman":
            profile = Path(site.payload.add_ons["oci"].directory) / "tree" / PROFILE
            seccomp = filter_of(json.loads(profile.read_text()), capabilities)
        users = self.chosen["users"] == "own"
        made = config(
            server(site.link), name=self.name, capabilities=capabilities, seccomp=seccomp, users=users
        )
        return {"config.json": json.dumps(made, indent=1).encode()}

    def command(self, site: Site) -> list[str]:
        """The control group is there already, and neither runtime makes another below it."""
        how = {"crun": "--cgroup-manager=disabled", "runc": "--rootless=true"}[self.chosen["runtime"]]
        run = [
            f"/usr/bin/{self.chosen['runtime']}",
            "--root",
            "/run/oci",
            how,
            "run",
            "--bundle",
            FOLDER,
            "vbench",
        ]
        ports = _PORTS if self.chosen["users"] == "own" else ""
        return ["sh", "-c", ports + _GROUPS[self.chosen["runtime"]], "sh", *run]


_PORTS = "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start; "
"""The network is not of the container's user namespace, so it is nobody there who may listen on port 22."""
_GROUPS = {
    "crun": 'umount /sys/fs/cgroup/unified 2> /dev/null; exec "$@"',
    "runc": (
        'while read -r _ where kind _; do case $kind in cgroup*) mount -o remount,bind,ro "$where" ;; esac; done'
        ' < /proc/self/mounts; exec "$@"'
    ),
}
"""crun refuses hierarchies of both versions; to runc, told that it has no privilege, those that it cannot write to are
no error."""
