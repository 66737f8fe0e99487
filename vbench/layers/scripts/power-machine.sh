# shellcheck shell=sh disable=SC2034,SC2154
# The machine with an IBM POWER9, for machine-add-on.sh.
called=power debian=ppc64el triplet=powerpc64le-linux-gnu qemu=qemu-system-ppc64
boot="virtio_pci virtio_blk virtio_net crc32c_generic ext4 overlay"
more="tun loop brd dm_crypt chacha_generic kvm_hv vhost_net veth bridge fuse"
emulator() {
    mkdir -p "$made/usr/share/qemu"
    cp "$suite/usr/bin/qemu-system-ppc64" "$made/usr/bin/"
    cp "$suite/usr/share/qemu/skiboot.lid" "$made/usr/share/qemu/"
    libraries /usr/bin/qemu-system-ppc64
}
kernel() { mv "$1" "$2"; }
first() { :; }
