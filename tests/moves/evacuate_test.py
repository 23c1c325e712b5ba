#!/usr/bin/env python3
"""The host of a guest is gone: the guest runs again on the other one, once, and has every write it was told of.

    evacuate_test.py PROGRAMS CACHE [CASE...]        no CASE: the names of all
"""

import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TESTBED = HERE.parents[1] / "scripts" / "testbed"
sys.path[:0] = [str(HERE), str(TESTBED / "hosts"), str(TESTBED)]

from cases import run_cases  # noqa: E402
from guest import Disk, Guest  # noqa: E402
from place import BOOT_SECONDS, DISK_MIB, IMAGES, Place, expect  # noqa: E402
from processes import wait_until  # noqa: E402
from report import say  # noqa: E402

SHARED = "/run/testbed/shared"  # one folder for both hosts, as an NFS server's would be
IMAGE = f"{SHARED}/g1.qcow2"
FENCE = "/run/testbed/fence"
FENCE_RUNS = "/run/testbed/fence-runs"
# A guest that begins again on the other host goes on with numbers that the first one has not used.
SECOND_LIFE = 1_000_000


def evacuate(place, *options, code=0, definition="/run/testbed/g1-backup.xml", timeout=120):
    """`diskferry evacuate` on host b; returns what it printed."""
    words = ["evacuate", "g1", "--progress", "none", *options]
    if definition:
        words += ["--definition", definition]
        words += [] if "--old-host" in options else ["--old-host", "host-a"]
    done = subprocess.run(place.gateways.command(place.bed.b, *words), capture_output=True, text=True, check=False,
                          timeout=timeout, stdin=subprocess.DEVNULL)
    said = done.stdout + done.stderr
    expect(done.returncode == code, f"diskferry evacuate {options}: exit {done.returncode} instead of {code}: {said}")
    return said


def guest_on_shared(place):
    """A guest on host a whose disk both hosts reach, and a backup of its definition."""
    base = f"{SHARED}/g1-base.qcow2"
    place.bed.a.run("mkdir", "-p", SHARED)
    place.bed.a.run("qemu-img", "create", "-q", "-f", "qcow2", base, f"{DISK_MIB}M")
    place.bed.a.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", IMAGE)
    place.vm = Guest(place.bed, place.cache, disks=[Disk("vda", IMAGE, "qcow2")], rate=150, verify=8)
    place.vm.start(place.bed.a)
    place.vm.wait_writing(100, timeout=BOOT_SECONDS)
    back_up(place)


def back_up(place):
    place.vm.options["start"] = SECOND_LIFE
    place.vm.write_xml(suffix="-backup")


def expect_second_life(place):
    """The guest runs on host b and goes on writing there."""
    expect(place.vm.state(place.bed.b) == "running", f"the guest on host-b: {place.vm.state(place.bed.b)}")
    wait_until(lambda: place.vm.acks[-1].last > SECOND_LIFE + 100, "writes after the evacuation", BOOT_SECONDS)


def expect_refused(place, code, *options, **more):
    said = evacuate(place, *options, code=3, **more)
    expect(f"({code})" in said, f"{code} is not said: {said}")
    expect(place.vm.state(place.bed.b) is None, "something was defined in spite of the refusal")
    say(f"refused: {code}")


def shared(place):
    """The disk is on storage that both hosts reach; the operator says that the old host is off."""
    guest_on_shared(place)
    expect_refused(place, "runs-there", "--i-have-fenced", "host-a")
    expect_refused(place, "runs-elsewhere", "--i-have-fenced", "host-c", "--old-host", "host-c", "--old-address", "10.77.0.9",
                   "--ask", place.bed.a.uri)
    expect_refused(place, "disk-in-use", "--i-have-fenced", "host-a")
    place.bed.a.kill_libvirtd()
    expect_refused(place, "old-host-answers", "--i-have-fenced", "host-a")
    place.bed.a.crash()
    say("host-a is gone")
    expect_refused(place, "not-fenced")
    expect_refused(place, "other-host-fenced", "--i-have-fenced", "host-b")
    expect_refused(place, "disk-missing", "--i-have-fenced", "host-a", "--disk", f"vda={SHARED}/other.qcow2")
    said = evacuate(place, "--i-have-fenced", "host-a", "--machine", "pc-i440fx-7.1", "--dry-run")
    expect("+    <type arch='x86_64' machine='pc-i440fx-7.1'>" in said or "machine=\"pc-i440fx-7.1\"" in said,
           f"no difference is shown: {said}")
    expect(place.vm.state(place.bed.b) is None, "--dry-run defined something")
    place.vm.check(IMAGE, "qcow2", host=place.bed.b)
    began = time.monotonic()
    evacuate(place, "--i-have-fenced", "host-a", "--define-only")
    expect(place.vm.state(place.bed.b) == "shut off", "--define-only did not only define it")
    said = evacuate(place, "--i-have-fenced", "host-a")
    say(f"evacuated in {time.monotonic() - began:.1f} s: {said.strip()}")
    expect("old host off: operator: host-a" in said, f"the report does not say who vouched for it: {said}")
    expect_second_life(place)
    qemu = place.bed.b.qemu_pid("g1")
    expect("runs-here" in evacuate(place, "--i-have-fenced", "host-a"), "a second time is not seen as that")
    expect(place.bed.b.qemu_pid("g1") == qemu, "a second time started it anew")
    place.check(IMAGE, "qcow2", place.bed.b)


def write_fence(place, text):
    file = pathlib.Path(place.bed.b.outside(FENCE))
    file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    file.chmod(0o755)


def fence(place):
    """The old host is cut off by a command, which has to say so; the gateway is killed while it waits for it."""
    guest_on_shared(place)
    place.bed.a.crash()
    write_fence(place, "echo 'Status: ON'")
    expect("does not say that the host is off" in evacuate(place, code=1), "a host that is on counts as fenced")
    expect(place.vm.state(place.bed.b) is None, "the guest was defined although its host is on")
    write_fence(place, f"echo $1 >>{FENCE_RUNS}; sleep 600")
    words = ("evacuate", "g1", "--definition", "/run/testbed/g1-backup.xml", "--old-host", "host-a", "--progress", "none")
    asked = subprocess.Popen(place.gateways.command(place.bed.b, *words), stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    runs = pathlib.Path(place.bed.b.outside(FENCE_RUNS))
    wait_until(runs.exists, "the fence command", 60)
    expect(runs.read_text(encoding="utf-8") == "host-a\n", "the command was not given the old host's name")
    place.gateways.kill(place.bed.b)
    place.gateways.start(place.bed.b)
    expect(asked.wait(90) != 0, "diskferry evacuate succeeds although its gateway was killed")
    job = place.gateways.jobs(place.bed.b)[0]
    expect((job["status"], job["phase"]) == ("failed", "checked"), f"the job of the killed gateway: {job}")
    expect(place.vm.state(place.bed.b) is None, "the guest was defined before its host was off")
    write_fence(place, "echo 'Success: Powered OFF'")
    expect("old host off: Success: Powered OFF" in evacuate(place), "the report does not say what the command said")
    expect_second_life(place)
    place.check(IMAGE, "qcow2", place.bed.b)


def record(place):
    """No definition is at hand: host b sent the guest to host a, and remembers."""
    place.bed.a.run("mkdir", "-p", SHARED)
    place.guest(place.chain())
    place.begin({"vda": f"{IMAGES}/new.raw"}).wait_end(status="done")
    place.begin({"vda": IMAGE}, source=place.bed.b, target=place.bed.a, options=("--keep-source",)).wait_end(status="paused")
    place.expect_on(place.bed.a, defined_elsewhere=True)
    place.bed.a.crash()
    # The source that was kept is let go without the other host, which is gone.
    place.bed.b.run(place.gateways.programs / "diskferry", "migrate", "g1", "--confirm", timeout=120)
    place.vm.check(IMAGE, "qcow2", host=place.bed.b)
    old = place.vm.write_xml(disks=[Disk("vda", f"{IMAGES}/new.raw")], suffix="-old")
    expect_refused(place, "disk-left-behind", "--i-have-fenced", "host-a", definition=old)
    said = evacuate(place, "--from-record", "--i-have-fenced", "host-a", "--define-only", definition=None)
    expect("host-a" in said, f"the record does not name the old host: {said}")
    expect(IMAGE in place.bed.b.virsh("dumpxml", "g1"), "the definition is not that of the last move")
    evacuate(place, "--from-record", "--i-have-fenced", "host-a", definition=None)
    expect(place.vm.state(place.bed.b) == "running", "the guest does not run")


CONFIGURATION = f'\n[evacuate]\nfence = "{FENCE} %h"\n'


def place_for_evacuation(case, *words, **options):
    return Place(*words, more=CONFIGURATION if case == "fence" else "", **options)


if __name__ == "__main__":
    run_cases("evacuate", (shared, fence, record), place_for_evacuation)
