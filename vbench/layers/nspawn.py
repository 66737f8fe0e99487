"""systemd-nspawn: containers as systemd makes them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from vbench.layers.container import FOLDER, Container
from vbench.layers.environment import Site
from vbench.layers.isolation import server
from vbench.technique import AddOn, Picture


class Nspawn(Container):
    """A container by systemd-nspawn, with its own filter of system calls and all capabilities."""

    name: ClassVar[str] = "nspawn"
    summary: ClassVar[str] = "a container by systemd-nspawn, with its own filter of system calls"
    picture: ClassVar[Picture | None] = Picture(
        "around", (("isolator", "systemd-nspawn", "namespaces, seccomp"),)
    )
    catalogue: ClassVar[str | None] = "systemd-nspawn"
    processes: ClassVar[tuple[str, ...]] = ("systemd-nspawn",)
    needs: ClassVar[AddOn | None] = AddOn(
        "nspawn", packages=("systemd-container",), lock=Path(__file__).with_name("nspawn.lock.json")
    )

    def said(self) -> str:
        """What it is run by."""
        return "systemd-nspawn, not registered with any systemd"

    def command(self, site: Site) -> list[str]:
        """No systemd has to run on the parent; the network is the namespace that it starts in."""
        options = [
            "--quiet",
            f"--directory={FOLDER}/rootfs",
            "--machine=nspawn",
            "--register=no",
            "--keep-unit",
        ]
        options += [
            "--as-pid2",
            "--capability=all",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
        ]
        return ["/usr/bin/systemd-nspawn", *options, *server(site.link)]
