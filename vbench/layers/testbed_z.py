"""An emulated mainframe, which interprets instructions, among them that by which KVM runs guests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from vbench.hosts.base import Host, Process, Setting
from vbench.hosts.command import script
from vbench.hosts.placement import Cache, Disk, Medium, Network, Placement, Way
from vbench.layers import foreign, guest
from vbench.layers.base import Available, Unavailable
from vbench.layers.environment import EnvironmentLayer, Site, add_on, program
from vbench.layers.isolation import needs_root
from vbench.layers.testbed import misplaced
from vbench.technique import AddOn, Picture, Technique

LIBRARIES = "usr/lib/s390x-linux-gnu"
MEMORY_MIB = 2048
_RUN = script(guest.SCRIPTS / "testbed-z.sh")
_PARAMETERS, _INITRD = 0x10480, 0x4000000
"""Where a kernel for z looks for its command line; where its initrd is put, which is stated before that."""


class TestbedZ(EnvironmentLayer):
    """An IBM mainframe without a hypervisor under its system, emulated by Hercules.

    What runs in it is not the capsule but the same Debian packages for its architecture, out of the add-on. Its seconds
    are real ones, of an interpreter: what takes long in it is what takes many instructions, whatever a processor makes
    of them. Nothing measured in it is compared with anything else.
    """

    name: ClassVar[str] = "testbed-z"
    technique: ClassVar[Technique] = Technique.TYPE_2
    summary: ClassVar[str] = "an IBM mainframe, emulated by Hercules, on which KVM really runs"
    picture: ClassVar[Picture | None] = Picture(
        "on",
        (
            ("hypervisor", "Hercules", "interprets instructions"),
            ("hardware", "Emulated mainframe", "z/Architecture, SIE"),
            ("kernel", "Testbed's kernel", "operating system"),
        ),
    )
    catalogue: ClassVar[str | None] = "Hercules"
    own_machine: ClassVar[bool] = True
    processes: ClassVar[tuple[str, ...]] = ("hercules",)
    seconds: ClassVar[float] = 300
    needs: ClassVar[AddOn] = AddOn(
        "z",
        script=foreign.script("z", "z-shim.c", "z-init.sh"),
        material={
            "bookworm": ("hercules", "gcc-12-s390x-linux-gnu", "libc6-dev-s390x-cross"),
            "bookworm:s390x": (*foreign.SYSTEM, "linux-image-s390x", "qemu-system-misc"),
        },
        exclude=(
            *foreign.EXCLUDE,
            *("/usr/bin/qemu-system-[!s]*", "/usr/bin/qemu-system-sh*", "/usr/share/qemu/[!s]*"),
        ),
        lock=Path(__file__).with_name("testbed_z.lock.json"),
    )

    def probe(self, parent: Host) -> Available | Unavailable:
        """On the machine that vbench itself runs on, as root, for its network."""
        answer = misplaced(self.name, parent) or needs_root(parent, self.name)
        if answer is not None:
            return answer
        if not guest.has_tun(parent):
            return Unavailable(f"{parent.name} has no /dev/net/tun", "load the tun module")
        return Available("Hercules, z/Architecture")

    def baseline(self, parents: tuple[str, ...]) -> None:
        """None: it is of another architecture than its parent."""

    def place(self, site: Site) -> Placement:
        """Its sizes, whatever the shape."""
        return Placement(
            vcpus=1,
            memory_mib=MEMORY_MIB,
            disk=Disk(Medium.RAW_FILE, "dasd-fba", Cache.WRITEBACK),
            network=Network(Way.TAP, "lcs"),
            cpu="Hercules, z10",
            slowdown=50.0,
        )

    @contextmanager
    def start(self, site: Site) -> Iterator[Process]:
        """Takes half a minute."""
        parent, link, work = site.parent, site.link, site.work
        tree = add_on(site, self.needs.name)
        guest.scratch_disk(parent, f"{work}/scratch", replace(site.shape, disk_mib=3 * site.shape.disk_mib))
        initrd = f"{tree}/z/initrd"
        where = _INITRD.to_bytes(8, "big") + int(parent.run(["stat", "-Lc", "%s", initrd]).text).to_bytes(
            8, "big"
        )
        loaded = {
            0: "vmlinux",
            _INITRD: "initrd",
            _PARAMETERS - 0x78: "where",
            _PARAMETERS: "parameters",
        }
        for name, content in {
            "where": where,
            "parameters": command_line(foreign.CHOICES).encode() + b"\0",
            "load.ins": "".join(
                ["* vbench\n", *(f"{path} 0x{at:08x}\n" for at, path in loaded.items())]
            ).encode(),
            "commands": f"hao tgt SIGP Stop \\(05\\)\nhao cmd quit\nipl {work}/load.ins\n".encode(),
            "machine": _machine(work, link.guest).encode(),
        }.items():
            parent.put(content, f"{work}/{name}")
        loader, *rest = program(site, tree, "usr/bin/hercules")
        shim = f"{tree}/usr/lib/x86_64-linux-gnu/vbench-shim.so"
        argv = [
            *("unshare", "--mount", "sh", "-c", _RUN, "sh", f"{tree}/z", work),
            # What it would set of its interface is set from outside.
            *("env", f"HERCULES_RC={work}/commands", "HERCULES_IFC=true", f"VBENCH_TAP={link.interface}"),
            *(loader, "--preload", shim, *rest, "-d", "-f", f"{work}/machine"),
        ]
        with parent.spawn(argv) as process:
            yield process

    def adjust(self, site: Site, setting: Setting) -> Setting:
        """Its own payload, and its own peer, as a machine is; what emulating it costs outside is no figure of it."""
        part = site.payload.add_ons[self.needs.name]
        payload = foreign.payload(
            part, "z", libraries=LIBRARIES, loader="ld64.so.1", machine="s390x", page=4096
        )
        return Setting(setting.name, payload, setting.scratch, placement=setting.placement)

    def settle(self, site: Site, host: Host) -> None:
        """What guests of its own need."""
        guest.load_modules(host, "tun", "kvm")


def command_line(like: str) -> str:
    """What a kernel is told on a mainframe; ``like`` is what it takes over from its parent."""
    return f"quiet panic=-1 random.trust_cpu=on cryptomgr.notests {like}"


def _machine(work: str, address: str) -> str:
    """What Hercules is told: sizes, priorities as anybody's, a console, three disks and a network."""
    disks = "".join(
        f"0{number} 9336 {work}/{name}\n" for number, name in enumerate(("image", "seed", "scratch"), 100)
    )
    return (
        f"CPUMODEL 2097\nMAINSIZE {MEMORY_MIB}\nNUMCPU 1\nARCHMODE z/Arch\nOSTAILOR QUIET\nPANRATE SLOW\n"
        "HERCPRIO 0\nTODPRIO 0\nDEVPRIO 0\nCPUPRIO 0\n"
        f"0009 3215-C / noprompt\n{disks}"
        f"0A00.2 LCS -n /dev/net/tun {address}\n"
    )
