"""Installing what a fresh machine lacks, with its own package manager."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from vbench.errors import VbenchError

log = logging.getLogger(__name__)

# Program -> Debian and Ubuntu package. Everything else that vbench runs comes with the capsule.
NEEDED = {"mmdebstrap": "mmdebstrap", "unshare": "util-linux", "setpriv": "util-linux", "tar": "tar"}
WITHOUT_ROOT = {"fakeroot": "fakeroot", "newuidmap": "uidmap"}
FOR_TESTS = {
    "gcc": "gcc",
    "sshd": "openssh-server",
    "dropbear": "dropbear-bin",
    "ip": "iproute2",
    "fio": "fio",
    "chromium": "chromium",
    "shellcheck": "shellcheck",
}
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
FILES = {"/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring"}
FILES_FOR_TESTS = {"/usr/include/stdint.h": "libc6-dev"}


def missing(*, tests: bool = False) -> list[str]:
    """Packages needed before a capsule can be built here, or the tests run."""
    wanted = {**NEEDED, **({} if os.geteuid() == 0 else WITHOUT_ROOT), **(FOR_TESTS if tests else {})}
    packages = {package for program, package in wanted.items() if shutil.which(program, path=PATH) is None}
    files = {**FILES, **(FILES_FOR_TESTS if tests else {})}
    packages |= {package for path, package in files.items() if not Path(path).exists()}
    with contextlib.suppress(OSError):
        if platform.freedesktop_os_release().get("ID") != "debian":
            packages.discard("chromium")  # a snap elsewhere, if anything; the browser tests are skipped
    if Path("/run/systemd/system").is_dir():
        # Its package would make this machine listen for logins; the tests that need it are skipped.
        packages.discard("openssh-server")
    return sorted(packages)


def install_missing(say: Callable[[str], None], *, tests: bool = False) -> None:
    """Install them with apt, as root or through sudo, after saying which.

    Raises ``VbenchError`` with the command to run if that is not possible.
    """
    packages = missing(tests=tests)
    if not packages:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if shutil.which("apt-get") is None:
        raise VbenchError(f"missing: {', '.join(packages)}", "install them with your package manager")
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    if prefix and shutil.which("sudo") is None:
        raise VbenchError(f"missing: {', '.join(packages)}", f"as root: {' '.join(command)}")
    say(f"installing {', '.join(packages)}")
    for argv in ([*prefix, "apt-get", "update"], [*prefix, *command]):
        done = subprocess.run(
            argv,
            check=False,
            stdin=None if prefix else subprocess.DEVNULL,
            capture_output=True,
            # Runlevel 1 (single user) keeps packages from starting their services.
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
        )
        log.debug("exit code %d: %s", done.returncode, shlex.join(argv))
        if done.returncode != 0:
            error = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise VbenchError(f"{' '.join(argv)} failed: {error}", f"as root: {' '.join(command)}")
