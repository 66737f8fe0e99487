#!/bin/sh
# Make the add-on of the emulated Power machine: QEMU, its firmware and the libraries that it needs; and in the folder
# power what the capsule is for x86: an image of Debian packages for ppc64el, with a kernel, an initrd and the probe.
# Nothing that is made for Power is run: what the packages' installation scripts would do is taken over from the capsule's
# tree, or done here.
# $1 the capsule's tree; $2 a working folder with packages unpacked by suite and the probe's sources, in which the folder
# made is the result; $3 how an image is made; $4 and $5 the first processes of initrd and root.
# Run in a private mount namespace.
set -e
capsule=$1 work=$2 image=$3 init=$4 rc=$5
made=$work/made suite=$work/bookworm power=$work/power tree=$work/power/tree initrd=$work/initrd
ours=usr/lib/x86_64-linux-gnu theirs=usr/lib/powerpc64le-linux-gnu
mkdir -p "$made/$ours" "$made/usr/bin" "$made/usr/share/qemu" "$made/power" "$tree" "$initrd/bin"

cp "$suite/usr/bin/qemu-system-ppc64" "$made/usr/bin/"
cp "$suite/usr/share/qemu/skiboot.lid" "$made/usr/share/qemu/"
chroot "$suite" /lib64/ld-linux-x86-64.so.2 --list /usr/bin/qemu-system-ppc64 > "$work/needed"
if grep "not found" "$work/needed" >&2; then exit 1; fi
sed -n 's/.* => \(\/[^ ]*\).*/\1/p' "$work/needed" | sort -u | while read -r file; do
    [ -e "$capsule/$ours/${file##*/}" ] || cp -L "$suite$file" "$made/$ours/"
done

# Folders at the root are links into usr, as in an installed system.
cp -a "$work/bookworm-ppc64el/." "$tree"
for name in bin sbin lib lib64; do
    mkdir -p "$tree/usr/$name"
    cp -a "$tree/$name/." "$tree/usr/$name"
    rm -r "${tree:?}/$name"
    ln -s "usr/$name" "$tree/$name"
done
release=$(ls "$tree/lib/modules")
mkdir "$work/kernel"
mv "$tree/boot/vmlinux-$release" "$work/kernel/vmlinux"
for name in boot dev tmp var etc/apt etc/dpkg etc/resolv.conf etc/hostname add-on-packages; do
    rm -rf "${tree:?}/$name"
done
for name in boot/vbench capsule dev mnt proc root/.ssh run scratch sys tmp var/lib/nginx var/log/nginx vbench; do
    mkdir -p "$tree/$name"
done
chmod 700 "$tree/root/.ssh"
chmod 1777 "$tree/tmp"
for name in passwd group shells nsswitch.conf; do cp "$capsule/etc/$name" "$tree/etc/"; done
install -m 755 "$rc" "$tree/vbench/rc"
cp "$init" "$initrd/init"
cp "$tree/usr/bin/busybox" "$initrd/bin/busybox"

# The capsule's tools read modules of any architecture.
mount --bind "$work" "$capsule/mnt"
# shellcheck disable=SC2016 # it is another shell that expands this
chroot "$capsule" sh -ec '
    release=$1 usr=/mnt/power/tree/usr boot="virtio_pci virtio_blk virtio_net crc32c_generic ext4 overlay"
    more="tun loop brd dm_crypt chacha_generic kvm_hv vhost_net veth bridge fuse"
    cd "$usr"
    depmod -b "$usr" "$release"
    modprobe -d "$usr" -S "$release" --show-depends -a $boot $more | sed -n "s#^insmod $usr/\(\S*\).*#\1#p" |
        sort -u > /mnt/kept
    ls "lib/modules/$release"/modules.builtin* "lib/modules/$release/modules.order" >> /mnt/kept
    tar -cf /mnt/kept.tar -T /mnt/kept
    rm -r lib/modules
    tar -xf /mnt/kept.tar
    depmod -b "$usr" "$release"

    cd /mnt/initrd
    mkdir dev mod new proc ro sys up
    printf %s "$release" > mod/release
    modprobe -d "$usr" -S "$release" --show-depends -a $boot | while read -r _ file _; do
        name=${file##*/}
        [ ! -e "mod/$name" ] || continue
        cp "$file" "mod/$name"
        echo "$name" >> mod/order
    done
    chmod -R 755 .
    find . -exec touch -d @1700000000 {} +
    find . | sort | cpio --quiet --reproducible -o -H newc -R 0:0 > /mnt/kernel/initrd
' sh "$release" > "$work/log" 2>&1 || { tail -n 8 "$work/log" >&2; exit 1; }
umount "$capsule/mnt"
cp "$work/kernel/vmlinux" "$work/kernel/initrd" "$tree/boot/vbench/"
mv "$work/kernel/vmlinux" "$work/kernel/initrd" "$made/power/"

# The probe, by a compiler for Power that runs here. It is not to make one instruction of a multiplication and an addition,
# which x86 without extensions does not have, and whose result is another one.
mkdir -p "$suite/mnt"
mount --bind "$work/probe" "$suite/mnt"
(
    cd "$work/probe"
    set -- *.c # in one order everywhere, as the program's layout follows it
    for file; do set -- "$@" "/mnt/$file"; shift; done
    TMPDIR=/mnt exec chroot "$suite" powerpc64le-linux-gnu-gcc-12 -O2 -ffp-contract=off -static -Wa,-I/mnt \
        -o /mnt/vbench-probe "$@" -lm
) > "$work/log" 2>&1 || { tail -n 8 "$work/log" >&2; exit 1; }
umount "$suite/mnt"
cp "$work/probe/vbench-probe" "$tree/usr/bin/"

# What measurements run, and what runs with it: the libraries that each names, and those that these name.
dynamic() { chroot "$suite" powerpc64le-linux-gnu-readelf --dynamic "/mnt/$1" 2> /dev/null | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }
mount --bind "$tree" "$suite/mnt"
listed() {
    for name; do
        path=usr/bin/$name kind=static
        [ -e "$tree/$path" ] || [ -L "$tree/$path" ] || path=usr/sbin/$name
        while [ -L "$tree/$path" ]; do
            link=$(readlink "$tree/$path")
            case $link in /*) path=${link#/} ;; *) path=${path%/*}/$link ;; esac
        done
        path=$(cd "$tree" && realpath --relative-to=. "$path")
        [ -z "$(dynamic "$path")" ] || kind=dynamic
        echo "$name $path $kind"
    done
}
listed fio iperf3 openssl vbench-probe xz ab redis-benchmark redis-server sqlite3 nginx busybox > "$work/measured"
listed ip mke2fs bwrap sha256sum qemu-system-ppc64 dropbear losetup dmsetup modprobe > "$work/helpers"
cat "$work/measured" "$work/helpers" > "$made/power/programs"
while read -r _ file _; do echo "$file"; done < "$work/measured" > "$work/files"
cp "$work/files" "$work/new"
while [ -s "$work/new" ]; do
    while read -r file; do dynamic "$file"; done < "$work/new" | sort -u | while read -r name; do
        for folder in "$theirs" "$theirs/ceph" usr/lib64; do
            [ ! -e "$tree/$folder/$name" ] || { cd "$tree"; realpath --relative-to=. "$folder/$name"; break; }
        done
    done > "$work/next"
    grep -vxFf "$work/files" "$work/next" > "$work/new" || true
    cat "$work/new" >> "$work/files"
done
umount "$suite/mnt"
(cd "$tree" && sort -u "$work/files" | xargs sha256sum) > "$made/power/files"

# shellcheck source=/dev/null
. "$image"
# shellcheck disable=SC2154 # make_image sets it
tool() { # the capsule's, as those of the tree are not for this machine
    program=${1#tree}; shift
    E2FSPROGS_FAKE_TIME=$epoch MKE2FS_CONFIG=tree/etc/mke2fs.conf "$capsule/lib64/ld-linux-x86-64.so.2" \
        --library-path "$capsule/$ours" "$capsule$program" "$@"
}
cd "$power"
find tree -type f -printf '%s\n' > "$work/sizes"
while read -r bytes; do total=$((${total:-0} + bytes / 4096 + 1)); done < "$work/sizes"
size=$((total * 9 / 2048 + 64))
find tree -exec touch -h -d @1700000000 {} +
make_image "$size" 1700000000 "" ""
mv image "$made/power/image"
