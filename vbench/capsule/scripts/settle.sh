#!/bin/sh
# Unpack a capsule that has arrived, and make its image, after image.sh: $1 the folder of capsules, $2 its name, $3
# the image's size in MiB, $4 the time of its files, $5 the tree's loader, $6 its libraries. What is printed is the
# folder in which it lies until its digest has been seen to be right. The image's files belong to root: whoever is not
# root becomes it in a namespace of his own, and where that is forbidden they are given to root in the image.
set -e
cd "$1"
draft=$(mktemp -d "./.draft-$2-XXXXXX")
fail() {
    cd ..
    rm -rf "./$draft"
    exit 1
}
give_to_root() { # after make_image, which says how many files there are, $last
    number=2 # the root folder
    while [ "$number" -le "${last:?}" ]; do
        echo "sif <$number> uid 0"
        echo "sif <$number> gid 0"
        number=$((number < 11 ? 11 : number + 1))
    done >owners.txt
    chmod u+w image
    tool tree/usr/sbin/debugfs -w -f owners.txt image >/dev/null 2>&1 || return
    chmod a-w image
    rm owners.txt
}
mkdir "$draft/tree"
cd "$draft"
tar -xf "../$2.part" -C tree --exclude='./dev/*' || fail
root=
if [ "$(id -u)" != 0 ]; then
    root="unshare --map-root-user"
    $root true 2>/dev/null || root=
fi
make_image "$3" "$4" "$5" "$6" || fail
if [ "$(id -u)" != 0 ] && [ -z "$root" ]; then
    give_to_root || fail
fi
echo "$1/$draft"
