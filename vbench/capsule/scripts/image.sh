#!/bin/sh
# Before a script that unpacks a capsule: how to make image of tree/ in the current folder.
# Its bytes follow from the tree. When files were unpacked and read is set to what it was where results/reference-testbed
# was measured: a kernel compares these times whenever it reads a file, so figures of the testbed differed in their
# fifth digit between images that were made at other times.
tool() {
    E2FSPROGS_FAKE_TIME=$epoch MKE2FS_CONFIG=tree/etc/mke2fs.conf \
        ${root-} "tree/$loader" --library-path "tree/$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$@"
}
ages() {
    tool tree/usr/sbin/debugfs -R "show_super_stats -h" image 2>/dev/null >stats || return
    while IFS=: read -r name value; do
        case $name in
            "Inode count") last=$value ;;
            "Free inodes") last=$((last - value)) ;;
        esac
    done <stats
    rm stats
    unpacked=1795698177 number=12 # the first that is not the file system's own
    while [ "$number" -le "$last" ]; do
        echo "sif <$number> atime @$unpacked"
        echo "sif <$number> ctime @$unpacked"
        number=$((number + 1))
    done
    for each in boot vbench; do # folders that unpacking makes
        test ! -e "tree/$each" || echo "sif /$each mtime @$unpacked"
    done
    for each in tree/etc/mke2fs.conf "tree/$libraries"/libc.so.6 "tree/$libraries"/libblkid.so.1* \
        "tree/$libraries"/libcom_err.so.2* "tree/$libraries"/libe2p.so.2* "tree/$libraries"/libext2fs.so.2* \
        "tree/$libraries"/libuuid.so.1*; do # read a second later, to make the image
        test ! -e "$each" || echo "sif ${each#tree} atime @$((unpacked + 1))"
    done
}
# $1 its size in MiB, $2 the time of what has none, $3 the tree's loader and $4 its libraries, both from the tree's root;
# $root runs what must seem to be root. fakeroot's own library is found by LD_LIBRARY_PATH, which the loader's option
# would hide.
make_image() {
    epoch=$2 loader=$3 libraries=$4
    truncate -s "$1M" image || return
    tool tree/usr/sbin/mke2fs \
        -q -F -t ext4 -b 4096 -m 0 -O ^has_journal,^metadata_csum,^64bit,^orphan_file -d tree \
        -U 76626e63-6800-4000-8000-000000000000 -E hash_seed=76626e63-6800-4000-8000-000000000001 image || return
    ages >ages.txt || return
    tool tree/usr/sbin/debugfs -w -f ages.txt image >/dev/null 2>&1 || return
    rm ages.txt
    chmod a-w image
}
