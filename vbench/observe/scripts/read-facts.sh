#!/bin/sh
# Read what a host tells of itself: $1 how many folders follow, whose real paths are told; then files. The first line is
# the time of day, the second the machine's architecture; content follows under head's headers.
LC_ALL=C; export LC_ALL
date +%s.%N; uname -m
count=$1; shift
while [ "$count" -gt 0 ]; do (cd -P -- "$1" 2>/dev/null && pwd -P || echo); shift; count=$((count - 1)); done
exec head -v -c 131072 -- "$@" /sys/devices/system/cpu/vulnerabilities/* /sys/class/block/*/dev \
    /sys/class/block/*/queue/rotational /sys/class/block/*/queue/scheduler /sys/class/block/*/device/model
