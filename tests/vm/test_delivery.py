"""How the capsule is settled on another machine, by the script that does it there, with a small part of the capsule."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vbench.capsule import rootfs
from vbench.capsule.capsule import Capsule
from vbench.capsule.delivery import _SETTLE

NOBODY = 65534
PROGRAMS = ("mke2fs", "debugfs")
LIBRARIES = ("libc", "libblkid", "libcom_err", "libe2p", "libext2fs", "libss", "libuuid", "ld-linux-x86-64")


def small(built: Capsule, target: Path) -> None:
    """What makes an image, and some files of others than root, as they are in the capsule's archive."""

    def wanted(path: Path) -> bool:
        by_name = path.parent.name == "sbin" and path.name in PROGRAMS
        by_name |= path.parent.name in {"x86_64-linux-gnu", "lib64"} and path.name.split(".")[0] in LIBRARIES
        return by_name or str(path) in {"etc/shadow", "etc/mke2fs.conf", "lib", "lib64", "sbin"}

    with tarfile.open(built.directory / "rootfs.tar") as whole, tarfile.open(target, "w") as part:
        members = [(Path(member.name), member) for member in whole]
        kept = [path for path, _ in members if wanted(path)]
        folders = {folder for path in kept for folder in path.parents}
        for path, member in members:
            if path in kept or path in folders:
                part.addfile(member, whole.extractfile(member) if member.isreg() else None)


def settled(folder: Path, path: str) -> bytes:
    """The image that an ordinary user makes in a folder of his, with programs from these places."""
    argv = ["sh", "-c", rootfs.IMAGE + _SETTLE, "settle", str(folder), "x", "64", str(rootfs.EPOCH)]
    done = subprocess.run(
        [*argv, rootfs.LOADER, rootfs.LIBRARIES[0]],
        env={"PATH": path}, user=NOBODY, group=NOBODY, extra_groups=[], cwd=folder, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip(), "image").read_bytes()


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that any user may enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes an ordinary user")
def test_an_image_is_the_same_where_users_may_not_make_namespaces(built: Capsule, open_to_all: Path) -> None:
    """Some distributions forbid it: a guest has a disk there all the same."""
    forbidden = open_to_all / "bin"
    forbidden.mkdir(mode=0o755)
    (forbidden / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (forbidden / "unshare").chmod(0o755)
    images = []
    for name, path in (("may", os.environ["PATH"]), ("may-not", f"{forbidden}:{os.environ['PATH']}")):
        folder = open_to_all / name
        folder.mkdir()
        folder.chmod(0o777)
        small(built, folder / "x.part")
        images.append(settled(folder, path))
    assert images[0] == images[1]
    (tree,) = map(str, open_to_all.glob("may-not/.draft-*/tree"))
    look = [
        f"{tree}/{rootfs.LOADER}",
        "--library-path",
        f"{tree}/{rootfs.LIBRARIES[0]}",
        f"{tree}/usr/sbin/debugfs",
    ]
    shadow = subprocess.check_output([*look, "-R", "stat /etc/shadow", f"{tree}/../image"], text=True)
    assert "User:     0   Group:     0" in shadow
