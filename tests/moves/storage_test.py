#!/usr/bin/env python3
"""Moves onto real storage that both hosts reach over the network: the gateway of the source writes with our driver what the QEMU
of the target opens with its own.

    storage_test.py PROGRAMS CACHE [CASE...]        no CASE: the names of all
"""

import pathlib
import sys
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
TESTBED = HERE.parents[1] / "scripts" / "testbed"
sys.path[:0] = [str(HERE), str(TESTBED / "hosts"), str(TESTBED)]

import events  # noqa: E402
from cases import run_cases  # noqa: E402
from guest import Disk  # noqa: E402
from live_test import move  # noqa: E402
from place import DISK_MIB, IMAGES, expect  # noqa: E402
from report import say  # noqa: E402

MIB = 1 << 20
VOLUME = "vm.raw"
SLOW_MBIT = 40  # so that a move can be met in bulk
DATA_MIB = 24


def disk_of(host, name, disk):
    """The <disk> in the persistent definition of a machine."""
    text = host.virsh("dumpxml", "--inactive", name)
    domain = xml.etree.ElementTree.fromstring(text)
    return next(one for one in domain.iter("disk") if one.find("target").get("dev") == disk)


def expect_defined(place, storage):
    """The persistent definition on host b names the volume, and nothing that is a gateway's."""
    disk = disk_of(place.bed.b, place.vm.name, "vda")
    source = disk.find("source")
    said = xml.etree.ElementTree.tostring(disk, encoding="unicode")
    named = (disk.get("type"), source.get("protocol"), source.get("name"), disk.find("driver").get("type"))
    expect(named == ("network", storage.protocol, storage.name(VOLUME), "raw"), f"{named} in the definition: {said}")
    if storage.protocol == "rbd":
        expect(source.find("config").get("file") == str(storage.server.conf), f"another cluster in the definition: {said}")
    else:
        expect(source.find("host").get("name") == storage.host.address, f"another host in the definition: {said}")
    secret = source.find("auth/secret")
    expect((None if secret is None else secret.get("uuid")) == storage.secret, f"another secret in the definition: {said}")
    expect(disk.find("backingStore/source") is None, f"a backing image in the definition: {said}")


def expect_planned(place, storage, disks, options):
    """A plan says that the volume is made, or that it is there, and changes nothing."""
    told = place.plan(disks, options=options)
    findings = {one["code"]: one for one in told["preflight"]["findings"]}
    vda = next(disk for disk in told["disks"] if disk["disk"] == "vda")
    expect(vda["route"] == "direct", f"the plan has another way for vda: {vda}")
    wanted = "target-created" if storage.creates else "target-overwritten"
    expect(wanted in findings, f"the plan does not say {wanted}: {sorted(findings)}")
    expect(storage.exists(VOLUME) != storage.creates, "the plan made the volume")
    say(f"plan: {findings[wanted]['text']}")


def onto(place, kind):
    storage = place.storage(kind)
    say(f"{kind} is up on {storage.host}")
    if not storage.creates:
        storage.make(VOLUME, DISK_MIB * MIB)
    place.guest(place.chain())
    disks, options = {"vda": storage.uri(VOLUME)}, storage.migrate_options("vda")
    expect_planned(place, storage, disks, options)
    ended = move(place, disks, options=options)
    sent = ended["report"]["disks"][0]["sent-bytes"]
    say(f"{sent / MIB:.1f} MiB were sent")
    expect_defined(place, storage)
    place.vm.stop(place.bed.b)
    place.check(storage.file(VOLUME), "raw", place.bed.b)


def nfs(place):
    onto(place, "nfs")


def iscsi(place):
    """A LUN that the administrator made."""
    onto(place, "iscsi")


def iscsi_larger(place):
    """A LUN that is larger than the disk: the guest's disk stays as large as it is, also when it goes back, shut off."""
    storage = place.storage("iscsi")
    storage.make(VOLUME, (DISK_MIB + 8) * MIB)
    place.guest(place.chain())
    disks = {"vda": storage.uri(VOLUME)}
    findings = {one["code"] for one in place.plan(disks)["preflight"]["findings"]}
    expect("target-larger" in findings, f"the plan does not say that the LUN is larger: {findings}")
    move(place, disks)
    expect_defined(place, storage)
    slices = [one.attrib for one in disk_of(place.bed.b, place.vm.name, "vda").iter("slice")]
    expect(slices == [{"type": "storage", "offset": "0", "size": str(DISK_MIB * MIB)}], f"the slice is {slices}")
    place.bed.b.virsh("destroy", place.vm.name)
    place.check(storage.file(VOLUME), "raw", place.bed.b)
    back = f"{IMAGES}/back.raw"
    ended = place.begin({"vda": back}, source=place.bed.b, target=place.bed.a, options=("--cold",)).wait_end(status="done")
    say(f"went back: {ended['status']}")
    size = pathlib.Path(place.bed.a.outside(back)).stat().st_size
    expect(size == DISK_MIB * MIB, f"the disk has become {size} bytes")
    expect(not list(disk_of(place.bed.a, place.vm.name, "vda").iter("slice")), "a slice in the definition")
    place.check(back, "raw", place.bed.a)


def iscsi_chap(place):
    """Our side reads the password from a file, the QEMU there has it from libvirt."""
    onto(place, "iscsi-chap")


def ceph(place):
    """As the administrator, whose key both sides find by way of the configuration file."""
    onto(place, "ceph")


def ceph_user(place):
    """As a user of the pool: our side reads the keyring, the QEMU there has the key from libvirt."""
    onto(place, "ceph-user")


def gluster(place):
    onto(place, "gluster")


def cancelled(place, kind):
    """In bulk: what the move made is gone, and the same move can be made again."""
    storage = place.storage(kind)
    place.bed.link(mbit=SLOW_MBIT)
    top = place.chain(data_mib=DATA_MIB)
    place.guest(top, rate=40)
    disks, options = {"vda": storage.uri(VOLUME)}, storage.migrate_options("vda")
    job = place.begin(disks, options=options)
    job.wait_phase("bulk")
    expect(storage.exists(VOLUME), "nothing was made for the move")
    events.cancel(place, job)
    ended = job.wait_end(status="cancelled")
    say(f"cancelled: {ended.get('error')}")
    place.expect_on(place.bed.a)
    place.expect_nothing_left()
    expect(not storage.exists(VOLUME), f"{storage.uri(VOLUME)} was left")
    expect_planned(place, storage, disks, options)
    place.check(top, "qcow2", place.bed.a)


def nfs_cancelled(place):
    cancelled(place, "nfs")


def ceph_cancelled(place):
    cancelled(place, "ceph")


def shared(place, kind):
    """The machine is on the volume already: the memory moves alone, there and back."""
    storage = place.storage(kind)
    storage.make(VOLUME, DISK_MIB * MIB)
    place.guest(Disk("vda", storage.source_xml(VOLUME)))
    told = place.plan({})
    vda = next(disk for disk in told["disks"] if disk["disk"] == "vda")
    expect(vda["route"] == "shared", f"vda does not stay where it is: {vda}")
    expect("same server and content" in vda["reason"], f"it was not proved that vda is shared: {vda}")
    for source, target in ((place.bed.a, place.bed.b), (place.bed.b, place.bed.a)):
        ended = move(place, {}, source=source, target=target)
        expect(ended["report"]["disks"] == [], f"disks were copied: {ended['report']}")
        if target is place.bed.b:
            expect_defined(place, storage)
    place.vm.stop(place.bed.a)
    place.check(storage.file(VOLUME), "raw", storage.host)


def nfs_shared(place):
    shared(place, "nfs")


def ceph_shared(place):
    shared(place, "ceph")


if __name__ == "__main__":
    run_cases("storage", (
        nfs, iscsi, iscsi_larger, iscsi_chap, ceph, ceph_user, gluster, nfs_cancelled, ceph_cancelled, nfs_shared, ceph_shared))
