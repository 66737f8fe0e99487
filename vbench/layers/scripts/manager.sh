#!/bin/sh
# Where a container manager runs: a copy-on-write root held in memory, over the manager's tree and the capsule's, with the
# container's root in it, at /container/rootfs. Then run the manager. Run by the parent's shell, after container-root.sh,
# in private mount, PID and network namespaces: every mount is gone with them.
# $1 capsule folder, $2 working folder with a folder container, $3 the manager's tree, then what to run.
set -e
capsule=$1 work=$2 tree=$3; shift 3
mkdir -p "$work/mnt"
mount -t tmpfs -o mode=755 vbench "$work/mnt"
outer=$work/mnt/outer
mkdir "$outer" "$work/mnt/data" "$work/mnt/work"
mount -t overlay -o "lowerdir=$tree:$capsule/tree,upperdir=$work/mnt/data,workdir=$work/mnt/work" vbench "$outer"
mkdir -p "$outer/container" "$outer/parent"
cp -r "$work/container/." "$outer/container/"
container_root "$capsule" "$work" "$outer/container/rootfs"
mount -t proc proc "$outer/proc"
mount --rbind /sys "$outer/sys"
mount --rbind /dev "$outer/dev"
mount -t tmpfs -o mode=1777 tmp "$outer/tmp"
mount -t tmpfs -o mode=755 run "$outer/run"
# Not by chroot, in which the kernel gives no user namespace, which gVisor makes.
cd "$outer"
pivot_root . parent
umount -l /parent
exec "$@"
