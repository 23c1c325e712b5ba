#!/usr/bin/env python3
"""A machine whose disk is an export of its host's gateway goes to another host by way of storage that both reach.

    through_test.py PROGRAMS CACHE [CASE...]        no CASE: the names of all
"""

import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TESTBED = HERE.parents[1] / "scripts" / "testbed"
sys.path[:0] = [str(HERE), str(TESTBED / "hosts"), str(TESTBED)]

import events  # noqa: E402
from cases import run_cases  # noqa: E402
from live_test import move  # noqa: E402
from place import DISK_MIB, IMAGES, SETTLE_SECONDS, expect  # noqa: E402
from processes import wait_until  # noqa: E402
from report import say  # noqa: E402
from storage_test import VOLUME, expect_defined  # noqa: E402

MIB = 1 << 20
DISK = "g1:vda"
FIRST = f"{IMAGES}/first.raw"
ARRIVED = ("synchronized", "before:switching", "switching")  # the guest waits at host b; from the second on it is closed here
SLOW_MBIT = 40  # so that the memory can be met on its way


def ask(place, *words, code=0, host=None):
    """`diskferry WORDS` on a host, a by default; what it printed."""
    done = subprocess.run(place.gateways.command(host or place.bed.a, *words), capture_output=True, text=True, check=False,
                          timeout=180, stdin=subprocess.DEVNULL)
    expect(done.returncode == code, f"diskferry {' '.join(words)}: exit {done.returncode}: {done.stderr} {done.stdout}")
    return done.stdout + done.stderr


def adopted(place, target=FIRST, options=()):
    """A guest that writes, with its disk on the gateway of host a."""
    guest = place.guest(place.chain())
    ask(place, "replace", DISK, target, "--progress", "none", *options)
    guest.wait_writing(50)
    return guest


def plan_through(place, disks, options=()):
    """A plan says that it goes through, and changes nothing."""
    told = place.plan(disks, options=options)
    expect(told["way"] == "through", f"the plan is {told['way']}: {told['reason']}")
    expect(all(disk["route"] == "rehomed" for disk in told["disks"]), f"the plan has another way for a disk: {told['disks']}")
    return {one["code"] for one in told["preflight"]["findings"]}


def expect_released(place):
    """The source's gateway has no export of the disk, and has none after a restart."""
    def is_listed():
        return DISK in ask(place, "exports")
    expect(not is_listed(), "the export is still there")
    place.gateways.kill(place.bed.a)
    place.gateways.start(place.bed.a)
    expect(not is_listed(), "the export is there again")
    place.vm.wait_writing(50)


def check_on(place, storage):
    """Nothing lost, on the storage itself; the machine's definition names it."""
    expect_defined(place, storage)
    expect_released(place)
    place.expect_on(place.bed.b)
    place.vm.stop(place.bed.b)
    place.check(storage.file(VOLUME), "raw", place.bed.b)


def storage_for(place, kind):
    """A storage server with room for the volume, or with the volume where it is made by hand."""
    storage = place.storage(kind)
    if not storage.creates:
        storage.make(VOLUME, DISK_MIB * MIB)
    return storage


def onto(place, kind):
    storage = storage_for(place, kind)
    adopted(place)
    disks, options = {"vda": storage.uri(VOLUME)}, storage.migrate_options("vda")
    findings = plan_through(place, disks, options)
    expect("export-replaced" in findings, f"the plan says {findings}")
    expect(storage.exists(VOLUME) != storage.creates, "the plan made the volume")
    ended = move(place, disks, options=options)
    expect(any(FIRST in text for text in ended["report"]["leftovers"]), f"the old storage is not told: {ended['report']}")
    say(f"{ended['report']['pause']}")
    check_on(place, storage)


def nfs(place):
    onto(place, "nfs")


def iscsi(place):
    onto(place, "iscsi")


def iscsi_chap(place):
    onto(place, "iscsi-chap")


def ceph(place):
    onto(place, "ceph")


def ceph_user(place):
    onto(place, "ceph-user")


def gluster(place):
    onto(place, "gluster")


def in_place(place, kind="nfs"):
    """The export is on the storage already: nothing is copied."""
    storage = storage_for(place, kind)
    adopted(place, storage.uri(VOLUME), () if storage.creates else ("--overwrite",))
    disks = {"vda": storage.uri(VOLUME)}
    findings = plan_through(place, disks)
    expect("export-in-place" in findings and "target-overwritten" not in findings, f"the plan says {findings}")
    ended = move(place, disks)
    expect(not ended["report"]["leftovers"], f"left over: {ended['report']['leftovers']}")
    check_on(place, storage)


def paused(place):
    """What its operator paused stays paused, and goes on there when he says so."""
    storage = place.storage("nfs")
    adopted(place)
    place.bed.a.virsh("suspend", place.vm.name)
    place.begin({"vda": storage.uri(VOLUME)}).wait_end(status="done")
    expect(place.states() == {"a": None, "b": "paused"}, f"the states are {place.states()}")
    place.bed.b.virsh("resume", place.vm.name)
    check_on(place, storage)


def in_place_ceph(place):
    in_place(place, "ceph")


def in_place_iscsi(place):
    in_place(place, "iscsi")


def two_disks(place):
    """Both change places at one moment, and are closed before the guest goes on."""
    storage = place.storage("nfs")
    guest = place.guest(place.chain(), place.chain("g2", mib=64))
    ask(place, "replace", DISK, FIRST, "--progress", "none")
    ask(place, "replace", "g1:vdb", f"{IMAGES}/second.raw", "--progress", "none")
    guest.wait_writing(50)
    disks = {"vda": storage.uri(VOLUME), "vdb": storage.uri("second.raw")}
    plan_through(place, disks)
    move(place, disks)
    expect_released(place)
    expect("g1:vdb" not in ask(place, "exports"), "an export is still there")
    place.vm.stop(place.bed.b)
    place.check(storage.file(VOLUME), "raw", place.bed.b, "vda")
    place.check(storage.file("second.raw"), "raw", place.bed.b, "vdb")


def to_a_file(place):
    """Onto a file of the other host, of the same name: the hypervisor mirrors it, as ever."""
    adopted(place)
    told = place.plan({"vda": FIRST})
    expect(told["way"] == "intercept", f"the plan is {told['way']}: {told['reason']}")
    move(place, {"vda": FIRST})
    place.check(FIRST, "raw", place.bed.b)


# -- what goes wrong


def begin_slowly(place, storage):
    """A move whose memory is on its way, for a while."""
    place.bed.link(mbit=SLOW_MBIT)
    job = place.begin({"vda": storage.uri(VOLUME)})
    job.wait_phase("delta", SETTLE_SECONDS)
    return job


def expect_here(place, image):
    """The guest goes on on host a, on this image by way of the gateway."""
    place.expect_on(place.bed.a)
    listed = json.loads(ask(place, "exports", "--json"))["exports"]
    found = next(one["image"] for one in listed if one["name"] == DISK)
    expect(found == image, f"the export is on {found}")
    expect(place.vm.state(place.bed.b) is None, f"something of it is on host b: {place.states()}")
    expect(not place.vm.console.trouble, f"the guest is in trouble: {place.vm.console.trouble[:5]}")


def finish_here(place, image, host):
    """Nothing lost on host a."""
    place.vm.stop(place.bed.a)
    place.gateways.stop(place.bed.a)
    place.check(image, "raw", host)


def cancelled(place):
    """While its memory goes over: the guest stays, on the new storage; the next move copies nothing."""
    storage = place.storage("nfs")
    adopted(place)
    job = begin_slowly(place, storage)
    told = ask(place, "replace", DISK, f"{IMAGES}/third.raw", "--progress", "none", code=3)
    expect("is moving to another host" in told, told)
    ask(place, "cancel", job.name)
    ended = job.wait_end(status="cancelled")
    warnings = ended["report"]["warnings"]
    expect(any(storage.uri(VOLUME) in text and FIRST in text for text in warnings), f"the disk's place is not told: {warnings}")
    expect_here(place, storage.uri(VOLUME))
    place.bed.link()
    expect("export-in-place" in plan_through(place, {"vda": storage.uri(VOLUME)}), "the plan would copy")
    move(place, {"vda": storage.uri(VOLUME)})
    check_on(place, storage)


def cancelled_copying(place):
    """While its disk is copied: all is as it was."""
    storage = place.storage("nfs")
    adopted(place)
    job = place.begin({"vda": storage.uri(VOLUME)}, options=("--rate", "1M"))
    wait_until(lambda: storage.exists(VOLUME), "the volume", SETTLE_SECONDS)
    ask(place, "cancel", job.name)
    job.wait_end(status="cancelled")
    expect_here(place, FIRST)
    expect(not storage.exists(VOLUME), "the volume was left")
    finish_here(place, FIRST, place.bed.a)


def unreachable(place):
    """Storage that only host a reaches is refused before anything is changed."""
    adopted(place)
    place.bed.a.run("ip", "address", "add", "10.99.0.1/32", "dev", "lo")
    place.bed.a.run("truncate", "-s", f"{DISK_MIB}M", f"{IMAGES}/only-here.raw")
    place.helpers.append(place.bed.a.start("nbdkit", "-f", "-i", "10.99.0.1", "-p", "10950", "file", f"{IMAGES}/only-here.raw",
                                           log=place.bed.a.folder / "only-here.log"))
    wait_until(lambda: place.bed.a._answers("nbdinfo", "--size", "nbd://10.99.0.1:10950"), "the store", 30)
    disks = {"vda": "nbd://10.99.0.1:10950"}
    findings = {one["code"]: one for one in place.plan(disks, code=3)["preflight"]["findings"]}
    expect("target-not-reached" in findings, f"the plan says {sorted(findings)}")
    say(findings["target-not-reached"]["text"])
    told = ask(place, "migrate", place.vm.name, "--to", place.bed.b.uri, "--disk", "vda=nbd://10.99.0.1:10950", code=3)
    expect("does not reach" in told and "nothing was changed" in told, told)
    expect_here(place, FIRST)
    finish_here(place, FIRST, place.bed.a)


def log_of(place):
    return place.gateways.log_of(place.bed.a).read_text(errors="replace")


def stopped(place):
    """The gateway is stopped in order while the memory goes over: the move is undone, and the guest waits for the gateway."""
    storage = place.storage("nfs")
    adopted(place)
    job = begin_slowly(place, storage)
    place.gateways.stop(place.bed.a)
    place.gateways.start(place.bed.a)
    ended = job.wait_end(status="cancelled")
    expect("was stopped before the commit" in ended["error"], ended["error"])
    expect_here(place, storage.uri(VOLUME))
    place.bed.link()
    move(place, {"vda": storage.uri(VOLUME)})
    check_on(place, storage)


def keep_source(place):
    """The source's definition stays until it is let go; the storage is handed over all the same."""
    storage = place.storage("nfs")
    adopted(place)
    job = place.begin({"vda": storage.uri(VOLUME)}, options=("--keep-source",))
    job.wait_end(status="paused")
    place.expect_on(place.bed.b, defined_elsewhere=True)
    expect_released(place)
    ask(place, "commit", job.name)
    job.wait_end(status="done")
    check_on(place, storage)


def libvirtd_killed(place, event):
    """libvirt of one host is killed while the memory goes over: one host has the guest, and the storage."""
    storage = place.storage("nfs")
    adopted(place)
    job = begin_slowly(place, storage)
    wait_until(lambda: place.vm.state(place.bed.b) == "paused", "the machine at host b", SETTLE_SECONDS)
    event(place, job)
    place.bed.link()
    ended = job.wait_end()
    say(f"{ended['status']}: {ended.get('error')}; {place.states()}")
    if ended["status"] == "done":
        check_on(place, storage)
        return
    expect(ended["status"] == "rolled-back", f"it is {ended['status']}: {ended.get('error')}")
    expect_here(place, storage.uri(VOLUME))
    move(place, {"vda": storage.uri(VOLUME)})
    check_on(place, storage)


def source_libvirtd_killed(place):
    libvirtd_killed(place, events.kill_source_libvirtd)


def target_libvirtd_killed(place):
    libvirtd_killed(place, events.kill_target_libvirtd)


def die(place, storage, when):
    """A move whose gateway is killed at the record of a phase, and started again."""
    place.gateways.stop(place.bed.a)
    place.gateways.start(place.bed.a, f"DISKFERRYD_MOVE_DIES_AT={when}")
    place.vm.wait_writing(20, SETTLE_SECONDS)
    job = place.begin({"vda": storage.uri(VOLUME)})
    wait_until(lambda: place.gateways.running[place.bed.a.short].poll() is not None, "the end of the gateway", SETTLE_SECONDS)
    say(f"killed at {when}: {place.states()}")
    if when in ARRIVED:
        expect(place.states()["b"] == "paused", f"nobody may run it: {place.states()}")
    told = len(log_of(place))
    place.gateways.start(place.bed.a)
    is_opened = f"export {DISK}: " in log_of(place)[told:]
    expect(is_opened == (when not in ARRIVED[1:]), f"killed at {when}, the gateway {'opens' if is_opened else 'does not open'} the storage")
    return job


def killed(place, when, kind="nfs", goes_over=True):
    storage = storage_for(place, kind)
    adopted(place)
    job = die(place, storage, when)
    if goes_over:
        job.wait_end(status="done")
        check_on(place, storage)
        return
    ended = job.wait_end(status="rolled-back")
    expect("ended while it ran" in ended["error"], ended["error"])


def killed_bulk(place):
    """Before anything was copied: all is as it was."""
    killed(place, "bulk", goes_over=False)
    expect_here(place, FIRST)
    finish_here(place, FIRST, place.bed.a)


def killed_copying(place):
    """While the disk is copied: the copy is given up."""
    storage = place.storage("nfs")
    adopted(place)
    job = place.begin({"vda": storage.uri(VOLUME)}, options=("--rate", "1M"))
    wait_until(lambda: storage.exists(VOLUME), "the volume", SETTLE_SECONDS)
    place.gateways.kill(place.bed.a)
    place.gateways.start(place.bed.a)
    job.wait_end(status="rolled-back")
    expect_here(place, FIRST)
    expect(not storage.exists(VOLUME), "the volume was left")
    finish_here(place, FIRST, place.bed.a)


def killed_delta(place):
    """When the disk was on the new storage and the memory had not begun: the guest stays, on the new storage."""
    storage = place.storage("nfs")
    adopted(place)
    die(place, storage, "delta").wait_end(status="rolled-back")
    expect_here(place, storage.uri(VOLUME))
    move(place, {"vda": storage.uri(VOLUME)})
    check_on(place, storage)


def killed_memory(place, kind="nfs"):
    """While the memory goes over, which does not need the gateway: it ends without it, and the next process hands the disk over."""
    storage = storage_for(place, kind)
    adopted(place)
    job = begin_slowly(place, storage)
    wait_until(lambda: place.vm.state(place.bed.b) == "paused", "the machine at host b", SETTLE_SECONDS)
    place.gateways.kill(place.bed.a)
    place.gateways.start(place.bed.a)
    job.wait_end(status="done")
    check_on(place, storage)


def killed_memory_ceph(place):
    """The same where the storage tells who has it open: the other host's QEMU does, and the gateway opens it beside that."""
    killed_memory(place, "ceph")
    expect("without a lock" in log_of(place), "the other host's QEMU was not in the way")


def killed_memory_iscsi(place):
    killed_memory(place, "iscsi")


def killed_arrived(place):
    """When the guest waits on the other host, and the storage is open here."""
    killed(place, "synchronized")


def killed_closed(place):
    """When the storage is closed here, and that is not written down."""
    killed(place, "before:switching")


def killed_switching(place):
    """When that is written down, and the guest was not let go on."""
    killed(place, "switching")


def killed_arrived_ceph(place):
    killed(place, "synchronized", "ceph")


if __name__ == "__main__":
    run_cases("through", (
        nfs, iscsi, iscsi_chap, ceph, ceph_user, gluster, in_place, in_place_ceph, in_place_iscsi, two_disks, to_a_file, paused,
        keep_source, stopped, cancelled, cancelled_copying, unreachable, killed_bulk, killed_copying, killed_delta, killed_memory, killed_memory_ceph,
        killed_memory_iscsi, killed_arrived, killed_closed, killed_switching, killed_arrived_ceph, source_libvirtd_killed,
        target_libvirtd_killed))
