#!/bin/sh
# A copy-on-write root over the capsule's tree, held in memory, with the parent's devices in it; then run something in
# it. Run by the parent's shell in a private mount namespace: every mount is gone with that.
# $1 capsule folder, $2 working folder, then what to run in the new root.
set -e
capsule=$1 work=$2; shift 2
mkdir -p "$work/mnt" "$work/scratch"
mount -t tmpfs -o mode=755 vbench "$work/mnt"
mkdir "$work/mnt/data" "$work/mnt/work" "$work/mnt/root"
root=$work/mnt/root
mount -t overlay -o "lowerdir=$capsule/tree,upperdir=$work/mnt/data,workdir=$work/mnt/work" vbench "$root"
mkdir -p "$root/capsule" "$root/scratch"
tar -xf "$work/seed" -C "$root"
mount --rbind "$capsule" "$root/capsule"
mount -o remount,bind,ro "$root/capsule"
mount --bind "$work/scratch" "$root/scratch"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
cd /
exec chroot "$root" "$@"
