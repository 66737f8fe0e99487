#!/bin/sh
# Make the add-on of libkrun, a root in which the program runs that starts a microVM, with the library that is its
# kernel, both out of a wheel, and libraries of the capsule; and the folder that the microVM starts in.
# Run in a private mount namespace.
# $1 the capsule's tree; $2 a working folder with the wheel unpacked, in which the folder made is the result; $3 what is
# run in the microVM.
set -e
capsule=$1 work=$2 first=$3
made=$work/made
mkdir -p "$made/lib64" "$made/dev" "$made/proc" "$made/sys" "$made/tmp" "$made/vbench" "$made/root"
cp -r "$work/wheels/microsandbox/_bundled/bin" "$work/wheels/microsandbox/_bundled/lib" "$made"
chmod 755 "$made/bin/msb"
mount --bind "$work" "$capsule/mnt"
chroot "$capsule" sh -c 'cd /mnt/made/root && busybox cpio -i < /boot/vbench/initrd' 2> /dev/null
umount "$capsule/mnt"
rm -r "$made/root/mod" "$made/root/init"
cp "$first" "$made/root/start"
mkdir "$made/root/etc"
echo root:x:0:0:root:/:/bin/sh > "$made/root/etc/passwd"
for library in libc libdl libgcc_s libm libpthread librt; do
    cp -L "$capsule/usr/lib/x86_64-linux-gnu/$library.so."[0-9]* "$made/lib"
done
cp -L "$capsule/lib64/ld-linux-x86-64.so.2" "$made/lib64"
