#!/bin/sh
# Write what comes in to a file at a place in it: $1 the capsule's folder to be, $2 the place in pieces, $3 bytes of a
# piece, $4 how to unpack it. Two that send the same capsule write the same bytes to the same places.
set -e
if [ -f "$1/delivered" ]; then echo delivered; exit; fi
$4 | dd of="$1.part" bs="$3" seek="$2" iflag=fullblock conv=notrunc 2>/dev/null
