"""The demo's main part: a guest that writes all the time is moved by `diskferry migrate`, there and back again.

Two hosts (hosts/) share a wire and nothing else. The guest's disk is a qcow2 chain of three layers with a compressed base.
It moves from host-a to host-b into a raw file, and from there back into a qcow2. After each move the disk that the guest
left is gone from the guest's sight; at the end every write that was ever acknowledged is looked for, and every block
that the guest never wrote has to be as it was in the chain.

Or it moves onto a real storage server, which runs on host-b and both hosts reach: there it stays.
"""

import json
import os
import pathlib
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE / "hosts"))

import link  # noqa: E402
from gateways import PAUSE, Gateways  # noqa: E402
from guest import Disk, Guest  # noqa: E402
from host_storage import make_storage  # noqa: E402
from hosts import Testbed  # noqa: E402
from report import Failed, heading, say, size  # noqa: E402

IMAGES = "/var/lib/libvirt/images"
DISK_MIB = 256
WRITES_PER_SECOND = 300
WRITES_BETWEEN = 50  # undisturbed before a move and after it; a busy machine may take its time over them
USUAL_SECONDS = 5  # before a move: what its writes per second are compared with
MOVE_SECONDS_MAX = 120


def why_not():
    """What keeps the demo from running here, as a sentence with what to do, or None."""
    if os.geteuid() != 0:
        return ("only root may make the two hosts' namespaces; run it as root (sudo scripts/demo), or look at the parts that "
                "need no root: scripts/demo --only boot, scripts/demo --only live")
    return None


def make_chain(host):
    """Three layers: a compressed base with text in it, a middle with data, and what the guest writes to."""
    base, middle, top = (f"{IMAGES}/{name}.qcow2" for name in ("base", "middle", "top"))
    raw = pathlib.Path(host.outside(f"{IMAGES}/base.raw"))
    with open(raw, "wb") as out:
        for number in range(DISK_MIB * 4):
            out.seek(number << 18)
            out.write(f"what was there before, piece {number}\n".encode() * 1700)
        out.truncate(DISK_MIB << 20)
    host.run("qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", f"{IMAGES}/base.raw", base)
    host.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", middle)
    host.run("qemu-io", "-f", "qcow2", "-c", "write -q -P 0x5a 20M 30M", middle)
    host.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top)
    raw.unlink()
    for path in (base, middle):
        say(f"{os.path.basename(path)}: {size(os.stat(host.outside(path)).st_blocks * 512)} on disk")
    return top


def copy_chain(host, diskferry, top, report):
    """The short copy part: the chain as one verified raw file, while no guest runs on it."""
    began = time.monotonic()
    host.run(diskferry, "copy", "--progress", "none", top, f"{IMAGES}/copy.raw", timeout=120)
    seconds = time.monotonic() - began
    host.run("qemu-img", "compare", "-q", top, f"{IMAGES}/copy.raw", timeout=120)
    os.unlink(host.outside(f"{IMAGES}/copy.raw"))
    report.add("chain copied to one raw file", f"{seconds:.1f} s, verified, and equal for qemu-img compare")
    say(f"diskferry copy: {seconds:.1f} s, and qemu-img finds both equal")


def tell(move, report, name):
    """Prints a move's own report: its phases, the disks, the parts of the pause."""
    told = move.report
    line = told.get("timeline", [])
    for phase, after in zip(line, line[1:] + [None]):
        lasted = f"{after['at-ms'] - phase['at-ms']:6.0f} ms" if after else "      end"
        say(f"  {phase['phase']:<13} {lasted}")
    for disk in told.get("disks", []):
        say(f"  {disk['disk']}: {size(disk['sent-bytes'])} of {size(disk['size-bytes'])} sent, "
            f"{size(disk['resent-bytes'])} of it again")
    pause = told.get("pause") or {}
    parts = ", ".join(f"{part.removesuffix('-us').replace('-', ' ')} {pause[part] / 1000:.1f}"
                      for part in pause if part.endswith("-us") and part != "total-us")
    if parts:
        say(f"  guest stopped {pause['total-us'] / 1000:.0f} ms: {parts}")
        report.add(f"{name}: guest stopped", f"{pause['total-us'] / 1000:.0f} ms ({parts})")


def move(gateways, guest, source, target, place, name, report):  # pylint: disable=too-many-arguments
    """One move to `target`, with everything that the guest and the wire say about it."""
    say(f"diskferry migrate {guest.name} --to {target.uri} --disk vda={place} {' '.join(PAUSE)}")
    usual = guest.writes_per_second(time.monotonic() - USUAL_SECONDS)
    sent = link.sent_bytes(source)
    done = gateways.migrate(guest, {"vda": place}, source, target, timeout=MOVE_SECONDS_MAX)
    sent = link.sent_bytes(source) - sent
    # The longest gap may still be open when the command ends.
    guest.wait_writing(WRITES_BETWEEN)
    if guest.state(target) != "running" or guest.state(source) == "running":
        raise Failed(f"{name}: the guest is '{guest.state(source)}' on {source} and '{guest.state(target)}' on {target}")
    tell(done, report, name)
    report.add(f"{name}: whole move", f"{done.seconds:.1f} s, {size(sent)} on the wire with the guest's memory")
    report.add(f"{name}: longest time without a finished write",
               f"{guest.gap_ms(done.began):.0f} ms as seen from outside the guest; longest single write by the guest's "
               f"clock {guest.worst_write_ms(done.began):.0f} ms")
    report.add(f"{name}: writes a second during the move",
               f"{guest.writes_per_second(done.began, done.ended):.0f} after {usual:.0f} just before (it asks for {WRITES_PER_SECOND})")


def run_demo(programs, cache, folder, report, kind="file"):
    """Raises Failed when any of it is not as it should be. `programs` is the folder of diskferry and diskferryd; `kind` is where
    the guest moves: file, or a kind of host_storage.py."""
    heading("1. Two hosts, a gateway on each, and a disk of three layers")
    with Testbed(os.path.join(folder, "hosts")) as bed:
        top = make_chain(bed.a)
        copy_chain(bed.a, os.path.join(programs, "diskferry"), top, report)
        with Gateways(bed, programs) as gateways, \
             Guest(bed, cache, disks=[Disk("vda", top, "qcow2")], rate=WRITES_PER_SECOND, verify=8) as guest:
            before = begin(bed, guest, top)
            if kind == "file":
                play_files(bed, gateways, guest, before, report)
            else:
                play_storage(bed, gateways, guest, kind, before, report)
            expect_left(bed.a, guest, top, before)


def begin(bed, guest, top):
    """Starts the guest, and returns what its disk was before."""
    before = guest.snapshot(top, "qcow2", bed.a)
    guest.start(bed.a)
    guest.wait_writing(WRITES_BETWEEN)
    say(f"a guest on host-a writes numbered blocks, up to {WRITES_PER_SECOND} a second, and reads some of them back")
    return before


def play_files(bed, gateways, guest, before, report):
    heading("2. Moved to host-b, into a raw file")
    move(gateways, guest, bed.a, bed.b, f"{IMAGES}/moved.raw", "to host-b as raw", report)
    heading("3. Moved back to host-a, into a qcow2")
    back = f"{IMAGES}/back.qcow2"
    move(gateways, guest, bed.b, bed.a, back, "to host-a as qcow2", report)
    heading("4. Every block checked")
    guest.stop(bed.a)
    check(bed.a, guest, back, "qcow2", before, report)


def play_storage(bed, gateways, guest, kind, before, report):  # pylint: disable=too-many-arguments
    heading(f"2. Moved to host-b, onto a real storage server: {kind}")
    began = time.monotonic()
    with make_storage(bed, bed.b, kind) as storage:
        say(f"{kind} serves on {bed.b.address} after {time.monotonic() - began:.1f} s")
        volume = "moved.raw"
        if not storage.creates:
            storage.make(volume, DISK_MIB << 20)
            say("a LUN was made as its administrator does it; what can be created is created by the move")
        place = storage.uri(volume)
        move(gateways, guest, bed.a, bed.b, place, f"to host-b onto {kind}", report)
        heading("3. Every block checked")
        guest.stop(bed.b)
        check(bed.b, guest, storage.file(volume), "raw", before, report)


def check(host, guest, image, image_format, before, report):  # pylint: disable=too-many-arguments
    if guest.console.trouble:
        raise Failed(f"the guest is in trouble: {guest.console.trouble[:5]}")
    counted = guest.check(image, image_format, host=host, before=before)
    say(f"the last disk has every acknowledged write, and the rest of the chain as it was: {json.dumps(counted)}")
    report.add("check of every block", ", ".join(f"{name} {value}" for name, value in counted.items()))


def expect_left(host, guest, top, before):
    """The disk that the guest left is not what it wrote, or the check says nothing."""
    try:
        guest.check(top, "qcow2", host=host, before=before)
    except Failed:
        say("the disk it left behind first lacks what was written later, as it must: the check can fail")
    else:
        raise Failed("the chain passes the check although the guest went on elsewhere")
