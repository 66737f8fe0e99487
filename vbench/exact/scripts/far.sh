#!/bin/sh
# At the far end of a session: carry out one command after the other. Each comes as a line with two sizes, of a script
# that sets its arguments and of its input; its exit code and the sizes of what it wrote go back, then what it wrote.
# Its output goes to files in memory meanwhile, so that nobody has to be awake to take it.
# $1 is its folder; p in there holds the number of the command's process group.
dir=$1
mkdir "$dir" && cd "$dir" || exit 1
trap : INT QUIT
while read -r script input; do
    head -c "$script" > s
    head -c "$input" > i
    # shellcheck source=/dev/null
    . ./s
    p=$(read -r p _ < /proc/self/stat; echo "$p" > p; echo "$p"; cd /root || exit; exec setsid -- "$@" < "$dir/i" > "$dir/o" 2> "$dir/e")
    c=$?
    kill -KILL "-$p" 2> /dev/null
    echo "$c $(wc -c < o) $(wc -c < e)"
    cat o e
done
