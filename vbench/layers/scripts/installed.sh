#!/bin/sh
# A container's root, as /mnt/rootfs, for a manager that is installed on the parent; then the manager. Run by the parent's shell, after
# container-root.sh, in private mount, PID and network namespaces: every mount is gone with them.
# $1 capsule folder, $2 working folder, then what to run.
set -e
capsule=$1 work=$2; shift 2
mkdir -p "$work/mnt"
mount -t tmpfs -o mode=755 vbench "$work/mnt"
container_root "$capsule" "$work" "$work/mnt/rootfs"
mount -t proc proc /proc
mount --rbind "$work/mnt" /mnt # a short path, without which Podman refuses one for its state
mount -t tmpfs -o mode=755 run /run # where managers keep more of it
mount -t tmpfs -o mode=1777 shm /dev/shm # and Podman its locks
for each in etc opt var; do # and where they leave a file or a folder: it stays in memory
    mkdir -p "/mnt/$each/data" "/mnt/$each/work"
    [ ! -d "/$each" ] || mount -t overlay -o "lowerdir=/$each,upperdir=/mnt/$each/data,workdir=/mnt/$each/work" vbench "/$each"
done
umount /sys/fs/cgroup/unified 2> /dev/null || true # crun refuses hierarchies of both versions
cd /
# This is the first process of its namespace: when it ends, all do, without what a manager does at its leisure.
trap 'exit 143' TERM INT
"$@" &
wait $!
