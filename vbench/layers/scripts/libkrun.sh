#!/bin/sh
# Run a microVM by libkrun, as the first process of a namespace: when this ends, all does.
# $1 the capsule's image, $2 working folder, $3 the add-on's tree; the guest's $4 memory in MiB and $5 processors; $6 the
# network's first addresses, of which the guest gets the second, $7 the port of the parent's loopback that leads to the
# guest's port 22; $8 what its kernel is told besides.
set -e
image=$1 work=$2 add_on=$3 memory=$4 processors=$5 network=$6 port=$7 choices=$8

# What it starts in, a folder that it sees by virtio-fs.
mkdir "$work/home"
cp -r "$add_on/root" "$work/root"
cp "$work/seed" "$work/root/seed"

mount --bind "$add_on" "$add_on"
mount -t proc proc "$add_on/proc"
mount --rbind /sys "$add_on/sys"
mount --rbind /dev "$add_on/dev"
mount -t tmpfs -o mode=1777 tmp "$add_on/tmp"
mount --rbind "$work" "$add_on/vbench"
: > "$add_on/vbench/image"
mount --bind "$(readlink -f "$image")" "$add_on/vbench/image"
cd /
export HOME=/vbench/home MSB_HOME=/vbench/home MSB_KRUN_KERNEL_CMDLINE="$choices"
exec chroot "$add_on" /bin/msb run --debug --no-tty --no-stdin \
    --pull never --name vbench --hostname libkrun --cpus "$processors" --memory "${memory}M" --guest-clock off \
    --mount-disk /vbench/image:/ro:ro,format=raw,fstype=ext4 \
    --mount-disk /vbench/scratch:/scratch:format=raw,fstype=ext4 \
    --net all --net-ipv4-pool "$network" --no-dns-rebind-protection --port "127.0.0.1:$port:22" \
    /vbench/root -- /bin/busybox sh /start
