#!/bin/sh
# What a machine says of itself: a hypervisor below it, its kind of processor, and what that can do.
cat /sys/hypervisor/type
test ! -d /proc/xen || echo xen
sed -n '/^vendor_id/{p;q}' /proc/cpuinfo
grep -m1 -owE 'vmx|svm|hypervisor' /proc/cpuinfo
