#!/bin/sh
# Run a PC by Bochs. Its console is what this prints.
# $1 the capsule's tree, $2 its image, $3 working folder, $4 the add-on's tree; $5 memory in MiB; $6 the port of the
# parent's loopback that leads to port 22 of $7, its address; $8 how many instructions its second has; then the kernel's
# arguments.
set -e
tree=$1 image=$2 work=$3 add_on=$4 memory=$5 port=$6 address=$7 second=$8; shift 8
libraries=$tree/usr/lib/x86_64-linux-gnu:$add_on/usr/lib/x86_64-linux-gnu
loader=$tree/usr/lib64/ld-linux-x86-64.so.2

mkdir "$work/boot"
cp "$add_on"/boot/* "$tree/boot/vbench/initrd" "$work/boot"
cp "$tree"/boot/vmlinuz-* "$work/boot/linux"
cat > "$work/boot/isolinux.cfg" << END
default guest
prompt 0
label guest
    kernel /linux
    append $* rdinit=/scsi/init initrd=/initrd,/scsi
END
"$loader" --library-path "$libraries" "$add_on/usr/bin/genisoimage" -quiet -o "$work/boot.iso" \
    -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table -R -J "$work/boot"

# It locks the files that it opens, by another beside each.
ln -s "$(readlink -f "$image")" "$work/image"
printf '# slirp config\nrestricted = 1\nhostfwd = tcp:127.0.0.1:%s-%s:22\n' "$port" "$address" > "$work/network"
cat > "$work/machine" << END
display_library: term
romimage: file=$add_on/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=$add_on/usr/share/vgabios/vgabios.bin
cpu: model=corei7_skylake_x, count=1, ips=$second, reset_on_triple_fault=0
memory: guest=$memory, host=$memory
pci: enabled=1, chipset=i440fx, slot1=e1000
e1000: enabled=1, mac=52:54:00:76:62:01, ethmod=slirp, script=$work/network
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, mode=volatile, path=$work/image, journal=$work/image.changes
ata0-slave: type=disk, mode=flat, path=$work/seed
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata1-master: type=disk, mode=flat, path=$work/scratch
ata1-slave: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=/dev/fd/3
clock: sync=none, time0=1767225600
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
log: $work/log
panic: action=fatal
error: action=ignore
info: action=ignore
END
echo c > "$work/commands" # it is built with a debugger, which waits for one
export LTDL_LIBRARY_PATH="$add_on/usr/lib/x86_64-linux-gnu/bochs/plugins" BXSHARE="$add_on/usr/share/bochs"
export TERM=linux TERMINFO="$add_on/lib/terminfo" LC_ALL=C
: > "$work/said"
"$loader" --library-path "$libraries" "$add_on/usr/bin/bochs-bin" -q -f "$work/machine" -rc "$work/commands" \
    3>&1 > /dev/null 2> "$work/said" < /dev/null &
emulator=$!
trap 'kill -9 $emulator; exit 143' TERM INT
# It draws its screen on a pseudo-terminal of its own, and stands still when nobody reads that.
until screen=$(sed -n 's/^Bochs connected to screen "\(.*\)"$/\1/p' "$work/said") && [ -n "$screen" ]; do
    kill -0 $emulator 2> /dev/null || { cat "$work/said" >&2; exit 1; }
    sleep 0.1
done
stty -F "$screen" raw -echo
cat "$screen" > /dev/null 2>&1 &
wait $emulator || { tail -n 3 "$work/log" >&2; exit 1; }
