#!/usr/bin/env python3
"""A machine whose disk is an export of its host's gateway goes to another host by way of storage that both reach.

    through_test.py PROGRAMS CACHE [CASE...]        no CASE: the names of all
"""

import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TESTBED = HERE.parents[1] / "scripts" / "testbed"
sys.path[:0] = [str(HERE), str(TESTBED / "hosts"), str(TESTBED)]

from cases import run_cases  # noqa: E402
from live_test import move  # noqa: E402
from place import DISK_MIB, IMAGES, expect  # noqa: E402
from report import say  # noqa: E402
from storage_test import VOLUME, expect_defined  # noqa: E402

MIB = 1 << 20
DISK = "g1:vda"
FIRST = f"{IMAGES}/first.raw"


def ask(place, *words, code=0, host=None):
    """`diskferry WORDS` on a host, a by default; what it printed."""
    done = subprocess.run(place.gateways.command(host or place.bed.a, *words), capture_output=True, text=True, check=False,
                          timeout=180, stdin=subprocess.DEVNULL)
    expect(done.returncode == code, f"diskferry {' '.join(words)}: exit {done.returncode}: {done.stderr} {done.stdout}")
    return done.stdout + done.stderr


def adopted(place, target=FIRST, **options):
    """A guest that writes, with its disk on the gateway of host a."""
    guest = place.guest(place.chain(), **options)
    ask(place, "replace", DISK, target, "--progress", "none")
    guest.wait_writing(50)
    return guest


def onto(place, kind):
    storage = place.storage(kind)
    if not storage.creates:
        storage.make(VOLUME, DISK_MIB * MIB)
    adopted(place)
    disks, options = {"vda": storage.uri(VOLUME)}, storage.migrate_options("vda")
    plan = place.plan(disks, options=options)
    say(f"{plan['way']}: {plan['reason']}")
    say(f"{plan['disks']}")
    move(place, disks, options=options)
    expect_defined(place, storage)
    place.vm.stop(place.bed.b)
    place.check(storage.file(VOLUME), "raw", place.bed.b)


def nfs(place):
    onto(place, "nfs")


def in_place(place):
    """The export is on the storage already: nothing is copied."""
    storage = place.storage("nfs")
    adopted(place, storage.uri(VOLUME))
    disks = {"vda": storage.uri(VOLUME)}
    plan = place.plan(disks)
    say(f"{plan['way']}: {plan['disks']}")
    move(place, disks)
    expect_defined(place, storage)
    place.vm.stop(place.bed.b)
    place.check(storage.file(VOLUME), "raw", place.bed.b)


if __name__ == "__main__":
    run_cases("through", (nfs, in_place))
