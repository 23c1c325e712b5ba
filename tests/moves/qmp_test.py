#!/usr/bin/env python3
"""Moves of machines without libvirt, by the monitors of their QEMUs: that they arrive with every write, and where they are when the
gateway that drives them is killed.

    qmp_test.py PROGRAMS CACHE [CASE...]        no CASE: the names of all
"""

import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TESTBED = HERE.parents[1] / "scripts" / "testbed"
sys.path[:0] = [str(HERE), str(TESTBED / "hosts"), str(TESTBED)]

from cases import run_cases  # noqa: E402
from guest import Disk  # noqa: E402
from place import BOOT_SECONDS, DISK_MIB, IMAGES, Place, expect  # noqa: E402
from processes import wait_until  # noqa: E402
from gateways import with_pause  # noqa: E402
from qmp_guest import MEMORY_PORT, SOCKETS, QmpGuest  # noqa: E402
from report import say  # noqa: E402

SLOW_MBIT = 20
BASE_MIB = 12
CONFIGURATION = f'qmp-sockets = "{SOCKETS}"\nwindow = "1M"\n'
ORDER = ["prepared", "bulk", "delta", "synchronized", "switching", "committed", "retained", "released"]


def credentials(endpoint):
    return "-object", f"tls-creds-x509,id=tls0,endpoint={endpoint},dir=/etc/pki/diskferry,verify-peer=on"


class QmpPlace(Place):
    """A place whose guest has no libvirt."""

    def __init__(self, programs, cache, keep=None):
        super().__init__(programs, cache, keep, more=CONFIGURATION)
        self.target = f"{IMAGES}/new.raw"

    def start(self, target_format="raw", data_mib=2, rate=100, tls=False):
        source = self.chain(data_mib=data_mib)
        self.target = f"{IMAGES}/new.{target_format}"
        self.vm = QmpGuest(self.bed, self.cache, rate=rate, verify=8, places={
            self.bed.a: [Disk("vda", source, "qcow2")], self.bed.b: [Disk("vda", self.target, target_format)]})
        self.vm.start(self.bed.a, *(credentials("client") if tls else ()))
        self.await_machine(target_format, *(credentials("server") if tls else ()))
        self.vm.wait_writing(100, timeout=BOOT_SECONDS)

    def await_machine(self, target_format="raw", *more):
        self.bed.b.run("qemu-img", "create", "-q", "-f", target_format, self.target, f"{DISK_MIB}M")
        self.vm.wait_for_it(self.bed.b, *more)

    def words(self, verb="migrate", *options):
        a, b = self.bed.a, self.bed.b
        words = [*verb.split(), f"qmp:{self.vm.monitor(a)}", "--to", self.vm.address(b), "--disk", f"vda={self.target}",
                 "--overwrite", "--memory-uri", f"tcp://{b.address}:{MEMORY_PORT}", *with_pause(options)]
        return self.gateways.command(a, *words)

    def diskferry(self, *words):
        return subprocess.run(self.words(*words), capture_output=True, text=True, check=False, timeout=180,
                              stdin=subprocess.DEVNULL)

    def move(self, *options):
        done = self.diskferry("migrate", "--detach", "--progress", "none", *options)
        expect(done.returncode == 0, f"diskferry migrate: exit {done.returncode}: {done.stderr.strip()} {done.stdout.strip()}")
        return self.follow(done.stdout.split()[-1])

    def states(self):
        """Of a source that has handed its machine over nothing is told: it is kept, and does not run."""
        states = super().states()
        return {short: None if state == "postmigrate" else state for short, state in states.items()}

    def expect_on(self, host, defined_elsewhere=False):
        found = self.where()
        expect(found is host, f"the guest runs on {found}: {self.states()}")
        self.vm.wait_writing(100)

    def expect_source_clean(self):
        """Nothing of a move that was undone is in the QEMU of the source."""
        expect(self.vm.ask(self.bed.a, "query-jobs") == [], "a mirror is left")
        nodes = [node["node-name"] for node in self.vm.ask(self.bed.a, "query-named-block-nodes")]
        expect(not any(name.startswith("diskferry") for name in nodes), f"a target is left: {nodes}")

    def finish(self, host):
        """The guest is on this host, alone, and every write is there."""
        self.expect_on(host)
        self.expect_nothing_left()
        if host is self.bed.a:
            self.expect_source_clean()
            self.check(f"{IMAGES}/g1.qcow2", "qcow2", host)
        else:
            expect(self.vm.state(self.bed.a) is None, "the QEMU on the source was not ended")
            self.check(self.target, self.target.rsplit(".", 1)[1], host)


def complete(place, *options):
    job = place.move(*options)
    ended = job.wait_end(status="done")
    phases = [phase for phase in ORDER if phase in job.phases()]
    expect(job.phases() == phases and phases[-1] == "released", f"phases out of order: {job.phases()}")
    pause = (ended.get("report") or {}).get("pause", {}).get("total-us", 0) / 1000
    say(f"moved; the guest stood still for {pause:.0f} ms")
    place.finish(place.bed.b)


def raw(place):
    place.start()
    planned = place.diskferry("plan migrate")
    say(planned.stdout.strip())
    expect(planned.returncode == 0 and "way: qmp (" in planned.stdout, f"the plan: {planned.stdout} {planned.stderr}")
    complete(place)


def qcow2(place):
    place.start("qcow2")
    complete(place, "--parallel", "2")


def tls(place):
    """The memory, encrypted with what the QEMUs were started with."""
    place.start(tls=True)
    complete(place, "--memory-tls")


def keep_source(place):
    """The QEMU of the source stands there, until it is told to let go."""
    place.start()
    job = place.move("--keep-source")
    job.wait_end(status="paused")
    place.expect_on(place.bed.b)
    expect(place.vm.state(place.bed.a) == "postmigrate", f"the source was not kept: {place.states()}")
    place.bed.a.run(place.gateways.programs / "diskferry", "commit", job.name)
    wait_until(lambda: place.vm.state(place.bed.a) is None, "the end of the QEMU on the source", 30)
    place.finish(place.bed.b)


def refused(place):
    """What must be seen before anything is changed: another folder, a QEMU that is not alike, a disk that was not named."""
    place.start()
    before = place.vm.state(place.bed.b)
    words = place.words("plan migrate")
    for change, code in (((place.vm.address(place.bed.b), "qmp://host-b/run/other.qmp"), "no-target"),
                         ((f"vda={place.target}", f"vda={IMAGES}/other.raw"), "target-place"),
                         ((f"vda={place.target}", f"vdx={place.target}"), "no-disk")):
        done = subprocess.run([word.replace(*change) for word in words], capture_output=True, text=True, check=False, timeout=60)
        expect(done.returncode == 3 or "blocker" in done.stdout, f"{change} is not refused: {done.stdout} {done.stderr}")
        expect(code in done.stdout, f"{change}: {code} is not named: {done.stdout} {done.stderr}")
    expect(place.vm.state(place.bed.b) == before, "the QEMU that waits was touched")
    complete(place)


def cancelled(place):
    place.start(data_mib=BASE_MIB, rate=60)
    place.bed.link(mbit=SLOW_MBIT)
    job = place.move()
    job.wait_phase("delta")
    place.bed.a.run(place.gateways.programs / "diskferry", "cancel", job.name)
    job.wait_end(status="cancelled")
    place.bed.link()
    expect(place.vm.state(place.bed.b) is None, "the QEMU on the target was not ended")
    # A second attempt, with a QEMU that waits anew.
    place.bed.b.run("rm", place.target)
    place.expect_source_clean()
    place.await_machine()
    complete(place)


def kill_source_gateway(place, phase, *hosts):
    """The gateway is killed in that phase, and the next one finds what is left of the move."""
    place.start(data_mib=BASE_MIB, rate=60)
    place.bed.link(mbit=SLOW_MBIT)
    job = place.move()
    job.wait_phase(phase, timeout=120)
    place.gateways.kill(place.bed.a)
    say(f"killed in {phase}: {place.states()}")
    place.bed.link()
    place.gateways.start(place.bed.a)
    ended = job.wait_end()
    host = place.where()
    say(f"{ended['status']} ({ended['phase']}): the guest is on {host}")
    expect(host in hosts, f"the guest runs on {host}")
    expect((ended["status"] == "done") == (host is place.bed.b), f"the guest runs on {host}, the move is {ended['status']}")
    place.finish(host)


def kill_bulk(place):
    kill_source_gateway(place, "bulk", place.bed.a)


def kill_delta(place):
    kill_source_gateway(place, "delta", place.bed.a)


def kill_stopped(place):
    kill_source_gateway(place, "synchronized", *place.bed.hosts)


def kill_switching(place):
    """It is written down that the guest is to run on the target; whether that was told is what nobody knows."""
    place.start()
    place.bed.link(delay_ms=300)
    job = place.move()
    job.wait_phase("switching", timeout=120)
    place.gateways.kill(place.bed.a)
    say(f"killed in switching: {place.states()}")
    place.bed.link()
    place.gateways.start(place.bed.a)
    job.wait_end(status="done")
    place.finish(place.bed.b)


def kill_memory(place):
    """The gateway is gone when the memory has gone over: QEMU cannot flush its mirror, gives up, and the guest goes on alone."""
    place.start()
    place.bed.link(mbit=SLOW_MBIT)
    job = place.move()
    job.wait_phase("delta")
    wait_until(lambda: (place.vm.ask(place.bed.a, "query-migrate") or {}).get("status") == "active", "memory on its way", 60)
    place.gateways.kill(place.bed.a)
    place.bed.link()
    wait_until(lambda: place.vm.ask(place.bed.a, "query-migrate").get("status") == "failed", "QEMU to give up", 60)
    place.vm.wait_writing(100)
    place.gateways.start(place.bed.a)
    job.wait_end(status="rolled-back")
    place.finish(place.bed.a)


def kill_target_qemu(place):
    place.start(data_mib=BASE_MIB, rate=60)
    place.bed.link(mbit=SLOW_MBIT)
    job = place.move()
    job.wait_phase("delta")
    place.vm.stop(place.bed.b)
    place.bed.link()
    job.wait_end(status="rolled-back")
    place.finish(place.bed.a)


if __name__ == "__main__":
    run_cases("qmp", (
        raw, qcow2, tls, keep_source, refused, cancelled, kill_bulk, kill_delta, kill_stopped, kill_switching,
        kill_memory, kill_target_qemu), lambda _case, *words, **options: QmpPlace(*words, **options))
