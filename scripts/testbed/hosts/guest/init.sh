#!/bin/busybox sh
# The guest's init: loads the drivers of virtio disks and becomes the writer.
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t proc none /proc
for module in /modules/*.ko; do /bin/busybox insmod "$module"; done
exec /writer </dev/null
