#!/bin/sh
# Write standard input to a file as a whole: $1 draft beside it, $2 the file, $3 its size, $4 its mode.
umask 077
[ ! -d "$2" ] || { echo "is a directory" >&2; exit 1; }
if cat >"$1" && [ "$(wc -c <"$1")" -eq "$3" ] && chmod "$4" "$1" && mv -f "$1" "$2"; then exit 0; fi
rm -f "$1"
exit 1
