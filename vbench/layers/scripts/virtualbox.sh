#!/bin/sh
# Create a guest in VirtualBox and run it, as the first process of a namespace: when this ends, all does.
# $1 the capsule's tree, $2 its image, $3 working folder, $4 the add-on's tree, $5 where VirtualBox is: that tree, or / if
# it is installed; the guest's $6 memory in MiB, $7 processors, $8 paravirtualized interface, $9 mode of its time stamp
# counter; then its port on the parent's loopback, its own address and the kernel's arguments.
set -e
tree=$1 image=$2 work=$3 add_on=$4 root=$5 memory=$6 processors=$7 interface=$8 counter=$9; shift 9
port=$1 address=$2; shift 2
export HOME=/root VBOX_USER_HOME=/tmp/vbench/home VBOX_IPC_SOCKETID=vbench

# The boot disk, as VirtualBox does not start a kernel by itself.
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

# The other disks, as they are. What they are made of is not asked, so they have any geometry.
head="# Disk DescriptorFile"
disk() {
    size=$(blockdev --getsize64 "$work/$1" 2> /dev/null || stat -c %s "$work/$1")
    cat > "$work/$1.vmdk" << END
$head
version=1
CID=76626e63
parentCID=ffffffff
createType="monolithicFlat"
$3 $((size / 512)) FLAT "$1" 0
ddb.virtualHWVersion = "4"
ddb.adapterType="ide"
ddb.geometry.cylinders="1024"
ddb.geometry.heads="16"
ddb.geometry.sectors="63"
ddb.uuid.image="76626e63-6800-4000-8000-00000000000$2"
END
}
: > "$work/image"
mount --bind "$(readlink -f "$image")" "$work/image"
disk image 0 RDONLY
disk seed 1 RDONLY
disk scratch 2 RW

if [ "$root" != / ]; then
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
else
    mount -t proc proc /proc
fi
mount -t tmpfs -o mode=1777 tmp "$root/tmp" # where its processes meet
mkdir "$root/tmp/vbench"
mount --rbind "$work" "$root/tmp/vbench"
cd "$add_on"
usr/lib64/ld-linux-x86-64.so.2 --library-path usr/lib/x86_64-linux-gnu usr/bin/genisoimage -quiet -o "$work/boot.iso" \
    -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table -R -J "$work/boot"
cd /

manage() {
    said=$(chroot "$root" /usr/lib/virtualbox/VBoxManage -q "$@" 2>&1) || { echo "VBoxManage $1: $said" >&2; exit 1; }
}
manage createvm --name vbench --uuid 76626e63-6800-4000-8000-0000000000ff --ostype Linux_64 --basefolder /tmp/vbench \
    --register
manage modifyvm vbench --memory "$memory" --cpus "$processors" --paravirt-provider "$interface" \
    --hwvirtex on --nested-paging on --acpi on --ioapic on --rtc-use-utc on --boot1 dvd --boot2 none --boot3 none \
    --graphicscontroller vboxvga --vram 4 --audio-enabled off --mouse ps2 --keyboard ps2 \
    --nic1 nat --nic-type1 virtio --mac-address1 080027766262 --nat-localhostreachable1 on \
    --nat-pf1 "ssh,tcp,127.0.0.1,$port,$address,22" \
    --uart1 0x3f8 4 --uart-mode1 file /proc/self/fd/1
manage storagectl vbench --name boot --add ide --controller PIIX4
manage storageattach vbench --storagectl boot --port 0 --device 0 --type dvddrive --medium /tmp/vbench/boot.iso
manage storagectl vbench --name disks --add virtio-scsi --controller VirtIO --portcount 3 --hostiocache off
manage storageattach vbench --storagectl disks --port 0 --type hdd --medium /tmp/vbench/image.vmdk
manage storageattach vbench --storagectl disks --port 1 --type hdd --medium /tmp/vbench/seed.vmdk
manage storageattach vbench --storagectl disks --port 2 --type hdd --medium /tmp/vbench/scratch.vmdk
# By default it does not pass on what the guest wants flushed.
manage setextradata vbench "VBoxInternal/Devices/virtio-scsi/0/LUN#2/AttachedDriver/Config/IgnoreFlush" 0
manage setextradata vbench VBoxInternal/TM/TSCMode "$counter"
trap 'exit 143' TERM INT
chroot "$root" /usr/lib/virtualbox/VBoxHeadless --startvm vbench --vrde off &
wait $!
