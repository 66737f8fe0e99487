"""What a process and all its descendants use, read by a shell where they run: for parents over SSH."""

from __future__ import annotations

from vbench.hosts.base import Usage

TICKS = 100
"""Ticks of a second in /proc/PID/stat, on every Linux of this architecture (proc(5), sysconf(3))."""

# $1 is the process. One total a line, of what the kernel there tells; nothing at all where it cannot tell who
# descends from whom, because part of a total is none. Of memory, pss is told only when $2 asks for it: the
# kernel walks all page tables for that.
SCRIPT = r"""
[ -e "/proc/$1/task/$1/children" ] || exit 0
all= new=$1 asked=$2
while [ -n "$new" ]; do
    next=
    for pid in $new; do
        for list in /proc/$pid/task/*/children; do
            line=; { read -r line <"$list"; } 2>/dev/null
            next="$next $line"
        done
    done
    all="$all $new"
    new=$(echo $next)
done
ticks=0 rss=0 pss=0 ran=0 switches=0 read=0 written=0 told=
add() {
    while read -r key value rest; do
        case $key in
            *voluntary_ctxt_switches:) switches=$((switches + value)); told="$told switches" ;;
            read_bytes:) read=$((read + value)); told="$told read" ;;
            write_bytes:) written=$((written + value)); told="$told written" ;;
            Pss:) pss=$((pss + value)); told="$told pss" ;;
        esac
    done
}
for pid in $all; do
    line=; { read -r line </proc/$pid/stat; } 2>/dev/null || continue
    set -- ${line##*) }
    ticks=$((ticks + ${12} + ${13} + ${14} + ${15})) rss=$((rss + ${22})) told="$told ticks rss"
    { add </proc/$pid/io; } 2>/dev/null
    [ -n "$asked" ] && { add </proc/$pid/smaps_rollup; } 2>/dev/null
    for task in /proc/$pid/task/*; do
        { add <$task/status; } 2>/dev/null
        { read -r line rest <$task/schedstat; } 2>/dev/null && ran=$((ran + line)) told="$told ran"
    done
done
for name in ticks rss pss ran switches read written; do
    case " $told " in *" $name "*) eval "echo $name \$$name" ;; esac
done
"""


def argv(pid: int | str, *, pss: bool = False) -> list[str]:
    """The command that runs the script for a process; ``pss`` asks for that, too."""
    return ["sh", "-c", SCRIPT, "procs", str(pid), *(["pss"] if pss else [])]


def totals(text: str) -> dict[str, int]:
    """What the script printed: ticks of CPU, those of children that have ended included; rss in pages; pss in
    KiB; ran, nanoseconds of CPU of the threads that live; switches; read and written, bytes of storage."""
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def usage(text: str) -> Usage | None:
    """The same as a :class:`vbench.hosts.base.Usage`, or ``None`` where there is no telling."""
    found = totals(text)
    if "ticks" not in found:
        return None
    cpu, rss = found["ticks"] / TICKS, found["rss"] * 4096
    return Usage(cpu, rss, found.get("switches"), found.get("read"), found.get("written"))
