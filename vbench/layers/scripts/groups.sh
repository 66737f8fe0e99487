#!/bin/sh
# Run something in a control group of its own, which goes with it, however it ends; so do those that a manager makes, of
# any controller, in one that is called as it is, with "-in" after it. Run by the parent's shell in a private mount
# namespace.
# $1 working folder, $2 the group's name, then what to run.
set -e
work=$1 group=$2; shift 2
if [ -d /sys/fs/cgroup/memory ]; then # the first version's hierarchies, one a controller
    places="/sys/fs/cgroup/memory/$group /sys/fs/cgroup/cpu/$group /sys/fs/cgroup/pids/$group"
else
    [ -e /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 vbench /sys/fs/cgroup
    places=/sys/fs/cgroup/$group
    for controller in memory cpu pids; do # not where it is given to nobody below
        { echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control; } 2> /dev/null || true
    done
fi
# What removes them, in a session of its own, when all that is started here has ended: it waits for the end of a pipe
# that only they hold.
# shellcheck disable=SC2016 # it is another shell that expands this
remove='echo 1<> "$1/ready"
read -r _
for place in /sys/fs/cgroup/"$2" /sys/fs/cgroup/"$2-in" /sys/fs/cgroup/*/"$2" /sys/fs/cgroup/*/"$2-in"; do
    tries=0
    while [ -d "$place" ] && [ $tries -lt 100 ]; do
        find "$place" -depth -type d -exec rmdir {} + || sleep 0.1
        tries=$((tries + 1))
    done
done'
mkfifo "$work/held" "$work/ready"
exec 8<> "$work/ready" 9<> "$work/held" # for both ways, so that nobody waits for the other end to be opened
env -u VBENCH_OWNER setsid sh -c "$remove" sh "$work" "$group" < "$work/held" > /dev/null 2>&1 8>&- 9>&- &
read -r _ <&8 # before that, what ends this ends it, too
exec 8>&-
for place in $places; do
    mkdir "$place"
    echo 0 > "$place/cgroup.procs"
done
exec "$@"
