#!/bin/busybox sh
# Runs from the guest's disk. What to do is the machine's product name, set by `qemu -smbios type=1,product=...`.
B=/bin/busybox
task=$($B cat /sys/class/dmi/id/product_name)
echo "GUEST up kernel=$($B uname -r) task=$task disk_read_only=$($B cat /sys/block/vda/ro)"
case $task in
  first-boot)
    # A guest that changes its disk: this is what makes the top layer of the chain.
    $B mount -o remount,rw / && $B cp /files/1 /files/written-by-the-guest &&
      echo "made by the guest's first boot" >>/files/written-by-the-guest && $B rm /files/2
    $B sync
    $B mount -o remount,ro /
    ;;
  live)
    rate=300
    /bin/writer /dev/vda3 $rate
    ;;
esac
for file in /files/*; do
  set -- $($B sha256sum "$file")
  echo "SUM $1 $file"
done
echo "GUEST done"
$B poweroff -f
