#!/bin/sh
# Make the add-on of Bochs: the program, its parts and the libraries that they need, and what boots its machine, whose
# disks are on an IDE bus, which the capsule's own guests know nothing of.
# $1 the capsule's tree; $2 a working folder with packages unpacked by suite, in which the folder made is the result;
# $3 the first process of the machine.
# Run in a private mount namespace.
set -e
capsule=$1 work=$2
made=$work/made lib=usr/lib/x86_64-linux-gnu suite=$2/bookworm loader=lib64/ld-linux-x86-64.so.2
mkdir -p "$made/$lib/bochs" "$made/usr/bin" "$made/usr/share/bochs" "$made/usr/share/vgabios" "$made/boot" "$work/bochs"
mkdir -p "$made/lib/terminfo/l"
cp "$3" "$work/bochs/init"

cp -r "$suite/$lib/bochs/plugins" "$made/$lib/bochs/"
cp "$suite/usr/bin/bochs-bin" "$suite/usr/bin/genisoimage" "$made/usr/bin/"
cp "$suite/usr/share/bochs/BIOS-bochs-latest" "$made/usr/share/bochs/"
cp "$suite/usr/share/vgabios/vgabios.bin" "$made/usr/share/vgabios/"
cp "$suite/lib/terminfo/l/linux" "$made/lib/terminfo/l/"
cp "$suite/usr/lib/ISOLINUX/isolinux.bin" "$suite/usr/lib/syslinux/modules/bios/ldlinux.c32" "$made/boot/"
for file in usr/bin/bochs-bin usr/bin/genisoimage "$lib/bochs/plugins/libbx_term_gui.so"; do
    chroot "$suite" "/$loader" --list "/$file"
done > "$work/needed"
sed -n 's/.* => \(\/[^ ]*\).*/\1/p' "$work/needed" | sort -u | while read -r file; do
    [ -e "$capsule/$lib/${file##*/}" ] || cp -L "$suite$file" "$made/$lib/"
done
if grep "not found" "$work/needed" >&2; then exit 1; fi

mount --bind "$work" "$capsule/mnt"
# shellcheck disable=SC2016 # it is another shell that expands this
chroot "$capsule" sh -ec '
    release=$(ls /lib/modules) base=/mnt/bookworm kept=/mnt/bochs
    depmod -b "$base" "$release"
    modprobe -d "$base" -S "$release" --show-depends -a ata_piix sd_mod | while read -r _ file _; do
        name=${file##*/}
        [ ! -e "$kept/$name" ] || continue
        cp "$file" "$kept/$name"
        echo "$name" >> "$kept/order"
    done
    chmod 755 "$kept" "$kept"/*
    touch -d @1700000000 "$kept" "$kept"/*
    cd /mnt
    find bochs | sort | cpio --quiet --reproducible -o -H newc -R 0:0 > /mnt/made/boot/initrd-bochs
' > "$work/log" 2>&1 || { tail -n 8 "$work/log" >&2; exit 1; }
umount "$capsule/mnt"
