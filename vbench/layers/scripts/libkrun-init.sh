#!/bin/busybox sh
# shellcheck shell=dash
# In a microVM, whose first process is libkrun's: the same root as in other guests, over the capsule's image, which is
# mounted at /ro, as scratch storage is at /scratch.
b=/bin/busybox
set -e
$b mount -t tmpfs -o mode=755 upper /up
$b mkdir /up/data /up/work
$b mount -t overlay -o lowerdir=/ro,upperdir=/up/data,workdir=/up/work root /new
$b mkdir -p /new/capsule/tree /new/scratch
$b mount -o bind /ro /new/capsule/tree
$b tar -xf /seed -C /new
$b mount -o bind /scratch /new/scratch
$b ip link delete dummy0 # which leads nowhere, and would get the guest's address
for name in proc sys dev; do $b mount -o rbind "/$name" "/new/$name"; done
exec $b chroot /new /vbench/rc
