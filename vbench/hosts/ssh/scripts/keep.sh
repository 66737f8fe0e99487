#!/bin/sh
# What a harness has on this machine, for as long as its connection lives: a folder of working files, its processes,
# its turn to measure. Run by busybox, whose read knows a deadline. Lines that come in say that the harness is alive;
# when none has come for $5 seconds, or the connection ends, all of that is taken away.
# $1 the user's cache, $2 who is here, $3 the mark that its processes carry, $4 its turn: x alone, s beside its like.
umask 077
trap '' HUP PIPE # what it has to say when the connection has gone must not end it
cd "$1" && mkdir -p sessions || exit
end() { # the processes that carry a mark
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        found=$(cd /proc && grep -ls "VBENCH_OWNER=$1" [0-9]*/environ)
        test -n "$found" || return 0
        for each in $found; do kill -KILL "${each%/environ}"; done
        sleep 0.1
    done
    return 1
}
for folder in sessions/s*; do # whose harness has gone, and whose keeper was killed
    test -f "$folder/mark" || continue
    exec 7<"$folder/mark"
    if flock -n 7; then end "$(cat "$folder/mark")"; rm -rf "$folder"; echo "gone $folder"; fi
    exec 7<&-
done
folder=$(mktemp -d "sessions/sXXXXXXXX") || exit
echo "$3" >"$folder/mark"
exec 7<"$folder/mark"
flock -n 7
exec 8>>measuring.lock
if ! flock -n "-$4" 8; then echo "busy $(cat measuring.lock)"; rm -rf "$folder"; exit 1; fi
echo "$2" >measuring.lock
echo "ready $1/$folder"
# shellcheck disable=SC3045 # busybox's read has -t
while read -r -t "$5" _; do :; done
end "$3"
rm -rf "$folder"
echo "ended"
