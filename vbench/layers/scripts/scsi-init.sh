#!/bin/busybox sh
# shellcheck shell=dash
# First process of a guest whose disks are on a SCSI or an IDE bus: gives them the names that the capsule's initrd looks
# for, and hands over to that. $1 and on: what the kernel was told.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
while read -r module; do
    $b insmod "/mod/$module" 2> /dev/null || :
done < /mod/order
while read -r module; do
    $b insmod "/scsi/$module" 2> /dev/null || :
done < /scsi/order
tries=0
while [ ! -e /dev/sdc ] && [ $tries -lt 500 ]; do
    $b usleep 10000
    tries=$((tries + 1))
done
# They are found at once, in any order: which is which, their places on the bus tell.
$b mount -t sysfs sys /sys
for disk in /sys/block/sd?; do
    echo "$($b readlink "$disk/device") ${disk##*/}"
done | $b sort | while read -r _ disk; do
    for name in vda vdb vdc; do
        [ -e /dev/$name ] || { $b ln -s "$disk" /dev/$name; break; }
    done
done
$b umount /sys
$b umount /dev
exec /init "$@"
