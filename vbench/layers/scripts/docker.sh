#!/bin/sh
# A daemon of Docker's, and a container by it over the root at /mnt/rootfs. Run after installed.sh.
# $1 the control group in which it makes the container's, then what to run in the container.
set -e
group=$1 mounts=; shift
export HOME=/mnt DOCKER_HOST=unix:///mnt/docker.sock
echo '{}' > /mnt/daemon.json # not the machine's own
dockerd --config-file=/mnt/daemon.json --data-root=/mnt/docker --exec-root=/mnt/exec --pidfile=/mnt/docker.pid \
    --host="$DOCKER_HOST" --log-level=error --exec-opt=native.cgroupdriver=cgroupfs --cgroup-parent="/$group" \
    --bridge=none --iptables=false --ip-forward=false --ip-masq=false &
until docker version > /mnt/version 2>&1; do
    kill -0 $! || { cat /mnt/version >&2; exit 1; }
    sleep 0.1
done
# It runs images only: one of the root's links and empty folders, on which the others are mounted.
cd /mnt/rootfs
image=$(tar --no-recursion -c -- * | docker import -)
for each in *; do
    case $each in dev | proc | sys) continue ;; esac
    if [ ! -L "$each" ] && [ -d "$each" ]; then mounts="$mounts --volume=/mnt/rootfs/$each:/$each"; fi
done
# shellcheck disable=SC2086 # mounts are words: the folders of the capsule's root have no spaces
exec docker run --rm --pull=never --name=vbench --hostname=docker --network=host --log-driver=none $mounts "$image" "$@"
