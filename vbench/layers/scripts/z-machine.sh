# shellcheck shell=sh disable=SC2034,SC2154
# The mainframe, for machine-add-on.sh. $1 the source of what is put before some programs' ioctl, $2 what comes before the
# capsule's first process.
called=z debian=s390x triplet=s390x-linux-gnu qemu=qemu-system-s390x
boot="dasd_fba_mod lcs virtio_blk virtio_net crc32c_generic ext4 overlay"
more="tun loop kvm vhost_net veth bridge fuse"
emulator() {
    mkdir "$work/shim"
    cp "$suite/usr/bin/hercules" "$made/usr/bin/"
    cp "$suite/usr/lib/hercules"/*.so "$made/$ours/" # its modules, too, which it looks for by name only
    libraries --library-path /usr/lib/hercules /usr/bin/hercules
    cp "$1" "$work/shim/shim.c"
    mount --bind "$work/shim" "$capsule/mnt"
    chroot "$capsule" gcc -O2 -Wall -Werror -shared -fPIC -o /mnt/shim.so /mnt/shim.c
    umount "$capsule/mnt"
    cp "$work/shim/shim.so" "$made/$ours/vbench-shim.so"
}

# Without its decompressor's work, which takes a minute here: the kernel is already where that would put it, and the
# function that calls it only says where that is.
kernel() {
    mkdir -p "$suite/mnt"
    mount --bind "$work/kernel" "$suite/mnt"
    cp "$1" "$work/kernel/packed"
    packed=$(LC_ALL=C grep -abo "$(printf '\3757zXZ')" "$1" | tail -n 1)
    packed=${packed%%:*}
    chroot "$suite" "$triplet-objdump" -b binary -m s390:64-bit -D --start-address=0x10000 \
        --stop-address="$packed" /mnt/packed > "$work/code"
    umount "$suite/mnt"
    # A place in a pool of addresses, of which these are the lower four bytes, and the function that is the only one to
    # read it.
    place=$(sed -n "s/^ *\([0-9a-f]*\):.*\.long\t0x0*$(printf %x "$packed")\$/\1/p" "$work/code")
    pool=$(printf %x $((0x${place:-4} - 4)))
    function=$(awk -v pool=",0x$pool" '/stmg.*%r15/ { at = $1 }
        index($NF, pool) { print substr(at, 1, length(at) - 1); exit }' "$work/code")
    if [ -z "$function" ]; then # another compiler made it: as it is
        mv "$1" "$2"
        return
    fi
    # It begins by calculating where the kernel goes: after its own end and its heap, at a page's begin.
    sed -n "/^ *$function:/,\$p" "$work/code" > "$work/unpack"
    pool=$(sed -n 's/.*lgrl.*,0x//p;T;q' "$work/unpack")
    end=$(sed -n "s/^ *$(printf %x $((0x$pool + 4))):.*\.long.0x/0x/p" "$work/code")
    heap=$(sed -n 's/.*lay.*,\([0-9]*\)(%r[0-9])$/\1/p;T;q' "$work/unpack")
    where=$(((end + heap) / 4096 * 4096))
    mv "$work/kernel/packed" "$2"
    truncate -s "$where" "$2"
    tail -c "+$((packed + 1))" "$1" | chroot "$capsule" xz -dc --single-stream >> "$2"
    # lgfi %r2,where; br %r14
    code=$(printf '\\300\\041\\%03o\\%03o\\%03o\\%03o\\007\\376' \
        $((where >> 24)) $((where >> 16 & 255)) $((where >> 8 & 255)) $((where & 255)))
    # shellcheck disable=SC2059 # it is a format
    printf "$code" | dd of="$2" bs=1 seek=$((0x$function)) conv=notrunc status=none
}

first() {
    mv "$initrd/init" "$initrd/vbench-init"
    cp "$2" "$initrd/init"
    mount --bind "$work/shim" "$suite/mnt"
    TMPDIR=/mnt chroot "$suite" "$triplet-gcc-12" -O2 -Wall -Werror -shared -fPIC -o /mnt/theirs.so /mnt/shim.c
    umount "$suite/mnt"
    cp "$work/shim/theirs.so" "$tree/$theirs/vbench-shim.so"
}
