#!/bin/sh
# full_disk.sh FOLDER JOB_WRITER: in a mount namespace of its own, lets the writer begin on a small file system, fills that, and lets it
# write until it cannot; then makes room, and lets it go on for a moment. Prints four numbers: of the last change that was durable when
# the disk was full, when the writer gave up, when it gave up once more, and after there was room again.
set -eu
folder=$1 writer=$2
acknowledged="$folder.acknowledged"
mount -t tmpfs -o size=16m tmpfs "$folder"
last() { tail -n 1 "$acknowledged"; }

"$writer" "$folder/jobs" >"$acknowledged" 2>"$folder.error" &
pid=$!
until [ -s "$acknowledged" ]; do kill -0 $pid && sleep 0.01; done
kill -STOP $pid
dd if=/dev/zero of="$folder/fill" bs=4k 2>/dev/null || true
full=$(last)
kill -CONT $pid
wait $pid && exit 1
gave_up=$(last)
"$writer" "$folder/jobs" >>"$acknowledged" 2>>"$folder.error" && exit 1
again=$(last)
rm "$folder/fill"
"$writer" "$folder/jobs" >>"$acknowledged" 2>>"$folder.error" &
pid=$!
until [ "$(last)" -gt "$((again + 50))" ]; do kill -0 $pid && sleep 0.01; done
kill -KILL $pid
wait $pid || true
echo "$full $gave_up $again $(last)"
cat "$folder.error" >&2
