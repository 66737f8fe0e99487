"""Facts about a host that results depend on, read inside it by one command.

Nothing is guessed: a fact that cannot be read has the value ``unavailable: `` followed by the reason.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from vbench.errors import HostError
from vbench.hosts.base import Host
from vbench.hosts.command import script

UNAVAILABLE = "unavailable: "
ON_THE_MACHINE = "the machine"
"""The fact ``peer`` if the network peer runs outside all guests; otherwise it is the peer's stack."""

_CPU = "/sys/devices/system/cpu"
_CLOCK = "/sys/devices/system/clocksource/clocksource0"
_DMI = "/sys/class/dmi/id"
# Facts that are read from one short file each.
_FILES = {
    "command_line": "/proc/cmdline",
    "governor": f"{_CPU}/cpu0/cpufreq/scaling_governor",
    "frequency_driver": f"{_CPU}/cpu0/cpufreq/scaling_driver",
    "frequency_boost": f"{_CPU}/cpufreq/boost",
    "smt": f"{_CPU}/smt/active",
    "cpus_online": f"{_CPU}/online",
    "numa_nodes": "/sys/devices/system/node/online",
    "huge_pages": "/sys/kernel/mm/transparent_hugepage/enabled",
    "clocksource": f"{_CLOCK}/current_clocksource",
    "clocksources": f"{_CLOCK}/available_clocksource",
    "vendor": f"{_DMI}/sys_vendor",
    "product": f"{_DMI}/product_name",
    "firmware": f"{_DMI}/bios_vendor",
    "hypervisor": "/sys/hypervisor/type",
}
_STATUS, _TIMERS = "/proc/self/status", "/proc/timer_list"
_PROC = ("/proc/cpuinfo", "/proc/meminfo", "/proc/self/mountinfo", "/proc/xen/capabilities", _STATUS, _TIMERS)
_FILTERS = {"0": "none", "1": "strict", "2": "a filter"}
"""Of system calls, by a process's field Seccomp (proc(5))."""
_KERNEL = ("/proc/sys/kernel/ostype", "/proc/sys/kernel/osrelease", "/proc/sys/kernel/version")
_MAINFRAME = "/proc/sysinfo"
_MARKS = ("/run/systemd/container", "/run/.containerenv", "/.dockerenv")
_CPUINFO = {"ppc64": ("cpu", "flags", "clock"), "s390x": ("processor 0", "features", "cpu MHz static")}
"""How other processors than x86 name in ``/proc/cpuinfo`` what they are, what they can, and their frequency."""
_FREQUENCIES = (24, 48, 100, 128, 200, 250, 256, 300, 500, 1000, 1024, 1200)
"""What CONFIG_HZ may be, on one architecture or another (kernel/Kconfig.hz, arch/*/Kconfig)."""
_SCRIPTS = Path(__file__).parent / "scripts"
_READ = script(_SCRIPTS / "read-facts.sh")
_HEADER = re.compile(r"^==> (/.+) <==$", re.MULTILINE)
_TROUBLE = re.compile(r"head: (?:cannot open|error reading) '(.+?)'(?: for reading)?: (.+)")

# How firmware and hypervisors identify themselves, as in systemd-detect-virt (systemd, src/basic/virt.c).
_MAKERS = (
    ("KVM", "kvm"),
    ("OpenStack", "kvm"),
    ("Amazon EC2", "amazon"),
    ("Google Compute Engine", "google"),
    ("QEMU", "qemu"),
    ("VMware", "vmware"),
    ("VirtualBox", "virtualbox"),
    ("innotek GmbH", "virtualbox"),
    ("Virtual Machine", "hyper-v"),  # Microsoft's product name
    ("Xen", "xen"),
    ("HVM domU", "xen"),
    ("Bochs", "bochs"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("KubeVirt", "kvm"),
)
_CLOCKS = {"kvm-clock": "kvm", "xen": "xen", "hyperv": "hyper-v"}
# What x86 hypervisors answer CPUID with, at leaf 0x40000000, without spaces around it (as virt-what has them;
# Parallels' is general knowledge).
_SIGNATURES = {
    "KVMKVMKVM": "kvm",
    "Linux KVM Hv": "kvm",
    "LKVMLKVMLKVM": "kvm",
    "TCGTCGTCGTCG": "qemu",
    "VMwareVMware": "vmware",
    "Microsoft Hv": "hyper-v",
    "XenVMMXenVMM": "xen",
    "VBoxVBoxVBox": "virtualbox",
    "bhyve bhyve": "bhyve",
    "lrpepyh vr": "parallels",
}
_ASKS_CPUID = "usr/libexec/virt-what-cpuid-helper"
_SIGNATURE = "CPUID leaf 0x40000000"
"""By this name the signature is found among the files that are read."""


class _Files:
    """Contents of the files that one command read, and why others could not be read."""

    def __init__(self, stdout: str, stderr: str) -> None:
        self.trouble = dict(_TROUBLE.findall(stderr))
        parts = _HEADER.split(stdout)
        self.preamble = parts[0].splitlines()
        self.content = dict(zip(parts[1::2], (part.strip("\n") for part in parts[2::2]), strict=True))

    def text(self, path: str) -> str:
        """A file's content as one line, or why there is none."""
        found = " ".join(self.content.get(path, "").split())
        return found or f"{UNAVAILABLE}{path}: {self.trouble.get(path, 'it is empty')}"

    def under(self, pattern: str) -> dict[str, str]:
        """Contents of the files that match a pattern, by path."""
        return {
            path: text.strip() for path, text in self.content.items() if PurePosixPath(path).match(pattern)
        }

    def field(self, path: str, name: str) -> str:
        """The first ``name : value`` line of a file."""
        match = re.search(rf"^{name}[ \t]*:[ \t]*(.+)$", self.content.get(path, ""), re.MULTILINE)
        if match:
            return match[1].strip()
        return f"{UNAVAILABLE}{path}: {self.trouble.get(path, f'it has no line {name}')}"


def collect(host: Host, results: Path | str | None = None) -> dict[str, Any]:
    """Facts of one host, read inside it by one command; keys are stable, none is left out.

    All are text except ``placement``, the fields of :class:`vbench.hosts.placement.Placement`.

    ``results`` is the folder that results go to, if it is on this host. Raises ``HostError`` if the host is
    gone.
    """
    folders = {"scratch": host.scratch} | ({"results": str(results)} if results is not None else {})
    files = [*_FILES.values(), *_PROC, *_KERNEL, *_MARKS]
    files += [_MAINFRAME] if host.payload is not None and host.payload.machine == "s390x" else []
    begin = time.time()
    argv = ["sh", "-c", _READ, "sh", _signature_of(host), str(len(folders)), *folders.values(), *files]
    done = host.run(argv, check=False, timeout=120)
    end = time.time()
    read = _Files(done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    if len(read.preamble) < 3 + len(folders):
        why = done.stderr.decode(errors="replace").strip()[:200] or f"exit code {done.code}"
        raise HostError(f"{host.name}: cannot read its facts: {why}")
    clock, machine, signature, *places = read.preamble
    # A processor without a hypervisor answers that leaf, too: with anything.
    signature = signature if _has_hypervisor(read.content) and signature.isprintable() else ""
    read.content[_SIGNATURE] = signature
    known: dict[str, str] = {
        "kernel": " ".join(read.text(path) for path in _KERNEL[:2]),
        "kernel_build": read.text(_KERNEL[2]),
        "machine": machine,
        "preemption": _preemption(read.text(_KERNEL[2])),
        "timer_hz": _timer_hz(read),
        "seccomp": _FILTERS.get(seccomp := read.field(_STATUS, "Seccomp"), seccomp),
        **{name: read.text(path) for name, path in _FILES.items()},
        **_processor(read),
        **{
            name: _kibibytes(read, field)
            for name, field in (("memory_kib", "MemTotal"), ("swap_kib", "SwapTotal"))
        },
        "clock_offset_s": _offset(clock, begin, end),
        "cpuid_hypervisor": signature.strip() or f"{UNAVAILABLE}the processor names no hypervisor",
        "virtualized": virtualization(read.content),
        "container": next(
            (f"{path} exists" for path in _MARKS if path not in read.trouble), "no sign of one"
        ),
    }
    issues = read.under(f"{_CPU}/vulnerabilities/*")
    known |= {f"mitigation_{path.rpartition('/')[2]}": text for path, text in issues.items()}
    if not issues:
        known["mitigations"] = f"{UNAVAILABLE}{_CPU}/vulnerabilities: the kernel does not tell"
    for name, place in zip(folders, places, strict=False):
        known |= _storage(read, name, place, folders[name])
    return {**known, "placement": asdict(host.placement)}


def _processor(read: _Files) -> dict[str, str]:
    path = "/proc/cpuinfo"
    count = len(re.findall(r"^processor\b", read.content.get(path, ""), re.MULTILINE))
    cpu, flags, mhz = _CPUINFO.get(read.preamble[1].removesuffix("le"), ("model name", "flags", "cpu MHz"))
    return {
        "cpu": read.field(path, cpu),
        "cpu_flags": read.field(path, flags),
        "cpu_mhz": read.field(path, mhz),
        "cpu_cache": read.field(path, "cache size"),
        "microcode": read.field(path, "microcode"),
        "cores_per_socket": read.field(path, "cpu cores"),
        "cpus": str(count) if count else f"{UNAVAILABLE}{path}: it lists no processor",
    }


def _preemption(build: str) -> str:
    """What a kernel's build says of it: PREEMPT_DYNAMIC, PREEMPT_RT, ..., or nothing, which is none or voluntary."""
    if build.startswith(UNAVAILABLE):
        return build
    found = re.search(r"\bPREEMPT\w*", build)
    return found[0] if found else "none or voluntary"


def _timer_hz(read: _Files) -> str:
    """The frequency of the kernel's timer (CONFIG_HZ), from its list of timers.

    Jiffies are counted from five minutes before they wrap, in 32 bits (INITIAL_JIFFIES, include/linux/jiffies.h).
    """
    text = read.content.get(_TIMERS, "")
    now, jiffies = re.search(r"^now at (\d+) nsecs", text, re.MULTILINE), re.search(r"\bjiffies: (\d+)", text)
    if now is None or jiffies is None:
        return f"{UNAVAILABLE}{_TIMERS}: {read.trouble.get(_TIMERS, 'it does not say')}"
    since_wrap = int(now[1]) / 1e9 - 300
    if abs(since_wrap) < 1:
        return f"{UNAVAILABLE}{_TIMERS}: its jiffies have just wrapped"
    told = (int(jiffies[1]) - 2**32) / since_wrap
    nearest = min(_FREQUENCIES, key=lambda each: abs(told / each - 1))
    if abs(told / nearest - 1) > 0.05:
        return f"{UNAVAILABLE}{_TIMERS}: {told:.0f} Hz is no frequency that a kernel can have"
    return str(nearest)


def _kibibytes(read: _Files, field: str) -> str:
    return read.field("/proc/meminfo", field).removesuffix(" kB")


def _offset(clock: str, begin: float, end: float) -> str:
    """How far the host's time of day is ahead of the harness's, and the uncertainty of that."""
    try:
        return f"{float(clock) - (begin + end) / 2:+.3f} within {(end - begin) / 2:.3f}"
    except ValueError:
        return f"{UNAVAILABLE}date said {clock[:40]!r}"


def _signature_of(host: Host) -> str:
    """A shell's command, by the capsule's own program, that says how the hypervisor names itself to CPUID."""
    if host.payload is None:
        return ":"
    return shlex.join(host.payload.loaded(_ASKS_CPUID))


def virtualization(content: Mapping[str, str]) -> str:
    """Which virtualization a host runs on, and the evidence, from the files that it exposes.

    The order of evidence follows systemd-detect-virt: Xen's own files, User Mode Linux, firmware names,
    available clock sources, and last the CPU flag, which says that there is a hypervisor but not which.
    """
    return next(_signs(content), "no sign of it")


def _signs(content: Mapping[str, str]) -> Iterator[str]:
    if "control_d" in content.get("/proc/xen/capabilities", ""):
        yield "xen, of which this is dom0 (/proc/xen/capabilities)"
    if kind := content.get("/sys/hypervisor/type", "").strip():
        yield f"{kind} (/sys/hypervisor/type)"
    cpuinfo = content.get("/proc/cpuinfo", "")
    if re.search(r"^(vendor_id|model name)\s*: (User Mode Linux|UML)$", cpuinfo, re.MULTILINE):
        yield "uml (/proc/cpuinfo)"
    yield from _other_processors(content)
    for name in ("product_name", "sys_vendor", "bios_vendor"):
        path = f"{_DMI}/{name}"
        for sign, kind in _MAKERS:
            if content.get(path, "").strip().startswith(sign):
                yield f"{kind} ({path})"
    signature = content.get(_SIGNATURE, "").strip()
    if signature in _SIGNATURES:
        yield f"{_SIGNATURES[signature]} ({_SIGNATURE} says {signature!r})"
    path = f"{_CLOCK}/available_clocksource"
    for sign, kind in _CLOCKS.items():
        if sign in content.get(path, ""):
            yield f"{kind} ({path} offers {sign})"
    if _has_hypervisor(content):
        yield "yes, by a hypervisor that does not say its name (the processor's flag)"


def _other_processors(content: Mapping[str, str]) -> Iterator[str]:
    """What machines with another processor than x86 say."""
    cpuinfo = content.get("/proc/cpuinfo", "")
    if found := re.search(r"^model\s*: IBM (pSeries|PowerNV) \(emulated by qemu\)$", cpuinfo, re.MULTILINE):
        partition = ", of which this is a partition" if found[1] == "pSeries" else ""
        yield f"qemu{partition} (/proc/cpuinfo)"
    told = content.get(_MAINFRAME, "")
    if found := re.search(r"^VM00 Control Program:\s*(\S+)", told, re.MULTILINE):
        yield f"{'kvm' if found[1] == 'KVM/Linux' else found[1]} ({_MAINFRAME})"
    elif re.search(r"^Manufacturer:\s*HRC\b", told, re.MULTILINE):
        yield f"hercules ({_MAINFRAME})"


def _has_hypervisor(content: Mapping[str, str]) -> bool:
    """Whether the processor says that there is one, which it does by a flag."""
    return bool(re.search(r"^flags\s*:.* hypervisor\b", content.get("/proc/cpuinfo", ""), re.MULTILINE))


def _storage(read: _Files, name: str, place: str, asked: str) -> dict[str, str]:
    """File system and device of a folder, from the mount point with the longest path above it."""
    keys = f"{name}_file_system", f"{name}_storage"
    if not place:
        return dict.fromkeys(keys, f"{UNAVAILABLE}{asked} cannot be entered")
    mounts = []
    for line in read.content.get("/proc/self/mountinfo", "").splitlines():
        left, _, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if len(before) > 5 and len(after) > 1:
            point = before[4].replace("\\040", " ")
            if PurePosixPath(place).is_relative_to(point):
                mounts.append((len(point), before[2], f"{after[0]} on {after[1]} ({before[5]})"))
    if not mounts:
        return dict.fromkeys(keys, f"{UNAVAILABLE}no mount above {place} is told of")
    _, number, text = max(
        reversed(mounts), key=lambda mount: mount[0]
    )  # the last of equals hides the earlier ones
    return {keys[0]: text, keys[1]: _device(read, number)}


def _device(read: _Files, number: str) -> str:
    disks = [
        path.removesuffix("/queue/rotational") for path in read.under("/sys/class/block/*/queue/rotational")
    ]
    for path, found in read.under("/sys/class/block/*/dev").items():
        if found == number:
            folder = path.removesuffix("/dev")
            # A partition has no queue: use the disk whose name is a prefix of its own.
            disk = max((each for each in disks if folder.startswith(each)), key=len, default=folder)
            spins = read.content.get(f"{disk}/queue/rotational", "").strip()
            kind = {"0": "not rotational", "1": "rotational"}.get(spins, "of a kind not told")
            model = read.content.get(f"{disk}/device/model", "").strip() or "no model told"
            order = read.content.get(f"{disk}/queue/scheduler", "").strip() or "not told"
            return f"{folder.rpartition('/')[2]}, {kind}, {model}, scheduler {order}"
    return f"{UNAVAILABLE}device {number} is no block device that the host shows"


def harness(host: Host, checkout: Path) -> str:
    """The commit that this vbench runs from, ``-dirty`` if files differ from it; or why it is unknown."""
    if not (checkout / ".git").exists():
        return f"{UNAVAILABLE}vbench does not run from a checkout"
    ask = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = host.run(ask, check=False, timeout=30)
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return done.text if done.code == 0 else f"{UNAVAILABLE}git: {said[0] if said else done.code}"
