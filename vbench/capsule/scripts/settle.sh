#!/bin/sh
# Unpack a capsule that has arrived, and make its image as unpack.sh does: $1 the folder of capsules, $2 its name, $3
# the image's size in MiB, $4 the time of its files, $5 the tree's loader, $6 its libraries. What is printed is the
# folder in which it lies until its digest has been seen to be right. Whoever is not root becomes it in a namespace of
# his own, so that the image's files belong to root; where that is forbidden there is no image, and so no guest.
set -e
cd "$1"
draft=$(mktemp -d "./.draft-$2-XXXXXX")
fail() {
    cd ..
    rm -rf "./$draft"
    exit 1
}
mkdir "$draft/tree"
cd "$draft"
tar -xf "../$2.part" -C tree --exclude='./dev/*' || fail
root=
if [ "$(id -u)" != 0 ]; then
    root="unshare --map-root-user"
    $root true 2>/dev/null || { echo "$1/$draft"; exit 0; }
fi
truncate -s "$3M" image || fail
MKE2FS_CONFIG=tree/etc/mke2fs.conf E2FSPROGS_FAKE_TIME=$4 \
    $root "tree/$5" --library-path "tree/$6" tree/usr/sbin/mke2fs \
    -q -F -t ext4 -b 4096 -m 0 -O ^has_journal,^metadata_csum,^64bit,^orphan_file -d tree \
    -U 76626e63-6800-4000-8000-000000000000 -E hash_seed=76626e63-6800-4000-8000-000000000001 image || fail
chmod a-w image
echo "$1/$draft"
