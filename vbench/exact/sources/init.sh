#!/bin/busybox sh
# First process of the deterministic machine's kernel: the capsule's image lies in memory that persists (virtio-pmem), as
# reads of a disk take a time that is not the machine's own. Otherwise as the capsule's initrd-init.
b=/bin/busybox
fail() { echo "vbench: $*"; $b sleep 1; $b poweroff -f; }
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for list in /mod/order /mod/order-exact; do
    while read -r module; do
        $b insmod "/mod/$module" 2> /dev/null || :   # a driver whose bus is absent refuses; that is fine
    done < $list
done
tries=0
while [ ! -b /dev/pmem0 ] && [ $tries -lt 500 ]; do $b usleep 10000; tries=$((tries + 1)); done
$b mount -t ext4 -o ro,noatime /dev/pmem0 /ro || fail "cannot mount the image"
$b mount -t tmpfs -o mode=755 upper /up
$b mkdir /up/data /up/work
$b mount -t overlay -o lowerdir=/ro,upperdir=/up/data,workdir=/up/work root /new || fail "cannot stack root"
$b mkdir -p /new/capsule/tree /new/scratch /new/vbench
$b mount --move /ro /new/capsule/tree
$b ln -s /dev/pmem0 /new/capsule/image
$b cp /agent /rc-exact /new/vbench/
$b mount --move /proc /new/proc
$b mount --move /sys /new/sys
$b mount --move /dev /new/dev
exec $b switch_root /new /vbench/rc-exact
