#!/bin/busybox sh
# shellcheck shell=dash
# First process of a machine emulated by Bochs, whose disks are on an IDE bus: gives them the names that the deterministic
# machine's first process looks for, and hands over to that.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
while read -r module; do
    $b insmod "/mod/$module" 2> /dev/null || :
done < /mod/order
while read -r module; do
    $b insmod "/bochs/$module" 2> /dev/null || :
done < /bochs/order
tries=0
while { [ ! -e /dev/sda ] || [ ! -e /dev/sdb ]; } && [ $tries -lt 500 ]; do
    $b usleep 10000
    tries=$((tries + 1))
done
# They may be found in any order: which is which, their places on the bus tell.
$b mount -t sysfs sys /sys
for disk in /sys/block/sd?; do
    echo "$($b readlink "$disk/device") ${disk##*/}"
done | $b sort | while read -r _ disk; do
    for name in pmem0 box; do
        [ -e /dev/$name ] || { $b ln -s "$disk" /dev/$name; break; }
    done
done
$b umount /sys
$b umount /dev
exec /init
