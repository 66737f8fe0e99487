#!/bin/sh
# Make the add-on of an emulated machine that has another processor: its emulator; and in a folder of the machine's name what
# the capsule is for x86: an image of Debian packages for that processor, with a kernel, an initrd and the probe.
# Nothing that is made for it is run: what the packages' installation scripts would do is taken over from the capsule's
# tree, or done here.
# $1 the capsule's tree; $2 a working folder with packages unpacked by suite and the probe's sources, in which the folder
# made is the result; $3 what is of this machine only; $4 how an image is made; $5 and $6 the first processes of initrd and
# root; then files for $3.
# Run in a private mount namespace.
# shellcheck disable=SC2154 # what $3 sets
set -e
capsule=$1 work=$2 machine=$3 image=$4 init=$5 rc=$6; shift 6
# It sets: called, its name; debian, its processor as Debian names it, and triplet, as compilers do; boot and more, modules of its kernel
# for the initrd and besides; qemu, of its guests. emulator puts what runs here into $made, kernel makes $2 of Debian's
# kernel $1, first adds to the initrd.
# shellcheck source=/dev/null
. "$machine"
made=$work/made suite=$work/bookworm tree=$work/$called/tree initrd=$work/initrd
ours=usr/lib/x86_64-linux-gnu theirs=usr/lib/$triplet
mkdir -p "$made/$ours" "$made/usr/bin" "$made/$called" "$tree" "$initrd/bin"

libraries() { # what programs at $@ in the suite need, and the capsule has not
    chroot "$suite" /lib64/ld-linux-x86-64.so.2 --list "$@" > "$work/needed"
    if grep "not found" "$work/needed" >&2; then exit 1; fi
    sed -n 's/.* => \(\/[^ ]*\).*/\1/p' "$work/needed" | sort -u | while read -r file; do
        [ -e "$capsule/$ours/${file##*/}" ] || cp -L "$suite$file" "$made/$ours/"
    done
}
emulator "$@"

# Folders at the root are links into usr, as in an installed system.
cp -a "$work/bookworm-$debian/." "$tree"
for each in bin sbin lib lib64; do
    [ -d "$tree/$each" ] || continue
    mkdir -p "$tree/usr/$each"
    cp -a "$tree/$each/." "$tree/usr/$each"
    rm -r "${tree:?}/$each"
    ln -s "usr/$each" "$tree/$each"
done
release=$(ls "$tree/lib/modules")
mkdir "$work/kernel"
kernel "$tree/boot/vmlinu"[xz]"-$release" "$work/kernel/vmlinux"
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
first "$@"

# The capsule's tools read modules of any architecture.
mount --bind "$work" "$capsule/mnt"
# shellcheck disable=SC2016 # it is another shell that expands this
chroot "$capsule" sh -ec '
    release=$1 usr=/mnt/$2/tree/usr boot=$3 more=$4
    cd "$usr"
    depmod -b "$usr" "$release"
    modprobe -d "$usr" -S "$release" --show-depends -a $boot $more > /mnt/kept.all
    sed -n "s#^insmod $usr/\(\S*\).*#\1#p" /mnt/kept.all | sort -u > /mnt/kept
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
' sh "$release" "$called" "$boot" "$more" > "$work/log" 2>&1 || { tail -n 8 "$work/log" >&2; exit 1; }
umount "$capsule/mnt"
cp "$work/kernel/vmlinux" "$work/kernel/initrd" "$tree/boot/vbench/"
mv "$work/kernel/vmlinux" "$work/kernel/initrd" "$made/$called/"

# The probe, by a compiler for that processor that runs here. It is not to make one instruction of a multiplication and an addition,
# which x86 without extensions does not have, and whose result is another one.
mkdir -p "$suite/mnt"
mount --bind "$work/probe" "$suite/mnt"
(
    cd "$work/probe"
    set -- *.c # in one order everywhere, as the program's layout follows it
    for file; do set -- "$@" "/mnt/$file"; shift; done
    TMPDIR=/mnt exec chroot "$suite" "$triplet-gcc-12" -O2 -ffp-contract=off -static -Wa,-I/mnt \
        -o /mnt/vbench-probe "$@" -lm
) > "$work/log" 2>&1 || { tail -n 8 "$work/log" >&2; exit 1; }
umount "$suite/mnt"
cp "$work/probe/vbench-probe" "$tree/usr/bin/"

# What measurements run, and what runs with it: the libraries that each names, and those that these name.
dynamic() { chroot "$suite" "$triplet-readelf" --dynamic "/mnt/$1" 2> /dev/null | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }
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
listed ip mke2fs bwrap sha256sum "$qemu" dropbear losetup dmsetup modprobe > "$work/helpers"
cat "$work/measured" "$work/helpers" > "$made/$called/programs"
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
(cd "$tree" && sort -u "$work/files" | xargs sha256sum) > "$made/$called/files"

# shellcheck source=/dev/null
. "$image"
# shellcheck disable=SC2154 # make_image sets it
tool() { # the capsule's, as those of the tree are not for this machine
    program=${1#tree}; shift
    E2FSPROGS_FAKE_TIME=$epoch MKE2FS_CONFIG=tree/etc/mke2fs.conf "$capsule/lib64/ld-linux-x86-64.so.2" \
        --library-path "$capsule/$ours" "$capsule$program" "$@"
}
cd "$work/$called"
find tree -type f -printf '%s\n' > "$work/sizes"
while read -r bytes; do total=$((${total:-0} + bytes / 4096 + 1)); done < "$work/sizes"
size=$((total * 9 / 2048 + 64))
find tree -exec touch -h -d @1700000000 {} +
make_image "$size" 1700000000 "" ""
mv image "$made/$called/image"
