#!/bin/sh
# What a process and all its descendants use: $1 is the process. One total a line, of what the kernel there tells;
# nothing at all where it cannot tell who descends from whom, because part of a total is none. Of memory, pss is told
# only when $2 asks for it: the kernel walks all page tables for that.
[ -e "/proc/$1/task/$1/children" ] || exit 0
all='' new=$1 asked=$2
while [ -n "$new" ]; do
    next=
    for pid in $new; do
        for list in /proc/"$pid"/task/*/children; do
            line=; { read -r line <"$list"; } 2>/dev/null
            next="$next $line"
        done
    done
    all="$all $new"
    # shellcheck disable=SC2086,SC2116 # splitting takes the spaces out, so that none is the end
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
    line=; { read -r line </proc/"$pid"/stat; } 2>/dev/null || continue
    # shellcheck disable=SC2086 # the fields after the name, which may hold spaces
    set -- ${line##*) }
    ticks=$((ticks + ${12} + ${13} + ${14} + ${15})) rss=$((rss + ${22})) told="$told ticks rss"
    { add </proc/"$pid"/io; } 2>/dev/null
    [ -n "$asked" ] && { add </proc/"$pid"/smaps_rollup; } 2>/dev/null
    for task in /proc/"$pid"/task/*; do
        { add <"$task"/status; } 2>/dev/null
        { read -r line rest <"$task"/schedstat; } 2>/dev/null && ran=$((ran + line)) told="$told ran"
    done
done
for name in ticks rss pss ran switches read written; do
    case " $told " in *" $name "*) eval "echo $name \$$name" ;; esac
done
