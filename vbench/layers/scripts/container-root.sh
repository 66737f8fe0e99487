#!/bin/sh
# A container's root, at the folder $3: copy-on-write over the capsule's tree in folder $1, held in memory; the rest in the
# working folder $2. What else is mounted in it is the container manager's doing.
container_root() {
    mkdir -p "$2/scratch" "$2/mnt/inner/data" "$2/mnt/inner/work" "$3"
    mount -t overlay -o "lowerdir=$1/tree,upperdir=$2/mnt/inner/data,workdir=$2/mnt/inner/work" vbench "$3"
    mkdir -p "$3/capsule" "$3/scratch"
    tar -xf "$2/seed" -C "$3"
    mount --rbind "$1" "$3/capsule"
    mount -o remount,bind,ro "$3/capsule"
    mount --bind "$2/scratch" "$3/scratch"
}
