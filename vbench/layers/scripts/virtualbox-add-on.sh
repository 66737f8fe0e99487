#!/bin/sh
# Make the add-on of VirtualBox: its module for the capsule's kernel, the programs that run a guest without a window
# and the libraries that those need, and what boots a guest, whose disks are on a SCSI bus, which the capsule's own
# guests know nothing of.
# $1 the capsule's tree; $2 a working folder with packages unpacked by suite, in which the folder made is the result;
# $3 the first process of a guest.
# Run in a private mount namespace.
set -e
capsule=$1 work=$2
made=$work/made lib=usr/lib/x86_64-linux-gnu box=usr/lib/virtualbox
mkdir -p "$made/$box/components" "$made/$lib" "$made/usr/lib64" "$made/usr/bin" "$made/boot" "$made/etc"
mkdir "$made/dev" "$made/proc" "$made/sys" "$made/tmp" "$made/run" "$made/root" "$work/source" "$work/scsi"
cp "$3" "$work/scsi/init"

# All by the capsule's own programs, with the kernel's headers over them: the machine that builds it may have none.
mount --bind "$work" "$capsule/mnt"
# shellcheck disable=SC2016 # it is another shell that expands this
chroot "$capsule" sh -ec '
    busybox tar -xjf /mnt/sid/usr/src/virtualbox.tar.bz2 -C /mnt/source
    release=$(ls /lib/modules) base=/mnt/bookworm scsi=/mnt/scsi
    mount -t overlay -o "lowerdir=$base/usr:/usr" vbench /usr
    export KBUILD_BUILD_TIMESTAMP=@1700000000 KBUILD_BUILD_USER=vbench KBUILD_BUILD_HOST=vbench
    headers=/usr/src/linux-headers-$release source=/mnt/source/modules/virtualbox/vboxdrv
    make -j2 -C "$headers" M="$source" KERN_DIR="$headers" KERN_VER="$release" modules
    strip --strip-debug -o /mnt/made/vboxdrv.ko "$source/vboxdrv.ko"
    depmod -b "$base" "$release"
    modprobe -d "$base" -S "$release" --show-depends -a sd_mod virtio_scsi | while read -r _ file _; do
        name=${file##*/}
        [ ! -e "$scsi/$name" ] || continue
        cp "$file" "$scsi/$name"
        echo "$name" >> "$scsi/order"
    done
    chmod 755 "$scsi" "$scsi"/*
    touch -d @1700000000 "$scsi" "$scsi"/*
    cd /mnt
    find scsi | sort | cpio --quiet --reproducible -o -H newc -R 0:0 > /mnt/made/boot/scsi
' > "$work/log" 2>&1 || { tail -n 8 "$work/log" >&2; exit 1; }
umount "$capsule/mnt"

programs="VBoxManage VBoxSVC VBoxHeadless VBoxHeadless.so VBoxXPCOMIPCD.so VBoxVMM.so VBoxDD.so VBoxDD2.so VBoxDDR0.r0 VMMR0.r0
    components/VBoxC.so components/VBoxSVCM.so components/VBoxXPCOMIPCC.so
    components/VBoxXPCOMBase.xpt components/VirtualBox_XPCOM.xpt"
cp "$work/sid/usr/bin/genisoimage" "$made/usr/bin/"
loader=usr/lib64/ld-linux-x86-64.so.2
cp "$work/sid/$loader" "$made/$loader"
ln -s usr/lib usr/lib64 "$made"
for name in $programs; do
    cp -P "$work/sid/$box/$name" "$made/$box/$name"
    case $name in *.xpt | *.r0) continue ;; esac
    chroot "$work/sid" "/$loader" --library-path "/$box:/$lib" --list "/$box/$name"
done > "$work/needed"
chroot "$work/sid" "/$loader" --list /usr/bin/genisoimage >> "$work/needed"
sed -n 's/.* => \(\/[^ ]*\).*/\1/p' "$work/needed" | sort -u | while read -r file; do
    mkdir -p "$made/${file%/*}"
    cp -L "$work/sid$file" "$made$file"
done
if grep "not found" "$work/needed" >&2; then exit 1; fi

cp "$work/sid/usr/lib/ISOLINUX/isolinux.bin" "$work/sid/usr/lib/syslinux/modules/bios/ldlinux.c32" "$made/boot/"
echo root:x:0:0:root:/root:/bin/sh > "$made/etc/passwd"
