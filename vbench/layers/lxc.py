"""LXC: system containers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from vbench.layers.container import FOLDER, Container
from vbench.layers.environment import Site
from vbench.layers.isolation import server
from vbench.technique import AddOn, Picture


class Lxc(Container):
    """A container by lxc-start, with all capabilities and no filter of system calls."""

    name: ClassVar[str] = "lxc"
    summary: ClassVar[str] = "a system container by LXC"
    picture: ClassVar[Picture | None] = Picture("around", (("isolator", "LXC", "namespaces, control group"),))
    catalogue: ClassVar[str | None] = "LXC"
    processes: ClassVar[tuple[str, ...]] = ("lxc-start", r"\[lxc monitor\]")
    needs: ClassVar[AddOn | None] = AddOn(
        "lxc",
        packages=("lxc",),
        exclude=(
            "/usr/bin/lxc-[!s]*",
            "/usr/bin/lxc-snapshot",
            "/usr/libexec/lxc/lxc-[mu]*",
            "/usr/sbin/init.lxc*",
        ),
        lock=Path(__file__).with_name("lxc.lock.json"),
    )

    def said(self) -> str:
        """What it is run by."""
        return "lxc-start"

    def files(self, site: Site) -> Mapping[str, bytes]:
        """Its configuration; the network is the namespace that it starts in."""
        lines = {
            "lxc.rootfs.path": f"dir:{FOLDER}/rootfs",
            "lxc.uts.name": self.name,
            "lxc.init.cmd": shlex.join(server(site.link)),
            "lxc.net.0.type": "none",
            "lxc.mount.auto": "proc:rw sys:rw",
            "lxc.autodev": "1",
            "lxc.pty.max": "1024",
            "lxc.cap.drop": "",
            "lxc.apparmor.profile": "unconfined",
        }
        mounts = [
            "tmp tmp tmpfs mode=1777,create=dir 0 0",
            "run run tmpfs mode=755,create=dir 0 0",
            "shm dev/shm tmpfs nosuid,nodev,mode=1777,create=dir 0 0",
        ]
        text = [f"{key} = {value}" for key, value in lines.items()]
        text += [f"lxc.mount.entry = {entry}" for entry in mounts]
        return {"config": "\n".join([*text, ""]).encode()}

    def command(self, site: Site) -> list[str]:
        """In the foreground, with its log on standard error."""
        options = ["--foreground", f"--lxcpath={FOLDER}", "--name=lxc", f"--rcfile={FOLDER}/config"]
        return ["/usr/bin/lxc-start", *options, "--logfile=/dev/stderr", "--logpriority=WARN"]
