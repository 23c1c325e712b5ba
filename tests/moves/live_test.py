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

import events  # noqa: E402
from cases import run_cases  # noqa: E402
from place import IMAGES, SHARED, expect  # noqa: E402
from processes import wait_until  # noqa: E402
from report import say  # noqa: E402

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


def paused(place):
    """What its operator paused stays paused, and goes on where it is when he says so."""
    place.guest(place.chain())
    place.bed.a.virsh("suspend", "g1")
    job = place.begin({"vda": NEW_RAW})
    job.wait_end(status="done")
    expect(place.states() == {"a": None, "b": "paused"}, f"the states are {place.states()}")
    place.bed.b.virsh("resume", "g1")
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


def shared(place):
    """One disk on storage of both hosts, which stays, and one that is copied."""
    place.share()
    place.guest(place.chain("s1", folder=SHARED), place.chain())
    plan = place.plan({"vdb": NEW_RAW})
    stays, goes = (next(disk for disk in plan["disks"] if disk["disk"] == name) for name in ("vda", "vdb"))
    expect(stays["route"] == "shared" and stays["target"] == f"{SHARED}/s1.qcow2", f"vda does not stay: {plan}")
    expect("the other one read" in stays["reason"], f"it was not proved that vda is shared: {plan}")
    expect(goes["route"] == "gateway", f"vdb is not copied: {plan}")
    ended = move(place, {"vdb": NEW_RAW})
    expect([disk["disk"] for disk in ended["report"]["disks"]] == ["vdb"], f"other disks were copied: {ended['report']}")
    place.vm.stop(place.bed.b)
    place.check(f"{SHARED}/s1.qcow2", "qcow2", place.bed.b, "vda")
    place.check(NEW_RAW, "raw", place.bed.b, "vdb")
    left = place.bed.a.run("ls", "-A", SHARED).split()
    expect(sorted(left) == ["s1-base.qcow2", "s1-middle.qcow2", "s1.qcow2"], f"left in the shared folder: {left}")


def by_ssh(place, target, image_format):
    """The other host has neither a gateway nor a certificate: one is started through ssh, for this move alone."""
    place.gateways.stop(place.bed.b)
    place.bed.b.run("rm", "-r", "/etc/pki/diskferry")
    place.guest(place.chain())
    program = place.gateways.programs / "diskferryd"
    move(place, {"vda": target}, options=("--gateway-to", f"ssh://root@host-b{program}"))
    wait_until(lambda: not place.bed.b._answers("pgrep", "-x", "diskferryd"), "the end of the gateway on host-b", 30)
    left = place.bed.b.run("sh", "-c", "ls -d /tmp/diskferry-[0-9a-f]* 2>/dev/null || true").split()
    expect(not left, f"left on host-b: {left}")
    place.check(target, image_format, place.bed.b)


def ssh_raw(place):
    by_ssh(place, NEW_RAW, "raw")


def ssh_qcow2(place):
    """What the other host's QEMU alone may write goes through the gateway's socket there, and that through ssh."""
    by_ssh(place, NEW_QCOW2, "qcow2")


def all_shared(place):
    """Nothing but the memory moves, there and back."""
    place.share()
    place.guest(place.chain("s1", folder=SHARED))
    for source, target in ((place.bed.a, place.bed.b), (place.bed.b, place.bed.a)):
        ended = move(place, {}, source=source, target=target)
        expect(ended["report"]["disks"] == [], f"disks were copied: {ended['report']}")
    place.check(f"{SHARED}/s1.qcow2", "qcow2", place.bed.a)


def all_shared_undone(place):
    """The memory alone goes over when it is cancelled, and when the gateway here is killed."""
    place.bed.link(mbit=20)
    place.share()
    place.guest(place.chain("s1", folder=SHARED))
    job = place.begin({})
    job.wait_phase("delta")
    events.cancel(place, job)
    job.wait_end(status="cancelled")
    place.expect_on(place.bed.a)
    place.expect_nothing_left()
    job = place.begin({})
    job.wait_phase("delta")
    events.kill_source_gateway(place, job)
    place.bed.link()
    ended = job.wait_end()
    host = place.where()
    say(f"the gateway was killed: {ended['status']}, the guest runs on {host}")
    expect((ended["status"] == "done") == (host is place.bed.b), f"{ended['status']}: {ended.get('error')}")
    if host is place.bed.a:
        move(place, {})
    place.expect_on(place.bed.b)
    place.expect_nothing_left()
    place.check(f"{SHARED}/s1.qcow2", "qcow2", place.bed.b)


def not_shared(place):
    """What stands in the way of a disk that is nowhere named: the same name is no proof, nor are the same layers above."""
    place.share()
    base, top = f"{IMAGES}/base.qcow2", f"{SHARED}/top.qcow2"
    for host in place.bed.hosts:
        host.run("qemu-img", "create", "-q", "-f", "qcow2", base, "96M")
    place.bed.a.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
    place.guest(top, place.chain())
    plan = place.plan({"vdb": NEW_RAW}, code=3)
    text = next(one["text"] for one in plan["preflight"]["findings"] if one["code"] == "disk-not-named")
    expect(base in text and "another one" in text, f"the plan does not say what was tried: {text}")
    # And a copy onto itself is refused, whatever the operator allows.
    plan = place.plan({"vda": top, "vdb": NEW_RAW}, code=3, options=("--overwrite",))
    codes = [one["code"] for one in plan["preflight"]["findings"] if one["severity"] == "blocker"]
    expect(codes == ["same-storage"], f"a disk may be copied onto itself: {codes}")
    place.check(top, "qcow2", place.bed.a, "vda")


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


if __name__ == "__main__":
    run_cases("live", (
        raw, qcow2, two_disks, back, memory, keep_source, paused, slow, commands, plan, ssh_raw, ssh_qcow2, shared, all_shared,
        all_shared_undone, not_shared))
