#!/bin/sh
# What there is of a capsule on a machine: $1 the capsule's name. One word and a value on each line.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/vbench
mkdir -p "$cache/capsules" || exit
echo "cache $cache"
echo "machine $(uname -s -m)"
if [ -f "$cache/capsules/$1/delivered" ]; then echo "delivered $(cat "$cache/capsules/$1/delivered")"; fi
if [ -f "$cache/capsules/$1.part" ]; then echo "sent $(wc -c <"$cache/capsules/$1.part")"; fi
if command -v gzip >/dev/null; then echo "gzip 1"; fi
df -Pk "$cache/capsules" | { read -r _; read -r _ _ _ free _; echo "free $free"; }
