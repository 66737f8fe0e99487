#!/bin/sh
# Run an emulated mainframe in a private mount namespace: $1 the folder of what it boots and cannot write to; $2 its working
# folder, outside of which it does not look for that; then the emulator's command.
set -e
cd "$2"
for name in image vmlinux initrd; do
    : > "$name"
    mount --bind "$1/$name" "$name"
    mount -o remount,bind,ro "$name"
done
shift 2
exec "$@"
