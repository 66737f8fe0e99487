#!/bin/busybox sh
# First process of a mainframe and of its guests, before the capsule's: what is on channels is brought up, and its disks are
# given the names that are looked for. Neither comes up by itself in a certain order.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
channels=/sys/bus/ccw/devices
wait_for() { tries=0; while [ ! -e "$1" ] && [ $tries -lt 500 ]; do $b usleep 20000; tries=$((tries + 1)); done; }

[ -e $channels/0.0.0a00 ] || echo 0 > /sys/bus/virtio/drivers_autoprobe
while read -r module; do
    case $module in dasd* | lcs.* | ccwgroup.* | fsm.*) [ -e $channels/0.0.0a00 ] || continue ;; esac
    $b insmod "/mod/$module" || echo "vbench: no $module"
done < /mod/order
: > /mod/order

if [ -e $channels/0.0.0a00 ]; then
    echo 1 > $channels/0.0.0100/readonly
    for each in 0100/a 0101/b 0102/c; do
        echo 1 > "$channels/0.0.${each%/*}/online"
        wait_for "/dev/dasd${each#*/}"
        $b ln -s "dasd${each#*/}" "/dev/vd${each#*/}"
    done
    echo 0.0.0a00,0.0.0a01 > /sys/bus/ccwgroup/drivers/lcs/group
    echo 1 > /sys/bus/ccwgroup/drivers/lcs/0.0.0a00/online
else
    for each in 0000/blk 0001/blk 0002/blk 0003/net; do
        device=$channels/0.0.${each%/*}
        tries=0
        while set -- "$device"/virtio*; [ ! -e "$1" ] && [ $tries -lt 500 ]; do
            $b usleep 20000; tries=$((tries + 1))
        done
        echo "${1##*/}" > "/sys/bus/virtio/drivers/virtio_${each#*/}/bind"
    done
    echo 1 > /sys/bus/virtio/drivers_autoprobe
fi
exec /vbench-init
