#!/bin/sh
# Have a session carry out one command, which comes on standard input; $1 is the session's folder.
cat > "$1/in"
exec < "$1/out"
read -r code out err
echo "$code $out $err"
exec head -c $((out + err))
