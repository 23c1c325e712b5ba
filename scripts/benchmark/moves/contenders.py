"""Who moves the guest. Each contender has the target's disk made, moves the guest from host-a to host-b, and names the disk
that it ended on, so that whoever measures can look for every acknowledged write."""
import os

import migrate
from guest import Disk
from processes import wait_until

IMAGES = "/var/lib/libvirt/images"
SOURCE = f"{IMAGES}/bench.qcow2"
SYNC = "--copy-storage-synchronous-writes"
PARALLEL = ("--parallel", "--parallel-connections", "2")
STAND_IN_SOCKET = "/run/stand-in.sock"


def ours(bed, gateways, guest, size, limit_s):
    """`diskferry migrate` to a raw file that it makes itself."""
    del bed, size
    place = f"{IMAGES}/bench.raw"
    gateways.migrate(guest, {"vda": place}, timeout=limit_s)
    return place, "raw"


def libvirt(*options):
    """A contender: virsh migrate --copy-storage-all with these options, qcow2 to qcow2."""
    def move(bed, gateways, guest, size, limit_s):
        del gateways
        bed.b.run("qemu-img", "create", "-q", "-f", "qcow2", SOURCE, str(size))
        migrate.migrate(guest, bed.a, bed.b, options, timeout=limit_s)
        return SOURCE, "qcow2"
    return move


def stand_in(bed, gateways, guest, size, limit_s):
    """The bound: QEMU mirrors into a server that acknowledges from this machine's page cache, and the target opens the same
    file. No disk content crosses the link, so nothing that has to carry it can be faster. It moves no disk."""
    del gateways
    shared = bed.folder / "shared.raw"
    with open(shared, "wb") as made:
        made.truncate(size)
    inside = f"/run/testbed/{shared.name}"
    server = bed.a.start("nbdkit", "-f", "-U", STAND_IN_SOCKET, "-e", "drive-virtio-disk0", "file", inside)
    try:
        wait_until(lambda: os.path.exists(bed.a.outside(STAND_IN_SOCKET)), "the stand-in")
        xml = guest.write_xml([Disk("vda", inside, "raw")], "-target")
        migrate.migrate(guest, bed.a, bed.b, ["--xml", xml, "--persistent-xml", xml, "--migrate-disks", "vda",
                                              "--disks-uri", f"unix://{STAND_IN_SOCKET}"], timeout=limit_s)
    finally:
        server.stop()
    return inside, "raw"


OURS, BOUND = "diskferry", "stand-in (bound)"
LIBVIRT = {"libvirt": libvirt(), "libvirt synchronous": libvirt(SYNC), "libvirt TLS": libvirt("--tls"),
           "libvirt parallel": libvirt(*PARALLEL)}


def of(row):
    """The contenders of a row by name, ours first."""
    return {OURS: ours, **LIBVIRT, **({BOUND: stand_in} if row.is_bounded else {})}
