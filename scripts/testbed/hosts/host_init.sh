#!/bin/bash
# host_init.sh FOLDER NAME stay|lifeline: the first process of a host of the testbed (hosts.py starts it in new mount, UTS,
# IPC, PID and network namespaces). It lays the host's own files over the machine's and then only stays: when it ends,
# the kernel ends every process of the host and takes the mounts and the network with it. That is the whole teardown.
# With `lifeline` it ends by itself when its standard input does, which is when the program that brought it up is gone.
set -euo pipefail
folder=$1 name=$2 mode=$3
exec >"$folder/init.log" 2>&1

hostname "$name"
mount --make-rprivate /
mount -t tmpfs -o mode=755,size=256m run /run
mkdir -p /run/lock /run/libvirt /run/sshd /run/testbed
# The testbed's folder under a short name: the path of a UNIX socket has 107 characters at most.
mount --bind "$(dirname "$folder")" /run/testbed

# A throw-away layer takes what is made in these folders: mount points that this machine does not have, for one.
# Where the kernel refuses (a container on an overlay of its own), empty folders may stay behind.
for place in /etc /var/lib; do
  mkdir -p "/run/layers$place/upper" "/run/layers$place/work"
  mount -t overlay layer -o "lowerdir=$place,upperdir=/run/layers$place/upper,workdir=/run/layers$place/work" "$place" ||
    echo "no overlay on $place"
done
# sshd without PAM refuses a locked account, and root's is locked on many machines.
if mountpoint -q /etc; then sed -i 's/^root:!/root:*/' /etc/shadow; fi

while read -r place; do
  if [[ -d $folder/files$place ]]; then mkdir -p "$place"; else touch "$place"; fi
  mount --bind "$folder/files$place" "$place"
done <"$folder/places"
# This network namespace's devices, and no cgroups: libvirt must not put guests into the machine's own.
mount -t sysfs -o ro sysfs /sys
ip link set lo up
touch "$folder/ready"

if [[ $mode == lifeline ]]; then
  read -r _ || true
else
  while :; do
    sleep 3600 &
    wait $! || true
  done
fi
