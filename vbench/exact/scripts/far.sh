#!/bin/sh
# At the far end of a session: carry out one command after the other. Each comes as a line with the size of its input, a
# line that sets its arguments, with $n where they hold the end of a line, and its input; its exit code and the sizes of
# what it wrote go back, then what it wrote. Its output goes to files in memory meanwhile, so that nobody has to be awake
# to take it. As little as possible is started here: the emulator has to take each step of it.
# $1 is its folder; p in there holds the number of the command's process group.
dir=$1
# shellcheck disable=SC2034 # lines of arguments use it
n='
'
mkdir "$dir" && cd "$dir" || exit 1
trap : INT QUIT
while read -r size && IFS= read -r line; do
    i=/dev/null
    [ "$size" = 0 ] || { i=$dir/i; head -c "$size" > i; }
    eval "$line"
    p=$(read -r p _ < /proc/self/stat; echo "$p" > p; echo "$p"; cd /root || exit; exec setsid -- "$@" < "$i" > "$dir/o" 2> "$dir/e")
    c=$?
    kill -KILL "-$p" 2> /dev/null
    o=0 e=0
    [ -s o ] && o=$(wc -c < o)
    [ -s e ] && e=$(wc -c < e)
    echo "$c $o $e"
    [ "$o$e" = 00 ] || cat o e
done
