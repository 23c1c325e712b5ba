#!/bin/bash
# cut_network.sh PROGRAM FOLDER SECONDS|forever [URI-OPTIONS]: copies FOLDER/source to an NBD server on FOLDER/target,
# takes the network between them down in the middle, up again after SECONDS, and ends as the copy does. Run it in
# namespaces of its own: unshare --map-root-user --net --mount-proc --pid --fork --kill-child.
set -euo pipefail
program=$1 folder=$2 down=$3 options=${4:-}
mount -t tmpfs none /run
mkdir /run/netns
ip netns add server
ip link add client0 type veth peer name server0 netns server
ip address add 192.0.2.2/24 dev client0
ip link set client0 up
ip -n server address add 192.0.2.1/24 dev server0
ip -n server link set server0 up
ip netns exec server nbdkit -f -i 192.0.2.1 -P "$folder/pid" --filter=rate file "$folder/target" rate=32M \
  2>"$folder/nbdkit.log" &
wait_for() {
  for ((i = 0; i < 600; i++)); do
    if "$@"; then return; fi
    sleep 0.05
  done
  echo "cut_network: waited in vain for: $*" >&2
  exit 99
}
wait_for test -s "$folder/pid"
"$program" copy --no-create -f raw "$folder/source" "nbd://192.0.2.1/$options" &
copy=$!
is_under_way() { [ "$(stat -c %b "$folder/target")" -gt 4000 ]; }
wait_for is_under_way
ip -n server link set server0 down
if [ "$down" != forever ]; then
  sleep "$down"
  ip -n server link set server0 up
fi
code=0
wait "$copy" || code=$?
exit "$code"
