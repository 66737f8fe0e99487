"""Machines for tests: namespaces on a Debian root without Python, each with an sshd and addresses of its own.

A lab is a network that nothing outside can reach: a namespace for the harness, and machines joined to it or to each
other. They share this machine's kernel and processors, and nothing else of it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vbench.capsule.rootfs import mmdebstrap
from vbench.hosts.base import Payload
from vbench.layers.qemu import emulator

PACKAGES = "openssh-server,iproute2,util-linux,mount"
USER = "alice"
VBENCH = (sys.executable, "-m", "vbench.cli.main")
_SSHD = """
Port 22
HostKey /etc/ssh/key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
AuthorizedKeysFile /etc/ssh/keys
StrictModes no
PidFile none
LogLevel VERBOSE
ClientAliveInterval 10
ClientAliveCountMax 3
"""
_BOOT = """
set -e
root=$1; lower=$2; name=$3
mount -t tmpfs -o size=4G tmpfs "$root"
mkdir "$root/up" "$root/work" "$root/root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$root/up,workdir=$root/work" "$root/root"
cp -r "$4/." "$root/root/etc/ssh/"
cd "$root/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs tmpfs tmp
mkdir -p run/sshd
chroot . useradd --create-home --shell /bin/sh --password '*' alice 2>/dev/null || true
hostname "$name"
ip link set lo up
mkdir -p old
pivot_root . old
umount -l /old
exec /usr/sbin/sshd -D -e -f /etc/ssh/sshd_config.lab
"""


_GUEST_RC = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /dev/pts /dev/shm /run /tmp
mount -t devpts -o mode=600,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mkdir -p /run/sshd
ln -sf /proc/self/fd /dev/fd
hostname guest
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
exec /usr/sbin/sshd -D -e -f /etc/ssh/sshd_config.lab
"""


def make_root(target: Path, *more: str) -> None:
    """A Debian root with sshd and without Python, by mmdebstrap; takes a minute and 180 MB without more packages."""
    packages = ",".join((PACKAGES, *more))
    argv = ["--variant=essential", f"--include={packages}", "bookworm", str(target)]
    argv.insert(2, "--dpkgopt=path-exclude=/usr/share/{doc,man,locale}/*")
    mmdebstrap("the root of machines", argv)


@dataclass
class Machine:
    """A running machine: the process that is its first, and its host key."""

    name: str
    process: subprocess.Popen[bytes]
    host_key: str
    addresses: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Its first process, the namespaces' owner."""
        for _ in range(500):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            if children:
                return int(children[0])
            time.sleep(0.01)
        raise RuntimeError(f"{self.name} has not started")


@dataclass
class Lab:
    """A network with a place for the harness, whose home is ``home``."""

    folder: Path
    root: Path
    holder: subprocess.Popen[bytes]
    opened: ExitStack
    machines: dict[str, Machine] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The harness's home, with its key, its SSH configuration and its known hosts."""
        return self.folder / "home"

    @property
    def environment(self) -> dict[str, str]:
        """What commands there find in theirs: this home, and nobody's agent."""
        return {
            **{name: text for name, text in os.environ.items() if name != "SSH_AUTH_SOCK"},
            "HOME": str(self.home),
        }

    def argv(self, command: Sequence[str]) -> list[str]:
        """A command as run where the harness is."""
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--", *command]

    def run(self, command: Sequence[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return subprocess.run(
            self.argv(command), env=self.environment, text=True, capture_output=True, stdin=subprocess.DEVNULL,
            check=False, timeout=timeout,
        )  # fmt: skip

    def inside(self, name: str, script: str) -> str:
        """What a shell script prints that is run on a machine, past SSH."""
        argv = ["nsenter", f"--target={self.machines[name].pid}", "--mount", "--pid", "--net", "--root", "--"]
        return subprocess.run([*argv, "sh", "-c", script], capture_output=True, text=True, check=False).stdout

    def cut(self, name: str, down: bool = True) -> None:
        """Cut the cable between the harness and a machine that is joined to it, or mend it."""
        (link,) = [each for each in self.inside(name, "ls /sys/class/net").split() if each != "lo"]
        _do([*self.argv(["ip", "link", "set", link, "down" if down else "up"])])

    def reboot(self, name: str) -> None:
        """End a machine as a power cut does, and start it anew with the same host key and address."""
        old = self.machines[name]
        address, net = old.addresses[0], int(old.addresses[0].split(".")[2])
        old.process.kill()
        old.process.wait()
        # The old machine's end of the cable goes a little after the machine.
        subprocess.run(self.argv(["ip", "link", "del", f"n{net}"]), capture_output=True, check=False)
        new = self.add(name)
        self.join(None, new, net)
        assert new.addresses == [address]

    def add(self, name: str) -> Machine:
        """Start a machine without a network; one of a name that there was has its host key."""
        place = self.folder / name
        (place / "root").mkdir(parents=True, exist_ok=True)
        keys = place / "ssh"
        host_key = self._keys(keys)
        argv = [
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            _BOOT,
        ]
        argv += ["boot", str(place / "root"), str(self.root), name, str(keys)]
        log = self.opened.enter_context((place / "log").open("wb"))
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.opened.callback(_end, process)
        machine = Machine(name, process, host_key)
        self.machines[name] = machine
        return machine

    def join(self, one: Machine | None, other: Machine, net: int, own: int = 1, peer: int = 2) -> None:
        """Connect two machines, or the harness (``None``) and one, by a link with addresses 10.213.NET.x."""
        pids = [one.pid if one else self.holder.pid, other.pid]
        name = f"n{net}"
        into = ["nsenter", f"--net=/proc/{pids[0]}/ns/net", "--"]
        _do([*into, "ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", str(pids[1])])
        for pid, last in zip(pids, (own, peer), strict=True):
            inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
            _do([*inside, "ip", "addr", "add", f"10.213.{net}.{last}/24", "dev", name])
            _do([*inside, "ip", "link", "set", name, "up"])
        other.addresses.append(f"10.213.{net}.{peer}")

    def add_guest(self, name: str, payload: Payload, port: int) -> None:
        """Start a guest of QEMU's with the same root, reached on a port of loopback where the harness is.

        Its processor goes by the name of this machine's, as guests' processors often do.
        """
        place = self.folder / name
        (place / "seed/vbench").mkdir(parents=True)
        (place / "seed/vbench/rc").write_text(_GUEST_RC)
        (place / "seed/vbench/rc").chmod(0o755)
        host_key = self._keys(place / "seed/etc/ssh", "SetEnv XDG_CACHE_HOME=/scratch\n")
        mke2fs = [*payload.command("mke2fs"), "-q", "-F", "-t", "ext4"]
        _do(["tar", "-C", str(place / "seed"), "--owner=0", "--group=0", "-cf", str(place / "seed.tar"), "."])
        _do([*mke2fs, "-d", str(self.root), str(place / "root.img"), "600M"])
        _do([*mke2fs, str(place / "scratch.img"), "6G"])
        model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        argv = [*emulator(payload), "-M", "q35,usb=off,graphics=off", "-m", "1G", "-nodefaults", "-nographic"]
        argv += ["-cpu", f"max,model-id={model[1] if model else ''}", "-serial", f"file:{place}/console"]
        argv += ["-kernel", payload.boot("vmlinux"), "-initrd", payload.boot("initrd")]
        argv += ["-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=on net.ifnames=0"]
        for disk in ("root.img", "seed.tar", "scratch.img"):
            argv += ["-drive", f"if=none,id={disk[:4]},file={place}/{disk},format=raw,cache=unsafe"]
            argv += ["-device", f"virtio-blk-pci,drive={disk[:4]}"]
        argv += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]
        argv += ["-device", "virtio-net-pci,netdev=net,romfile="]
        process = subprocess.Popen(self.argv(argv), stdin=subprocess.DEVNULL)
        self.opened.callback(_end, process)
        with (self.home / ".ssh/known_hosts").open("a") as file:
            file.write(f"[127.0.0.1]:{port} {host_key}\n")
        self.configure(f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User root\n")

    def _keys(self, folder: Path, more: str = "") -> str:
        """Put what an SSH server needs into a folder, a host key that stays the same; that key's public half."""
        if not folder.exists():
            folder.mkdir(parents=True)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
            (folder / "sshd_config.lab").write_text(_SSHD + more)
            shutil.copy(self.home / ".ssh/id_ed25519.pub", folder / "keys")
        return " ".join((folder / "key.pub").read_text().split()[:2])

    def know(self, machine: Machine, address: str) -> None:
        """Pin a machine's host key for the harness."""
        with (self.home / ".ssh/known_hosts").open("a") as file:
            file.write(f"{address} {machine.host_key}\n")

    def configure(self, text: str) -> None:
        """Add to the harness's SSH configuration."""
        with (self.home / ".ssh/config").open("a") as file:
            file.write(text)


@contextmanager
def lab(folder: Path, root: Path) -> Iterator[Lab]:
    """A lab without machines; all of it is gone at the end."""
    with ExitStack() as opened:
        hold = "ip link set lo up; echo; exec sleep 86400"
        holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", hold], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        opened.callback(_end, holder)
        assert holder.stdout is not None
        holder.stdout.readline()
        made = Lab(folder, root, holder, opened)
        (made.home / ".ssh").mkdir(parents=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", made.home / ".ssh/id_ed25519"], check=True
        )
        yield made


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def _do(argv: Sequence[str]) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)


@contextmanager
def one(folder: Path, root: Path) -> Iterator[Lab]:
    """A machine ``bare``."""
    with lab(folder, root) as made:
        bare = made.add("bare")
        made.join(None, bare, 1)
        made.know(bare, bare.addresses[0])
        made.configure(f"Host bare\n  HostName {bare.addresses[0]}\n  User root\n")
        yield made


def three(folder: Path, root: Path) -> Iterator[Lab]:
    """A machine ``bare``, a machine ``jump``, and ``inner`` behind it."""
    with one(folder, root) as made:
        jump, inner = made.add("jump"), made.add("inner")
        made.join(None, jump, 2)
        made.join(jump, inner, 3)
        for machine in (jump, inner):
            made.know(machine, machine.addresses[0])
        made.configure(
            "Host jump\n  HostName 10.213.2.2\n  User root\n"
            "Host inner\n  HostName 10.213.3.2\n  User root\n  ProxyJump jump\n"
        )
        yield made


def vbench(lab: Lab, *argv: str | Path, code: int = 0, timeout: float = 600) -> str:
    """What a command prints that is run where the harness is."""
    done = lab.run([*VBENCH, *map(str, argv)], timeout=timeout)
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert done.returncode == code, said
    return said


@contextmanager
def measuring(
    lab: Lab, out: Path, *argv: str, rows: int = 1, within: float = 300
) -> Iterator[subprocess.Popen[str]]:
    """A run in the background that has written so many rows; ended at the end, if it has not."""
    command = lab.argv([*VBENCH, "run", *argv, "--out", str(out)])
    with subprocess.Popen(
        command,
        env=lab.environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            end = time.monotonic() + within
            while len(rows_of(out)) < rows:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < end
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The whole lines of a bundle's journal, which may still be growing."""
    try:
        lines = (out / "samples.jsonl").read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def said(process: subprocess.Popen[str], code: int, timeout: float = 300) -> str:
    """What a run in the background has printed; it must end with that exit code."""
    text, _ = process.communicate(timeout=timeout)
    assert "Traceback" not in text, text
    assert process.returncode == code, text
    return text


def left(lab: Lab, name: str) -> list[str]:
    """What is there of ours on a machine, but for what is meant to stay."""
    return lab.inside(
        name,
        "find $HOME/.cache/vbench/sessions/s* /home/*/.cache/vbench/sessions/s* 2>/dev/null; "
        "grep -ls VBENCH_OWNER /proc/[0-9]*/environ",
    ).splitlines()


if __name__ == "__main__":  # a shell in a lab: python tests/vm/lab.py ROOT FOLDER
    with contextmanager(three)(Path(sys.argv[2]), Path(sys.argv[1])) as it:
        print(f"HOME={it.home} {' '.join(it.argv(['sh']))}", flush=True)
        time.sleep(float(sys.argv[3]) if len(sys.argv) > 3 else 86400)
