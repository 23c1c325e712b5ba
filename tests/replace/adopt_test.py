#!/usr/bin/env python3
"""The disk of a running machine under libvirt comes onto the gateway, stays there while the gateway is killed, and leaves it again.

    adopt_test.py PROGRAMS CACHE [CASE...]        no CASE: the names of all

The guest writes numbered blocks all the time; at the end every write that was acknowledged must be there, and the guest must
never have seen an error.
"""

import json
import pathlib
import subprocess
import sys
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts" / "testbed" / "hosts"), str(ROOT / "scripts" / "testbed"), str(ROOT / "tests" / "moves")]

from cases import run_cases  # noqa: E402
from place import BOOT_SECONDS, DISK_MIB, IMAGES, SETTLE_SECONDS, expect  # noqa: E402
from processes import wait_until  # noqa: E402
from report import Failed, say  # noqa: E402

DISK = "g1:vda"
SOCKET = "/run/diskferry/disks/nbd.sock"
WRITES = 60


def ask(place, *words, code=0):
    """`diskferry WORDS` on host a; what it printed."""
    done = subprocess.run(place.gateways.command(place.bed.a, *words), capture_output=True, text=True, check=False, timeout=180,
                          stdin=subprocess.DEVNULL)
    expect(done.returncode == code, f"diskferry {' '.join(words)}: exit {done.returncode}: {done.stderr} {done.stdout}")
    return done.stdout + done.stderr


def begin(place, target, *options):
    job = place.follow(ask(place, "replace", DISK, target, "--detach", *options).split()[-1])
    return job


def disk_of(place, *words):
    """The <disk> of vda as libvirt has it."""
    root = xml.etree.ElementTree.fromstring(place.bed.a.virsh("dumpxml", *words, place.vm.name))
    return next(disk for disk in root.iter("disk") if disk.find("target").get("dev") == "vda")


def is_on_gateway(disk):
    source = disk.find("source")
    host = source.find("host")
    return source.get("protocol") == "nbd" and source.get("name") == DISK and host is not None and host.get("socket") == SOCKET


def what_stays(disk):
    """All of a disk that is not its source."""
    driver = {key: value for key, value in disk.find("driver").attrib.items() if key != "type"}
    rest = [xml.etree.ElementTree.tostring(part).strip() for part in disk if part.tag not in ("driver", "source", "backingStore", "mirror")]
    return driver, rest


def restart(place, how, *environment):
    """The gateway ends and is started again while the guest writes: a stall, and no error."""
    place.gateways.kill(place.bed.a) if how == "kill" else place.gateways.stop(place.bed.a)
    place.gateways.start(place.bed.a, *environment)
    place.vm.wait_writing(WRITES, SETTLE_SECONDS)
    expect(not place.vm.console.trouble, f"the guest is in trouble: {place.vm.console.trouble[:5]}")


def wait_dead(place):
    """The gateway was to end as if it were killed."""
    program = place.gateways.running.pop(place.bed.a.short)
    wait_until(lambda: program.poll() is not None, "the gateway's end", SETTLE_SECONDS)


def expect_adopted(place, before, before_kept):
    for words, was in (((), before), (("--inactive",), before_kept)):
        disk = disk_of(place, *words)
        expect(is_on_gateway(disk), f"the disk is elsewhere: {xml.etree.ElementTree.tostring(disk)}")
        expect(what_stays(disk) == what_stays(was), f"more than the source has changed: {what_stays(was)} {what_stays(disk)}")


def adopt(place, target, *options):
    """Brings the disk of a guest that writes onto the gateway, and says how it stands."""
    guest = place.vm
    before, before_kept = disk_of(place), disk_of(place, "--inactive")
    job = begin(place, target, *options)
    job.wait_end(status="done")
    guest.wait_writing(WRITES)
    expect_adopted(place, before, before_kept)
    expect(not guest.console.trouble, f"the guest is in trouble: {guest.console.trouble[:5]}")


def file(place):
    """Onto a file, through restarts of the gateway, and on to another file and to qcow2."""
    place.guest(place.chain())
    first = f"{IMAGES}/first.raw"
    adopt(place, first)
    expect(DISK in ask(place, "exports"), "the export is not listed")
    restart(place, "kill")
    restart(place, "stop")
    second = f"{IMAGES}/second.qcow2"
    ask(place, "replace", DISK, second, "--max-pause", "2000", "--progress", "none")
    place.vm.wait_writing(WRITES)
    restart(place, "kill")
    told = ask(place, "exports", "remove", DISK, code=3)
    expect("a machine that runs" in told, told)
    place.vm.stop(place.bed.a)
    remove = place.gateways.command(place.bed.a, "exports", "remove", DISK)
    wait_until(lambda: subprocess.run(remove, capture_output=True, check=False, timeout=60).returncode == 0, "the export being removed", 30)
    place.gateways.kill(place.bed.a)
    place.gateways.start(place.bed.a)
    expect(DISK not in ask(place, "exports"), "the export is there again")
    place.gateways.stop(place.bed.a)
    place.check(second, "qcow2", place.bed.a)


def started_anew(place):
    """The machine loses its power and is started again, as libvirt has it: it has the disk, and QEMU waits for the gateway again."""
    place.guest(place.chain())
    target = f"{IMAGES}/new.raw"
    adopt(place, target)
    log = place.gateways.log_of(place.bed.a)
    place.bed.a.virsh("destroy", place.vm.name)
    place.gateways.stop(place.bed.a)
    place.vm.check(target, "raw", host=place.bed.a)  # before it numbers its writes from the beginning
    place.gateways.start(place.bed.a)
    told = log.read_text(errors="replace").count("QEMU waits")
    place.bed.a.virsh("start", place.vm.name)
    wait_until(lambda: log.read_text(errors="replace").count("QEMU waits") > told, "QEMU being told to wait", SETTLE_SECONDS)
    place.vm.wait_writing(WRITES, BOOT_SECONDS)
    restart(place, "kill")
    restart(place, "stop")


def storage_late(place):
    """The gateway starts while the disk's storage is away: the guest waits, and goes on once it is there."""
    place.guest(place.chain())
    target = f"{IMAGES}/new.raw"
    adopt(place, target)
    place.gateways.kill(place.bed.a)
    place.bed.a.run("mv", target, f"{target}.away")
    place.gateways.start(place.bed.a)
    told = ask(place, "exports")
    expect(DISK in told and "waiting" in told and target in told, f"the export is not shown as waiting: {told}")
    log = place.gateways.log_of(place.bed.a)
    expect("waits for its storage" in log.read_text(errors="replace"), "the log does not tell")
    # Another error, so that the log shows when it has been tried again; QEMU has asked for the export by then.
    place.bed.a.run("mkdir", target)
    wait_until(lambda: "still waits for its storage" in log.read_text(errors="replace"), "another attempt", SETTLE_SECONDS)
    place.bed.a.run("rmdir", target)
    place.bed.a.run("mv", f"{target}.away", target)
    place.vm.wait_writing(WRITES, SETTLE_SECONDS)
    expect(not place.vm.console.trouble, f"the guest is in trouble: {place.vm.console.trouble[:5]}")
    expect("waiting" not in ask(place, "exports"), "the export still waits")
    place.vm.stop(place.bed.a)
    place.gateways.stop(place.bed.a)
    place.check(target, "raw", place.bed.a)


def expect_rehomed(place, target, *was):
    """The machine has that file itself, and no export is left, also after the gateway was killed."""
    for words, before in zip(((), ("--inactive",)), was):
        disk = disk_of(place, *words)
        said = xml.etree.ElementTree.tostring(disk, encoding="unicode")
        expect(disk.find("source").get("file") == target and disk.find("mirror") is None, f"the disk is elsewhere: {said}")
        expect(what_stays(disk) == what_stays(before), f"more than the source has changed: {what_stays(before)} {what_stays(disk)}")
    expect_no_export(place)
    nodes = place.bed.a.virsh("qemu-monitor-command", place.vm.name, '{"execute": "query-named-block-nodes", "arguments": {"flat": true}}')
    expect('"diskferry-' not in nodes, f"a connection to the gateway is left in QEMU: {nodes}")


def expect_no_export(place):
    expect(DISK not in ask(place, "exports"), "the export is still there")
    restart(place, "kill")
    expect(DISK not in ask(place, "exports"), "the export is there again")


def rehome(place):
    """Off the gateway again: the machine opens another file itself, and nothing of the gateway's is needed any more. Then onto qcow2."""
    place.guest(place.chain())
    was = disk_of(place), disk_of(place, "--inactive")
    first, second, third = (f"{IMAGES}/{name}" for name in ("first.raw", "second.raw", "third.qcow2"))
    adopt(place, first)
    told = ask(place, "replace", DISK, first, "--rehome", "--overwrite", "--progress", "none", code=3)
    expect("replace onto other storage with --rehome" in told, told)
    expect(is_on_gateway(disk_of(place)), "the disk has left the gateway")
    ask(place, "replace", DISK, second, "--rehome", "--remove-source", "--progress", "none")
    place.vm.wait_writing(WRITES)
    expect_rehomed(place, second, *was)
    expect(not pathlib.Path(place.bed.a.outside(first)).exists(), "the old storage is still there")
    ask(place, "replace", DISK, third, "--rehome", "--progress", "none")
    place.vm.wait_writing(WRITES)
    expect_rehomed(place, third, *was)
    place.gateways.stop(place.bed.a)
    place.vm.wait_writing(WRITES)
    place.check(third, "qcow2", place.bed.a)


def rehome_killed(place):
    """The gateway is killed while the disk is copied off it, in step, and while it goes over: libvirt says where the disk is."""
    place.guest(place.chain(data_mib=24))
    was = disk_of(place), disk_of(place, "--inactive")
    first, second = f"{IMAGES}/first.raw", f"{IMAGES}/second.raw"
    adopt(place, first)
    job = begin(place, second, "--rehome", "--rate", "4M", "--commit-by-hand")
    job.wait_phase("bulk")
    restart(place, "kill")
    ask(place, "set", job.name, "--rate", "0")
    wait_until(lambda: job.describe()["phase"] == "synchronized", "the disk being in step", SETTLE_SECONDS)
    expect(job.describe()["state"]["limits"]["bytes-per-second"] == 0, "the rate that was set is not written down")
    restart(place, "kill")
    wait_until(lambda: job.describe()["phase"] == "synchronized" and disk_of(place).find("mirror") is not None
               and disk_of(place).find("mirror").get("ready") == "yes", "the disk being in step again", SETTLE_SECONDS)
    expect(is_on_gateway(disk_of(place)), "the disk went over without being told to")
    # It dies when it has written that the disk may go over, and the next one when the disk has.
    restart(place, "kill", "DISKFERRYD_DIES_AT=switching")
    wait_until(lambda: job.describe()["phase"] == "synchronized", "the disk being in step again", SETTLE_SECONDS)
    ask(place, "commit", job.name)
    wait_dead(place)
    expect(is_on_gateway(disk_of(place)), "the disk went over without a gateway")
    place.gateways.start(place.bed.a, "DISKFERRYD_DIES_AT=before:committed")
    wait_dead(place)
    expect(disk_of(place).find("source").get("file") == second, "the disk has not gone over")
    place.gateways.start(place.bed.a)
    job.wait_end(status="done")
    place.vm.wait_writing(WRITES, SETTLE_SECONDS)
    expect_rehomed(place, second, *was)
    place.gateways.stop(place.bed.a)
    place.vm.wait_writing(WRITES)
    place.check(second, "raw", place.bed.a)


VOLUME = "new.raw"
MIB = 1 << 20


def storage_for(place, kind, more_bytes=0):
    storage = place.storage(kind)
    if not storage.creates:
        storage.make(VOLUME, DISK_MIB * MIB + more_bytes)
    return storage


def onto(place, kind):
    """Onto a real server, through restarts of the gateway."""
    storage = storage_for(place, kind, more_bytes=3 * MIB)
    place.guest(place.chain())
    adopt(place, storage.uri(VOLUME), *(() if storage.creates else ("--overwrite",)))
    restart(place, "kill")
    restart(place, "stop")
    place.vm.stop(place.bed.a)
    place.gateways.stop(place.bed.a)
    place.check(storage.file(VOLUME), "raw", place.bed.a)


def off_onto(place, kind, more_bytes=0):
    """Off the gateway, onto a real server that QEMU speaks to itself."""
    storage = storage_for(place, kind, more_bytes)
    place.guest(place.chain())
    was = disk_of(place), disk_of(place, "--inactive")
    adopt(place, f"{IMAGES}/first.raw")
    options = ("--secret", storage.secret) if storage.secret else ()
    options += () if storage.creates else ("--overwrite",)
    ask(place, "replace", DISK, storage.uri(VOLUME), "--rehome", "--progress", "none", *options)
    place.vm.wait_writing(WRITES)
    for words, before in zip(((), ("--inactive",)), was):
        disk = disk_of(place, *words)
        said = xml.etree.ElementTree.tostring(disk, encoding="unicode")
        source = disk.find("source")
        expect((source.get("protocol"), source.get("name")) == (storage.protocol, storage.name(VOLUME)), f"the disk is elsewhere: {said}")
        expect(what_stays(disk) == what_stays(before), f"more than the source has changed: {what_stays(before)} {said}")
        slices = [one.get("size") for one in disk.iter("slice")]
        expect(slices == ([str(DISK_MIB * MIB)] if more_bytes else []), f"the slice: {said}")
    expect_no_export(place)
    place.gateways.stop(place.bed.a)
    place.vm.wait_writing(WRITES)
    place.vm.stop(place.bed.a)
    place.check(storage.file(VOLUME), "raw", place.bed.a)


def nfs(place):
    onto(place, "nfs")


def iscsi(place):
    """Onto a LUN that is larger than the disk, which stays as large as it is."""
    onto(place, "iscsi")


def ceph(place):
    onto(place, "ceph")


def rehome_nfs(place):
    off_onto(place, "nfs")


def rehome_iscsi(place):
    off_onto(place, "iscsi")


def rehome_iscsi_larger(place):
    """The guest's disk stays as large as it is."""
    off_onto(place, "iscsi", more_bytes=8 * MIB)


def rehome_ceph(place):
    """As a user whose key QEMU has from libvirt."""
    off_onto(place, "ceph-user")


def rehome_gluster(place):
    off_onto(place, "gluster")


def rehome_nbd(place):
    """Onto an export of somebody else's."""
    uri, image = place.store(place.bed.b, "new")
    place.guest(place.chain())
    adopt(place, f"{IMAGES}/first.raw")
    ask(place, "replace", DISK, uri, "--rehome", "--overwrite", "--progress", "none")
    place.vm.wait_writing(WRITES)
    for words in ((), ("--inactive",)):
        source = disk_of(place, *words).find("source")
        expect((source.get("protocol"), source.find("host").get("name")) == ("nbd", place.bed.b.name), "the disk is elsewhere")
    expect_no_export(place)
    place.gateways.stop(place.bed.a)
    place.vm.wait_writing(WRITES)
    place.vm.stop(place.bed.a)
    place.check(image, "raw", place.bed.b)


def two_disks(place):
    """Each disk of a machine by a job of its own, at the same time; then both at one moment; then one of them off the gateway."""
    place.guest(place.chain("one"), place.chain("two"))
    one, two, later_one, later_two, native = (f"{IMAGES}/{name}.raw" for name in ("new-one", "new-two", "later-one", "later-two", "native"))
    told = ask(place, "replace", DISK, one, "g1:vdb", two, "--progress", "none", code=2)
    expect("say diskferry replace for each of them" in told, told)
    jobs = [place.follow(ask(place, "replace", name, target, "--detach").split()[-1]) for name, target in ((DISK, one), ("g1:vdb", two))]
    for job in jobs:
        job.wait_end(status="done")
    ask(place, "replace", DISK, later_one, "g1:vdb", later_two, "--max-pause", "2000", "--progress", "none")
    job = begin(place, native, "--rehome", "--commit-by-hand")
    job.wait_phase("synchronized")
    told = ask(place, "replace", DISK, one, "g1:vdb", two, "--overwrite", "--progress", "none", code=3)
    expect(f"the job {job.name} moves it" in told, told)
    ask(place, "commit", job.name)
    job.wait_end(status="done")
    place.vm.wait_writing(WRITES)
    listed = ask(place, "exports")
    expect(DISK not in listed and "g1:vdb" in listed, f"the exports: {listed}")
    restart(place, "kill")
    place.vm.stop(place.bed.a)
    place.gateways.stop(place.bed.a)
    place.check(native, "raw", place.bed.a)
    place.check(later_two, "raw", place.bed.a, target="vdb")


def killed(place):
    """The gateway is killed while the disk is copied, and when it is in step: it begins again, and the guest goes on."""
    place.guest(place.chain(data_mib=24))
    target = f"{IMAGES}/new.raw"
    job = begin(place, target, "--rate", "4M", "--commit-by-hand")
    job.wait_phase("bulk")
    restart(place, "kill")
    ask(place, "set", job.name, "--rate", "0")
    wait_until(lambda: job.describe()["phase"] == "synchronized", "the disk being in step", SETTLE_SECONDS)
    restart(place, "kill")
    wait_until(lambda: job.describe()["phase"] == "synchronized" and disk_of(place).find("mirror") is not None
               and disk_of(place).find("mirror").get("ready") == "yes", "the disk being in step again", SETTLE_SECONDS)
    expect(not is_on_gateway(disk_of(place)), "the disk went over without being told to")
    ask(place, "commit", job.name)
    job.wait_end(status="done")
    restart(place, "kill")
    place.vm.stop(place.bed.a)
    place.gateways.stop(place.bed.a)
    place.check(target, "raw", place.bed.a)


def killed_going_over(place):
    """The gateway is killed while the disk goes over: the hypervisor knows on which storage it is, and the job ends there."""
    place.guest(place.chain())
    target = f"{IMAGES}/new.raw"
    job = begin(place, target, "--commit-by-hand")
    job.wait_phase("synchronized")
    ask(place, "commit", job.name)
    job.wait_phase("switching")
    place.gateways.kill(place.bed.a)
    say(f"  killed; libvirt says: {'over' if is_on_gateway(disk_of(place)) else 'not over'}")
    place.gateways.start(place.bed.a)
    job.wait_end(status="done")
    place.vm.wait_writing(WRITES, SETTLE_SECONDS)
    expect(is_on_gateway(disk_of(place)), "the disk is elsewhere")
    restart(place, "kill")
    place.vm.stop(place.bed.a)
    place.gateways.stop(place.bed.a)
    place.check(target, "raw", place.bed.a)


def cancelled(place):
    """It is cancelled: the disk is where it was, and nothing is left."""
    source = place.chain(data_mib=24)
    place.guest(source)
    target = f"{IMAGES}/new.raw"
    before, before_kept = disk_of(place), disk_of(place, "--inactive")
    job = begin(place, target, "--rate", "4M")
    job.wait_phase("bulk")
    ask(place, "cancel", job.name)
    job.wait_end(status="cancelled")
    place.vm.wait_writing(WRITES)
    for words, was in (((), before), (("--inactive",), before_kept)):
        same = xml.etree.ElementTree.tostring(disk_of(place, *words)) == xml.etree.ElementTree.tostring(was)
        expect(same, "the definition has changed")
    expect(not pathlib.Path(place.bed.a.outside(target)).exists(), "the target is left over")
    expect(DISK not in ask(place, "exports"), "the export is left over")
    place.check(source, "qcow2", place.bed.a)


def refused(place):
    """What cannot be brought over is refused before anything is changed, with what to do."""
    source = place.chain()
    place.guest(source)
    target = f"{IMAGES}/new.raw"

    def blockers(name, *options, to=target):
        done = subprocess.run(place.gateways.command(place.bed.a, "plan", "replace", name, to, "--json", *options),
                              capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)
        return json.loads(done.stdout)["blockers"] if done.stdout.startswith("{") else [done.stderr]

    expect(blockers(DISK) == [], f"the plan: {blockers(DISK)}")
    expect(any("--retain" in text for text in blockers(DISK, "--retain", "60")), "retain")
    told = ask(place, "replace", DISK, target, "--retain", "60", "--progress", "none", code=3)
    expect("leave out --retain; the old storage stays as it is at that moment" in told, told)
    socket = "nbd+unix:///a?socket=/run/a"
    expect(any("leave out --rehome" in text for text in blockers(DISK, "--rehome", to=socket)), "rehome onto a socket")
    expect(any("--secret" in text for text in blockers(DISK, "--rehome", to="rbd://vms/a?id=user")), "rehome without a secret")
    expect(any("other storage with --rehome" in text for text in blockers(DISK, "--rehome", "--overwrite", to=source)), "rehome in place")
    expect(any("MACHINE:DISK" in text for text in blockers("anything", "--rehome")), "rehome of an export")
    expect(any("neither an export nor a machine" in text for text in blockers("nobody:vda")), f"{blockers('nobody:vda')}")
    expect(any("no such disk" in text for text in blockers("g1:vdz")), f"{blockers('g1:vdz')}")
    place.bed.a.run("truncate", "-s", "96M", f"{IMAGES}/busy.raw")
    busy = place.bed.folder / "busy.xml"
    busy.write_text(f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{IMAGES}/busy.raw'/></disk>")
    place.bed.a.virsh("blockcopy", "g1", "vda", "--xml", f"/run/testbed/{busy.name}", "--transient-job", "--reuse-external")
    expect(any("blockjob g1 vda --abort" in text for text in blockers(DISK)), f"{blockers(DISK)}")
    told = ask(place, "replace", DISK, target, "--progress", "none", code=3)
    expect("mirrored, committed or backed up" in told, told)
    expect(not pathlib.Path(place.bed.a.outside(target)).exists(), "the target was made")
    place.bed.a.virsh("blockjob", "g1", "vda", "--abort")
    place.check(source, "qcow2", place.bed.a)


if __name__ == "__main__":
    run_cases("adopt", (file, started_anew, storage_late, two_disks, nfs, iscsi, ceph, killed, killed_going_over, cancelled, refused,
                        rehome, rehome_killed, rehome_nfs, rehome_iscsi, rehome_iscsi_larger, rehome_ceph, rehome_gluster, rehome_nbd))
