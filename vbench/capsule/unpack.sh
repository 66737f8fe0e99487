#!/bin/sh
# Make tree/ and image of rootfs.tar in this folder: $1 the image's size in MiB, $2 the time of its files, $3 the
# tree's loader, $4 its libraries, both from the tree's root.
set -e
tar -xf rootfs.tar -C tree --exclude='./dev/*'
truncate -s "$1M" image
# fakeroot's own library is found by LD_LIBRARY_PATH, which the loader's option would hide.
MKE2FS_CONFIG=tree/etc/mke2fs.conf E2FSPROGS_FAKE_TIME=$2 \
    "tree/$3" --library-path "tree/$4${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" tree/usr/sbin/mke2fs \
    -q -F -t ext4 -b 4096 -m 0 -O ^has_journal,^metadata_csum,^64bit,^orphan_file -d tree \
    -U 76626e63-6800-4000-8000-000000000000 -E hash_seed=76626e63-6800-4000-8000-000000000001 image
chmod a-w image
