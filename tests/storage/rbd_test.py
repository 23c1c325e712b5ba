#!/usr/bin/env python3
"""What is Ceph's own: full clusters and quotas, fencing, locks, clones; rbd_test.py PROGRAM [CASE...]"""

import json
import subprocess
import sys
import tempfile

from faults_test import DISK_BYTES, Place, ends, expect
from processes import wait_until
from report import Failed, say
from storage_base import MIB, PATIENT
from ceph_storage import RbdStorage

IMAGE = "rbd/disk.raw"
LESS_THAN_IS_USED = 0.004  # of 10 GiB: BlueStore alone uses 290 MiB


def resumes(place, source, target):
    code, said = place.copy(source, target, "--resume")
    expect(code == 0, f"resumed, exit {code}: {said}")
    place.expect_target("disk.raw")


def full(place):
    """The cluster becomes full in the middle: an error at once that says what to do, and --resume finishes."""
    source, target = ends(place, PATIENT, True)
    copy = place.begin(source, target)
    copy.in_the_middle()
    copy.pause()
    place.storage.server.set_full_ratio(LESS_THAN_IS_USED)
    place.storage.server.wait_full()
    copy.go_on()
    code, said = copy.end()
    expect(code == 1, f"exit {code}: {said}")
    expect("the cluster is full" in said and "free space" in said and "--resume" in said, f"it does not say what to do: {said}")
    place.storage.server.set_full_ratio(0.95)
    place.storage.server.wait_full(False)
    resumes(place, source, target)


def quota(place):
    """The same with the pool's quota."""
    source, target = ends(place, PATIENT, True)
    copy = place.begin(source, target)
    copy.in_the_middle()
    copy.pause()
    place.storage.server.set_quota(1 * MIB)
    wait_until(place.storage.server.is_quota_reached, "the quota")
    copy.go_on()
    code, said = copy.end()
    expect(code == 1 and "quota" in said and "--resume" in said, f"exit {code}: {said}")
    place.storage.server.set_quota(0)
    wait_until(lambda: not place.storage.server.is_quota_reached(), "the pool having room")
    resumes(place, source, target)


def fenced(place):
    """Somebody fences us in the middle: the copy ends and says so; it does not write again by itself."""
    source, target = ends(place, PATIENT, True)
    copy = place.begin(source, target)
    copy.in_the_middle()
    copy.pause()
    expect(len(place.storage.server.blocklist("disk.raw")) == 1, "the image has one client")
    copy.go_on()
    code, said = copy.end()
    expect(code == 1 and "fenced" in said, f"exit {code}: {said}")
    place.storage.server.clear_blocklist()
    resumes(place, source, target)


def in_use(place):
    """An image that another client writes to is refused, with that client's address; reading it is not."""
    source, target = ends(place, {"in-use-timeout": 0}, True)
    place.storage.write("disk.raw", place.disk)
    with subprocess.Popen(["qemu-io", "-f", "raw", place.storage.server.qemu_uri("disk.raw")], stdin=subprocess.PIPE,
                          stdout=subprocess.DEVNULL, env=place.storage.server.environment(), text=True) as writer:
        wait_until(lambda: place.storage.server.clients("disk.raw"), "the image having a client")
        client = place.storage.server.clients("disk.raw")[0]
        code, said = place.copy(source, target, "--no-create")
        expect(code == 3 and client in said, f"exit {code}, {client}: {said}")
        code, said = place.copy(target, place.result)
        expect(code == 0, f"exit {code}: {said}")
        writer.communicate("quit\n", timeout=30)
    place.expect_file()
    code, said = place.copy(source, target, "--no-create")
    expect(code == 0, f"exit {code}: {said}")
    place.expect_target("disk.raw")


def snapshot_of_clone(place):
    """A snapshot of a clone in a namespace is read with what it has of its parent, and only where something is."""
    server = place.storage.server
    place.storage.write("base", place.disk)
    server.rbd("snap", "create", "--no-progress", "rbd/base@one")
    server.rbd("namespace", "create", "rbd/tenant")
    server.rbd("clone", "--rbd-default-clone-format", "2", "--object-size", "1M", "--stripe-unit", "1M",
               "--stripe-count", "1", "rbd/base@one", "rbd/tenant/disk")
    server.rbd("snap", "create", "--no-progress", "rbd/tenant/disk@then")
    with subprocess.Popen(["qemu-io", "-f", "raw", "-c", f"write -P 9 0 {DISK_BYTES}",
                           server.qemu_uri("tenant/disk")], stdout=subprocess.DEVNULL, env=server.environment()) as writer:
        expect(writer.wait(60) == 0, "qemu-io writes")
    code, said = place.copy(place.storage.uri("tenant/disk@then"), place.result, "--json")
    expect(code == 0, f"exit {code}: {said}")
    place.expect_file()


def placed(place):
    """Data pool and object size of an image that is made are those of the keys."""
    server = place.storage.server
    server.create_pool("data")
    target = place.storage.uri("disk.raw", {"id": "admin", "data-pool": "data", "object-size": "1M"})
    code, said = place.copy(place.disk, target)
    expect(code == 0, f"exit {code}: {said}")
    facts = json.loads(server.rbd("info", "--format", "json", IMAGE))
    expect(facts["data_pool"] == "data" and facts["object_size"] == 1 * MIB, f"it is {facts}")
    place.expect_target("disk.raw")


CASES = {case.__name__: case for case in (full, quota, fenced, in_use, snapshot_of_clone, placed)}


def run_case(program, name):
    with tempfile.TemporaryDirectory(prefix="df-") as folder:
        place = Place(program, RbdStorage, folder)
        place.storage.needs_manager(name == "quota")
        with place:
            CASES[name](place)
    say(f"rbd.{name}: passed")


def main():
    if len(sys.argv) < 2 or set(sys.argv[2:]) - set(CASES):
        sys.exit(__doc__)
    failed = 0
    for name in sys.argv[2:] or list(CASES):
        try:
            run_case(sys.argv[1], name)
        except Failed as failure:
            failed += 1
            say(f"rbd.{name}: FAILED: {failure}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
