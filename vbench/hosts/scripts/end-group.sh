#!/bin/sh
# End a process group, $1: gently at first, then by force; exit code 1 if some of it is left.
# Zombies do not count: where process 1 reaps nobody, as in many a container, they stay for ever.
left() {
    kill -0 "-$1" 2>/dev/null || kill -0 "$1" 2>/dev/null || return 1
    for stat in /proc/[0-9]*/stat; do
        { read -r line <"$stat"; } 2>/dev/null || continue
        pid=${stat#/proc/}
        # shellcheck disable=SC2086 # the fields after the name, which may hold spaces
        set -- "$1" ${line##*) }
        case $2 in Z | X) continue ;; esac
        [ "$4" = "$1" ] || [ "${pid%/stat}" = "$1" ] && return 0
    done
    return 1
}
kill -TERM "-$1" 2>/dev/null || kill -TERM "$1" 2>/dev/null; i=0
while left "$1"; do
    [ $i = 20 ] && kill -KILL "-$1" 2>/dev/null
    [ $i = 70 ] && exit 1
    i=$((i + 1)); sleep 0.1
done
