#!/bin/sh
# Run User Mode Linux as the first process of a namespace: $1 capsule folder, $2 working folder, then the kernel's
# arguments.
#
# The kernel runs with the capsule's tree as its root, because it must be started by a loader at the usual place: it
# derives its memory layout from where the program break lies. It also makes itself the leader of another process
# group, which no signal for ours reaches: so the shell stays, ends at SIGTERM, and being the first process of its
# namespace takes everything in it along. The guest's memory is a file in TMPDIR.
#
# The kernel traces its processes by number. Numbers go on above 4096 from the beginning: there the namespace's table
# of them grows by a level, which makes each system call 0.65% longer on a testbed, in the midst of a run.
set -e
{ echo 5000 > /proc/sys/kernel/ns_last_pid; } 2> /dev/null || :
capsule=$1 work=$2; shift 2
tree=$capsule/tree
mount --bind "$tree" "$tree"
mount --bind "$work" "$tree/mnt"
mount --rbind "$capsule" "$tree/capsule"
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
mount -t tmpfs -o mode=1777 memory "$tree/dev/shm"
trap 'exit 143' TERM
export TMPDIR=/dev/shm
chroot "$tree" /usr/bin/linux.uml "$@" &
wait $!
