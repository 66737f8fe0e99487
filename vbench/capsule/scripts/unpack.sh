#!/bin/sh
# Make tree/ and image of rootfs.tar in this folder, after scripts/image.sh, to which $1 to $4 are handed.
set -e
tar -xf rootfs.tar -C tree --exclude='./dev/*'
make_image "$@"
