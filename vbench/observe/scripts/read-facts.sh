#!/bin/sh
# Read what a host tells of itself: $1 is a command that says the hypervisor's signature, $2 how many folders follow, whose
# real paths are told; then files. The first line is the time of day, the second the machine's architecture, the third the
# signature; content follows under head's headers.
LC_ALL=C; export LC_ALL
date +%s.%N; uname -m
eval "$1" 2> /dev/null | head -n 1 | tr -d '\n'; echo
count=$2; shift 2
while [ "$count" -gt 0 ]; do (cd -P -- "$1" 2>/dev/null && pwd -P || echo); shift; count=$((count - 1)); done
exec head -v -c 131072 -- "$@" /sys/devices/system/cpu/vulnerabilities/* /sys/class/block/*/dev \
    /sys/class/block/*/queue/rotational /sys/class/block/*/queue/scheduler /sys/class/block/*/device/model
