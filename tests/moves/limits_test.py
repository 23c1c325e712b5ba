#!/usr/bin/env python3
"""Moves with limits, and moves that are tried twice: each case shows that the option has its effect.

    limits_test.py PROGRAMS CACHE [CASE...]        no CASE: the names of all
"""

import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TESTBED = HERE.parents[1] / "scripts" / "testbed"
sys.path[:0] = [str(HERE), str(TESTBED / "hosts"), str(TESTBED)]

import events  # noqa: E402
from cases import run_cases  # noqa: E402
from live_test import NEW_QCOW2, NEW_RAW, move  # noqa: E402
from place import IMAGES, SHARED, expect  # noqa: E402
from processes import wait_until  # noqa: E402
from report import say  # noqa: E402

MIB = 1 << 20
DATA_MIB = 24         # what the disk holds, in the cases that count bytes
SLOW = {"mbit": 40}   # so that a move of this lasts
MEMORY_SLOW = {"mbit": 20}          # some ten seconds for a guest's memory
# KiB of memory each 10 ms: 200 MB/s, which no slow link carries. For moves that are not to succeed: an emulated processor
# loses track of memory that changes so fast.
BUSY = {"dirty": 2000, "rate": 20}


def sent(ended):
    return sum(disk["sent-bytes"] for disk in ended["report"]["disks"])


def _attempts(place, target, image_format, fail, phase, most):
    """A first attempt that `fail` ends in this phase, and a second one that sends at most so many bytes."""
    place.bed.link(**SLOW)
    place.guest(place.chain(data_mib=DATA_MIB), rate=40)
    job = place.begin({"vda": target}, options=("--keep-partial",))
    job.wait_phase(phase)
    if phase == "bulk":
        job.wait_progress(DATA_MIB * MIB * 2)  # of the 96 MiB, most of which are zeros
    fail(place, job)
    first = job.wait_end()
    expect(first["status"] in ("cancelled", "rolled-back"), f"the first attempt is {first['status']}: {first.get('error')}")
    expect(place.where() is place.bed.a, f"the guest left host a: {place.states()}")
    say(f"the first attempt sent {sent(first) / MIB:.1f} MiB: {first.get('error')}")
    place.bed.link()
    second = move(place, {"vda": target}, options=("--keep-partial",))
    say(f"the second attempt sent {sent(second) / MIB:.1f} MiB")
    expect(sent(second) < most * MIB, f"the second attempt sent {sent(second) / MIB:.1f} MiB of {DATA_MIB}")
    place.check(target, image_format, place.bed.b)


def again_cancelled(place):
    """Cancelled while the memory went over: the disk was all there."""
    _attempts(place, NEW_RAW, "raw", events.cancel, "delta", DATA_MIB / 3)


def again_bulk(place):
    """Cancelled while the disk was copied: what had arrived is not sent again."""
    _attempts(place, NEW_RAW, "raw", events.cancel, "bulk", DATA_MIB * 3 / 4)


def again_target_killed(place):
    """The hypervisor there dies, and its image stays."""
    _attempts(place, NEW_RAW, "raw", events.kill_target_qemu, "delta", DATA_MIB / 3)


def again_qcow2(place):
    """The same where the hypervisor there writes the image."""
    _attempts(place, NEW_QCOW2, "qcow2", events.cancel, "delta", DATA_MIB / 3)


def rate(place):
    """The budget is kept, and can be changed while the move goes on."""
    place.guest(place.chain(data_mib=DATA_MIB), rate=20)
    job = place.begin({"vda": NEW_RAW}, options=("--rate", "1M"))
    job.wait_phase("bulk")
    diskferry = place.gateways.programs / "diskferry"

    def measure(seconds):
        before, began = place.bed.wire_bytes(), time.monotonic()
        time.sleep(seconds)
        return (place.bed.wire_bytes() - before) / (time.monotonic() - began)
    time.sleep(1)
    slow = measure(4)
    place.bed.a.run(diskferry, "set", job.name, "--rate", "4M")
    time.sleep(1)
    faster = measure(3)
    place.bed.a.run(diskferry, "set", job.name, "--rate", "0")
    began = time.monotonic()
    job.wait_end(status="done")
    say(f"{slow / MIB:.2f} MiB/s, then {faster / MIB:.2f} MiB/s, then done in {time.monotonic() - began:.1f} s")
    expect(slow < 1.5 * MIB, f"{slow / MIB:.2f} MiB/s where 1 is allowed")
    expect(2 * MIB < faster < 5.5 * MIB, f"{faster / MIB:.2f} MiB/s where 4 are allowed")
    place.expect_on(place.bed.b)
    place.check(NEW_RAW, "raw", place.bed.b)


def rate_outrun(place):
    """A guest that writes three times what the budget allows moves all the same, and the budget is kept."""
    # Without a look back by the guest itself, which under emulation may have lost memory: the disk is checked at the end.
    place.guest(place.chain(data_mib=DATA_MIB), mode="seq", rate=320, run=16, sync=0, verify=0)
    budget = 6 * MIB
    job = place.begin({"vda": NEW_RAW}, options=("--rate", str(budget), "--max-pause", "2000"))
    before, began = place.bed.wire_bytes(), time.monotonic()
    job.wait_end(status="done")
    seconds = time.monotonic() - began
    used = (place.bed.wire_bytes() - before) / seconds
    say(f"moved in {seconds:.1f} s with {used / MIB:.2f} MiB/s")
    expect(used < 1.5 * budget, f"{used / MIB:.2f} MiB/s where 6 are allowed")
    place.expect_on(place.bed.b)
    place.check(NEW_RAW, "raw", place.bed.b)


def timeout_abort(place):
    """Too slow: given up, the guest goes on here, nothing is left."""
    place.bed.link(mbit=8)
    place.guest(place.chain(data_mib=DATA_MIB), rate=20)
    ended = place.begin({"vda": NEW_RAW}, options=("--timeout", "5")).wait_end()
    expect(ended["status"] == "rolled-back" and "longer than 5 s" in ended["error"], f"{ended['status']}: {ended.get('error')}")
    place.expect_on(place.bed.a)
    place.expect_nothing_left(NEW_RAW)
    place.check(f"{IMAGES}/g1.qcow2", "qcow2", place.bed.a)


def timeout_suspend(place):
    """A guest whose memory takes too long is paused until it is over, and runs there."""
    place.bed.link(**MEMORY_SLOW)
    place.guest(place.chain(), rate=20)
    ended = move(place, {"vda": NEW_RAW}, options=("--timeout", "8", "--timeout-action", "suspend"))
    pause = ended["report"].get("pause", {}).get("total-us", 0)
    expect(pause > 500_000, f"the guest was not paused: {pause} us")
    place.check(NEW_RAW, "raw", place.bed.b)


def timeout_post_copy(place):
    """The same with the memory following after the switchover."""
    place.bed.link(**MEMORY_SLOW)
    place.guest(place.chain(), rate=20)
    ended = move(place, {"vda": NEW_RAW}, options=("--post-copy", "--timeout", "8", "--timeout-action", "post-copy"))
    log = pathlib.Path(place.bed.a.outside("/var/log/libvirt/libvirtd.log")).read_text(errors="replace")
    expect('"status": "postcopy-active"' in log, "the memory did not follow after the switchover")
    say(f"pause {ended['report'].get('pause')}")
    place.check(NEW_RAW, "raw", place.bed.b)


def auto_converge(place):
    """A guest whose memory never settles is slowed down, and is as before when the move is cancelled."""
    place.bed.link(mbit=100)
    place.guest(place.chain(), **BUSY)
    job = place.begin({"vda": NEW_RAW}, options=("--auto-converge",))
    job.wait_phase("delta")

    def throttle():
        done = subprocess.run([*place.bed.a.entry(), "virsh", "-q", "-c", "qemu:///system", "domjobinfo", "g1"], check=False,
                              capture_output=True, text=True, timeout=60)
        found = [line.split()[-1] for line in done.stdout.splitlines() if "converge throttle" in line]
        return int(found[0]) if found else 0
    wait_until(throttle, "a guest that is slowed down", 120)
    say(f"slowed down by {throttle()} %")
    events.cancel(place, job)
    job.wait_end(status="cancelled")
    place.expect_on(place.bed.a)
    place.check(f"{IMAGES}/g1.qcow2", "qcow2", place.bed.a)


def memory_stream(place):
    """What libvirt can do with the memory, one after the other, with a guest on shared storage."""
    place.share()
    place.guest(place.chain("s1", folder=SHARED))
    here, there = place.bed.a, place.bed.b
    asked = (("--parallel", "3"), '"multifd-channels":3'), \
            (("--memory-tls",), '"tls-creds":"objlibvirt_migrate_tls0"'), \
            (("--compression", "xbzrle"), '{"capability":"xbzrle","state":true}')
    for options, *said in asked:
        log = pathlib.Path(here.outside("/var/log/libvirt/libvirtd.log"))
        before = log.stat().st_size
        move(place, {}, source=here, target=there, options=options)
        with open(log, encoding="utf-8", errors="replace") as text:
            text.seek(before)
            new = text.read()
        for word in said:
            expect(word in new, f"{' '.join(options)}: the hypervisor was not told {word}")
        say(f"{' '.join(options)}: moved")
        here, there = there, here
    place.check(f"{SHARED}/s1.qcow2", "qcow2", here)


def verify(place):
    """The target is read back while the guest runs, and all is right."""
    place.guest(place.chain(data_mib=DATA_MIB))
    ended = move(place, {"vda": NEW_RAW}, options=("--verify",))
    disk = ended["report"]["disks"][0]
    expect(disk["verified-bytes"] > disk["size-bytes"] * 0.9, f"too little was read back: {disk}")
    place.check(NEW_RAW, "raw", place.bed.b)


def verify_finds(place):
    """Storage that changes what it was given: found before the switchover, and the block is named."""
    place.bed.link(**SLOW)
    place.guest(place.chain(data_mib=DATA_MIB), rate=20)
    job = place.begin({"vda": NEW_RAW}, options=("--verify",))
    job.wait_progress(40 * MIB)
    place.bed.b.run("dd", "if=/dev/urandom", f"of={NEW_RAW}", "bs=4096", "seek=5130", "count=1", "conv=notrunc")
    ended = job.wait_end()
    expect(ended["status"] == "rolled-back" and "block 5130 is not what was written" in ended["error"],
           f"{ended['status']}: {ended.get('error')}")
    place.expect_on(place.bed.a)
    place.expect_nothing_left(NEW_RAW)
    place.check(f"{IMAGES}/g1.qcow2", "qcow2", place.bed.a)


if __name__ == "__main__":
    run_cases("limits", (
        again_cancelled, again_bulk, again_target_killed, again_qcow2, rate, rate_outrun, timeout_abort, timeout_suspend,
        timeout_post_copy, auto_converge, memory_stream, verify, verify_finds))
