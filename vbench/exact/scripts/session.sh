#!/bin/sh
# Keep a session open: $1 its folder, then the client's command. Who holds both ends of a FIFO open never sees its end.
folder=$1; shift
exec 3<> "$folder/in" 4<> "$folder/out"
exec "$@" < "$folder/in" > "$folder/out"
