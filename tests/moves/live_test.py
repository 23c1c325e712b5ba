#!/usr/bin/env python3
"""Moves that succeed: a guest that writes goes to the other host, and every write it was told of is there.

    live_test.py PROGRAMS CACHE [CASE...]        no CASE: the names of all
"""

import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TESTBED = HERE.parents[1] / "scripts" / "testbed"
sys.path[:0] = [str(HERE), str(TESTBED / "hosts"), str(TESTBED)]

from place import IMAGES, Place, expect  # noqa: E402
from report import Failed, say  # noqa: E402

NEW_RAW = f"{IMAGES}/new.raw"
NEW_QCOW2 = f"{IMAGES}/new.qcow2"
ORDER = ["prepared", "bulk", "delta", "synchronized", "switching", "committed", "retained", "released"]


def move(place, disks, options=(), **hosts):
    """Moves the guest and checks what every finished move must have left, and must not have."""
    job = place.begin(disks, options=options, **hosts)
    ended = job.wait_end(status="done")
    expect(job.watch_exit() == 0, "diskferry watch fails for a move that is done")
    phases = [phase for phase in ORDER if phase in job.phases()]
    expect(job.phases() == phases and phases[-1] == "released", f"phases out of order: {job.phases()}")
    place.expect_on(hosts.get("target") or place.bed.b)
    place.expect_nothing_left()
    pause = (ended.get("report") or {}).get("pause", {}).get("total-us", 0) / 1000
    say(f"moved; the guest stood still for {pause:.0f} ms")
    return ended


def raw(place):
    place.guest(place.chain())
    move(place, {"vda": NEW_RAW})
    place.check(NEW_RAW, "raw", place.bed.b)


def qcow2(place):
    place.guest(place.chain())
    move(place, {"vda": NEW_QCOW2})
    place.check(NEW_QCOW2, "qcow2", place.bed.b)
    said = place.bed.b.run("qemu-img", "check", NEW_QCOW2)
    expect("No errors" in said, f"the new image has faults: {said}")


def two_disks(place):
    """One through the gateways, one that both hosts reach."""
    uri, image = place.store(place.bed.b, "second", mib=64)
    place.guest(place.chain(), place.chain("g2", mib=64))
    move(place, {"vda": NEW_RAW, "vdb": uri})
    place.vm.stop(place.bed.b)
    place.check(NEW_RAW, "raw", place.bed.b, "vda")
    place.check(image, "raw", place.bed.b, "vdb")


def back(place):
    """There, and back again to an image of another format."""
    place.guest(place.chain())
    move(place, {"vda": NEW_RAW})
    move(place, {"vda": f"{IMAGES}/back.qcow2"}, source=place.bed.b, target=place.bed.a)
    place.check(f"{IMAGES}/back.qcow2", "qcow2", place.bed.a)


def memory(place):
    """What libvirt can do for the memory: several connections, and slowing the guest down."""
    place.guest(place.chain())
    move(place, {"vda": NEW_RAW}, options=("--parallel", "2", "--auto-converge"))
    place.check(NEW_RAW, "raw", place.bed.b)


def keep_source(place):
    """The source keeps its definition until it is told to let go."""
    place.guest(place.chain())
    job = place.begin({"vda": NEW_RAW}, options=("--keep-source",))
    job.wait_end(status="paused")
    place.expect_on(place.bed.b, defined_elsewhere=True)
    expect(place.vm.state(place.bed.a) == "shut off", f"the source was not kept: {place.states()}")
    place.bed.a.run(place.gateways.programs / "diskferry", "commit", job.name)
    job.wait_end(status="done", timeout=30) if job.describe()["status"] == "paused" else None
    place.expect_on(place.bed.b)
    place.expect_nothing_left()
    place.check(NEW_RAW, "raw", place.bed.b)


def slow(place):
    """A link of 100 Mbit/s, and no more of it than the move may have."""
    place.bed.link(mbit=100)
    place.guest(place.chain())
    move(place, {"vda": NEW_RAW}, options=("--rate", "8M"))
    place.check(NEW_RAW, "raw", place.bed.b)


def commands(place):
    """What an operator types meanwhile: jobs, status, set, a second move of the same guest, watch."""
    place.bed.link(mbit=50)
    place.guest(place.chain())
    job = place.begin({"vda": NEW_RAW})
    job.wait_phase("bulk")
    diskferry = place.gateways.programs / "diskferry"
    expect(job.name in place.bed.a.run(diskferry, "jobs"), "diskferry jobs does not list a move that runs")
    expect("bulk" in place.bed.a.run(diskferry, "status", job.name) or len(job.phases()) > 2, "no phase in its status")
    again = subprocess.run(place.gateways.command(place.bed.a, "migrate", "g1", "--to", place.bed.b.uri, "--detach", "--disk",
                                                  f"vda={IMAGES}/other.raw"), capture_output=True, text=True, check=False,
                           timeout=60, stdin=subprocess.DEVNULL)
    expect(again.returncode in (1, 3), f"a second move of the same guest: exit {again.returncode} {again.stderr}")
    say(f"a second move is refused: {again.stderr.strip()}")
    place.bed.link()
    job.wait_end(status="done")
    expect(job.watch_exit() == 0, "diskferry watch fails for a move that is done")
    place.expect_on(place.bed.b)
    place.expect_nothing_left(f"{IMAGES}/other.raw")
    place.check(NEW_RAW, "raw", place.bed.b)


def plan(place):
    """What a plan tells: who the other gateway is, that it reaches this one, how fast the way is and what follows from that."""
    place.bed.link(mbit=100)
    place.guest(place.chain())
    words = ("plan", "migrate", "g1", "--to", place.bed.b.uri, "--disk", f"vda={NEW_RAW}", "--predict", "2", "--json")
    told = json.loads(place.bed.a.run(place.gateways.programs / "diskferry", *words, timeout=120))
    expect(told["gateway"] == told["gateway-certificate"] == "host-b", f"the other gateway: {told}")
    codes = [finding["code"] for finding in told["preflight"]["findings"]]
    expect("no-way-back" not in codes, f"host-b does not reach host-a: {codes}")
    foreseen = told["prediction"]
    say(f"{foreseen['rate'] / 1e6:.1f} MB/s, {foreseen['seconds']['total']:.1f} s, pause {foreseen['pause-ms']:.0f} ms, "
        f"{foreseen['converges']}: {foreseen['why']}")
    expect(8e6 < foreseen["rate"] < 13e6, f"the rate of a link of 100 Mbit/s: {foreseen}")
    expect(foreseen["converges"] == "yes" and foreseen["seconds"]["total"] > 0, f"no forecast: {foreseen}")


CASES = {case.__name__.replace("_", "-"): case
         for case in (raw, qcow2, two_disks, back, memory, keep_source, slow, commands, plan)}


def main():
    programs, cache, *names = sys.argv[1:]
    if not names:
        print("\n".join(CASES))
    for name in names:
        with Place(programs, cache, keep=f"{cache}/kept/live-{name}") as place:
            say(f"{name}: the hosts are up")
            CASES[name](place)
            say(f"{name}: passed")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        sys.exit(1)
