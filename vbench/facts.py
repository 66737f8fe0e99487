"""What a host is: the facts that a figure depends on, and whether stacks were treated alike."""

from __future__ import annotations

import os
from collections.abc import Mapping

from vbench.errors import VbenchError
from vbench.host import Host

# One key and value a line, from files that every Linux kernel has; what is absent stays unsaid.
_SCRIPT = r"""
say() { [ -n "$2" ] && printf '%s\t%s\n' "$1" "$2"; }
first() { [ -r "$1" ] && { read -r line < "$1" || :; printf %s "$line"; }; }
field() { sed -n "s/^$1[[:space:]]*: *//p" /proc/cpuinfo | head -n 1; }
say kernel "$(uname -sr)"
say machine "$(uname -m)"
say command_line "$(first /proc/cmdline)"
say cpu "$(field 'model name')"
say cpu_flags "$(field flags)"
say microcode "$(field microcode)"
say cpus "$(grep -c ^processor /proc/cpuinfo)"
say memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
say swap_kib "$(sed -n 's/^SwapTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
say governor "$(first /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor)"
say smt "$(first /sys/devices/system/cpu/smt/active)"
say clocksource "$(first /sys/devices/system/clocksource/clocksource0/current_clocksource)"
say product "$(first /sys/class/dmi/id/product_name)"
say hypervisor "$(first /sys/hypervisor/type)"
for path in /sys/devices/system/cpu/vulnerabilities/*; do
    say "mitigation_${path##*/}" "$(first "$path")"
done
df -PT "$1" 2>/dev/null | { read -r _; read -r device kind _ && say scratch_file_system "$kind on $device"; }
"""


def collect(host: Host) -> dict[str, str]:
    """Facts of one host, read inside it; keys are stable, an unknown fact is absent.

    Raises ``HostError`` when the host has gone.
    """
    done = host.run(["sh", "-c", _SCRIPT, "sh", host.scratch], check=False, timeout=120)
    found = {}
    for line in done.text.splitlines():
        key, tab, value = line.partition("\t")
        if tab:
            found[key] = value
    if " hypervisor" in found.get("cpu_flags", ""):
        found.setdefault("virtualized", "the processor says that a hypervisor is below")
    return {**found, **{f"trait_{key}": value for key, value in host.traits.items()}}


# Until a second in which the processor had less than 3% to do, by its own accounting; at most half a minute.
_REST = r"""
busy() { read -r _ user nice system idle wait irq soft _ < /proc/stat; echo $((user + nice + system + irq + soft)); }
tries=0; before=$(busy)
while [ $tries -lt 30 ]; do
    sleep 1; after=$(busy)
    [ $((after - before)) -lt 3 ] && exit 0
    before=$after; tries=$((tries + 1))
done
exit 1
"""


def come_to_rest(host: Host) -> bool:
    """Wait until a machine just booted has no work of its own left; whether it came to that."""
    return host.run(["sh", "-c", _REST], check=False, timeout=900).code == 0


def noise() -> list[str]:
    """What on this machine could disturb a measurement about to start."""
    found = []
    load, cpus = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > 0.5 * cpus:
        found.append(f"the load average is {load:.2f} on {cpus} CPUs before the run")
    return found


_COMPARED = {
    "trait_vcpus": "virtual CPUs",
    "trait_memory": "memory",
    "trait_disk": "disk path",
    "trait_network": "network path",
    "clocksource": "clock source",
}


def unequal(facts: Mapping[str, Mapping[str, str]], baseline: str) -> list[tuple[str, str]]:
    """Where a stack differs from its baseline in what should be equal: (stack, sentence) pairs.

    Raises ``VbenchError`` when the baseline's facts are missing.
    """
    if baseline not in facts:
        raise VbenchError(f"no facts of the baseline {baseline}")
    found = []
    for stack, mine in facts.items():
        if stack == baseline:
            continue
        for key, meaning in _COMPARED.items():
            here, there = mine.get(key, "unknown"), facts[baseline].get(key, "unknown")
            if here != there:
                found.append((stack, f"{meaning}: {here}; in {baseline}: {there}"))
    return found
