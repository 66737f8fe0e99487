#!/bin/sh
# Make the add-on of libkrun, a root in which the program runs that starts a microVM, with the library that is its
# kernel, both out of a wheel, and libraries of the capsule; the folder that the microVM starts in; and that kernel for
# QEMU.
# Run in a private mount namespace.
# $1 the capsule's tree; $2 a working folder with the wheel unpacked, in which the folder made is the result; $3 what is
# run in the microVM; $4 and $5 the sources of what takes the kernel out of the library, and of what QEMU loads.
set -e
capsule=$1 work=$2 first=$3
made=$work/made
mkdir -p "$made/lib64" "$made/dev" "$made/proc" "$made/sys" "$made/tmp" "$made/vbench" "$made/root/etc"
cp -r "$work/wheels/microsandbox/_bundled/bin" "$work/wheels/microsandbox/_bundled/lib" "$made"
chmod 755 "$made/bin/msb"
for library in libc libdl libgcc_s libm libpthread librt; do
    cp -L "$capsule/usr/lib/x86_64-linux-gnu/$library.so."[0-9]* "$made/lib"
done
cp -L "$capsule/lib64/ld-linux-x86-64.so.2" "$made/lib64"

cp "$4" "$5" "$work"
mount --bind "$work" "$capsule/mnt"
# shellcheck disable=SC2016 # it is another shell that expands this
chroot "$capsule" sh -ec '
    cd /mnt
    export TMPDIR=/mnt
    ln -s made/lib/libkrunfw.so.5.* libkrunfw.so.5
    gcc -O -o kernel libkrun-kernel.c libkrunfw.so.5
    LD_LIBRARY_PATH=. ./kernel > kernel.raw
    gcc -nostdlib -static -no-pie -Wl,--build-id=none,-Ttext=0x1000000,-e,start -o made/kernel libkrun-kernel.S
    cd made/root
    busybox cpio -i < /boot/vbench/initrd
' > "$work/log" 2>&1 || { tail -n 8 "$work/log" >&2; exit 1; }
umount "$capsule/mnt"
rm -r "$made/root/mod" "$made/root/init"
cp "$first" "$made/root/start"
echo root:x:0:0:root:/:/bin/sh > "$made/root/etc/passwd"
