#!/bin/busybox sh
# Process 1 of the deterministic machine once its root is in place: no address but its own, and no server.
b=/bin/busybox
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
$b mkdir -p /dev/pts /dev/shm /run /tmp
$b mount -t devpts -o mode=600,ptmxmode=666 devpts /dev/pts
$b mount -t tmpfs -o mode=1777 shm /dev/shm
$b ln -sf /proc/self/fd /dev/fd
$b hostname testbed
$b ip link set lo up
exec /vbench/agent
