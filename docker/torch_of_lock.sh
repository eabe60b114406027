#!/bin/sh
# Print the lines of a lock that pin torch itself: docker/torch_of_lock.sh LOCK [--without]
#   --without  all other lines instead
# torch's CPU build comes from an index of its own, so it is installed by itself; its hashes stand in the lock all the same.
set -eu
awk -v without="${2:+1}" '
    !/^ / { torch = /^torch==/ }
    torch != without + 0
' "$1"
