#!/bin/busybox sh
# First program of the guest: loads the disk's driver and hands over to the root file system on the disk.
B=/bin/busybox
$B mount -t devtmpfs none /dev
$B mount -t proc none /proc
$B mount -t sysfs none /sys
for module in /modules/*.ko; do $B insmod "$module"; done
n=0
while [ ! -b /dev/vda2 ] && [ $n -lt 100 ]; do $B sleep 0.05; n=$((n + 1)); done
$B mount -t ext4 -o ro /dev/vda2 /root || { echo "GUEST cannot mount its disk"; $B poweroff -f; }
$B mount --move /dev /root/dev
$B mount --move /proc /root/proc
$B mount --move /sys /root/sys
exec $B switch_root /root /sbin/init
