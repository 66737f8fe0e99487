#!/bin/sh
# Run a PC by Bochs, led through its gate. Its console is what this prints.
# $1 the capsule's tree, $2 its image, $3 the initrd; $4 working folder, in which the gate's socket is; $5 the add-on's
# tree; $6 memory in MiB; $7 how many instructions its second has; $8 what its random numbers begin with; then the
# kernel's arguments.
set -e
tree=$1 image=$2 initrd=$3 work=$4 add_on=$5 memory=$6 second=$7 seed=$8; shift 8
libraries=$tree/usr/lib/x86_64-linux-gnu:$add_on/usr/lib/x86_64-linux-gnu
loader=$tree/usr/lib64/ld-linux-x86-64.so.2
cd "$work"

mkdir boot
cp "$add_on"/boot/* boot
cp "$initrd" boot/initrd
cp "$tree"/boot/vmlinuz-* boot/linux
cat > boot/isolinux.cfg << END
default guest
prompt 0
label guest
    kernel /linux
    append $* rdinit=/bochs/init initrd=/initrd,/initrd-bochs
END
"$loader" --library-path "$libraries" "$add_on/usr/bin/genisoimage" -quiet -o boot.iso \
    -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table -R -J boot
rm -r boot

# It locks the files that it opens, by another beside each.
ln -s "$(readlink -f "$image")" image
truncate --size=32M box
cat > machine << END
display_library: term
romimage: file=$add_on/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=$add_on/usr/share/vgabios/vgabios.bin
cpu: model=corei7_skylake_x, count=1, ips=$second, reset_on_triple_fault=0
memory: guest=$memory, host=$memory
pci: enabled=1, chipset=i440fx
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, mode=volatile, path=image, journal=image.changes
ata0-slave: type=disk, mode=flat, path=box
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata1-master: type=cdrom, path=boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=/dev/fd/3
clock: sync=none, time0=1767225600
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
log: log
panic: action=fatal
error: action=ignore
info: action=ignore
END
echo c > commands # it is built with a debugger, which waits for one
export LTDL_LIBRARY_PATH="$add_on/usr/lib/x86_64-linux-gnu/bochs/plugins" BXSHARE="$add_on/usr/share/bochs"
export TERM=linux TERMINFO="$add_on/lib/terminfo" LC_ALL=C VBENCH_GATE=gate VBENCH_DISK=box VBENCH_SEED="$seed"
: > said
"$loader" --preload "$add_on/disk-gate.so" --library-path "$libraries" "$add_on/usr/bin/bochs-bin" -q -f machine \
    -rc commands 3>&1 > /dev/null 2> said < /dev/null &
emulator=$!
trap 'kill -9 $emulator; exit 143' TERM INT
# It draws its screen on a pseudo-terminal of its own, and stands still when nobody reads that.
until screen=$(sed -n 's/^Bochs connected to screen "\(.*\)"$/\1/p' said) && [ -n "$screen" ]; do
    kill -0 $emulator 2> /dev/null || { cat said >&2; exit 1; }
    sleep 0.1
done
stty -F "$screen" raw -echo
cat "$screen" > /dev/null 2>&1 &
wait $emulator || { tail -n 3 log >&2; exit 1; }
