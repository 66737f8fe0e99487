#!/bin/sh
# Unpack a capsule that has arrived, and make its image, after image.sh: $1 the folder of capsules, $2 its name, $3
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
make_image "$3" "$4" "$5" "$6" || fail
echo "$1/$draft"
