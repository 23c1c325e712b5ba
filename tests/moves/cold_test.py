#!/usr/bin/env python3
"""A guest that is shut off goes to the other host, stays there or comes back, as its operator decides, and starts with every
write it was told of.

    cold_test.py PROGRAMS CACHE [CASE...]        no CASE: the names of all
"""

import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TESTBED = HERE.parents[1] / "scripts" / "testbed"
sys.path[:0] = [str(HERE), str(TESTBED / "hosts"), str(TESTBED)]

from cases import run_cases  # noqa: E402
from place import BOOT_SECONDS, IMAGES, expect  # noqa: E402
from processes import wait_until  # noqa: E402
from report import say  # noqa: E402

NEW_QCOW2 = f"{IMAGES}/new.qcow2"
SECOND_LIFE = 1_000_000


def shut_off(place, data_mib=2):
    """A guest on host a that has written, and was switched off. What it writes next time has higher numbers."""
    source = place.chain(data_mib=data_mib)
    place.guest(source)
    place.bed.a.virsh("destroy", "g1")
    place.vm.options["start"] = SECOND_LIFE
    place.bed.a.virsh("define", place.vm.write_xml())
    return source


def command(place, host, *words, code=0):
    done = subprocess.run(place.gateways.command(host, *words), capture_output=True, text=True, check=False, timeout=120,
                          stdin=subprocess.DEVNULL)
    said = done.stdout + done.stderr
    expect(done.returncode == code, f"diskferry {' '.join(words)}: exit {done.returncode} instead of {code}: {said}")
    return said


def expect_states(place, here, there):
    expect(place.states() == {"a": here, "b": there}, f"instead of {here}, {there}: {place.states()}")


def start_and_check(place, host, image, image_format):
    """The guest starts on this host, writes, and everything it was ever told of is there."""
    place.vm.check(image, image_format, host=host)
    host.virsh("start", "g1")
    wait_until(lambda: place.vm.acks[-1].last > SECOND_LIFE + 50, f"writes on {host}", BOOT_SECONDS)
    place.check(image, image_format, host)


def stays(place):
    """It goes over at once, with its machine type and CPU mapped to what the other host has."""
    shut_off(place)
    options = ("--cold", "--machine", "pc-i440fx-7.1", "--cpu", "Nehalem")
    place.begin({"vda": NEW_QCOW2}, options=options).wait_end(status="done")
    expect_states(place, None, "shut off")
    place.expect_nothing_left()
    definition = place.bed.b.virsh("dumpxml", "--inactive", "g1")
    expect("pc-i440fx-7.1" in definition and "Nehalem" in definition, f"nothing was mapped: {definition}")
    start_and_check(place, place.bed.b, NEW_QCOW2, "qcow2")


def commit(place):
    """It is looked at first; the gateway is killed and comes back, and then the source lets go."""
    shut_off(place)
    job = place.begin({"vda": NEW_QCOW2}, options=("--cold", "--keep-source"))
    job.wait_end(status="paused")
    expect_states(place, "shut off", "shut off")
    for host in place.bed.hosts:
        place.gateways.kill(host)
        place.gateways.start(host)
    say("both gateways were killed and started again")
    expect_states(place, "shut off", "shut off")
    command(place, place.bed.a, "migrate", "g1", "--revert", "--to", place.bed.b.uri, code=2)
    command(place, place.bed.a, "migrate", "g1", "--confirm")
    said = command(place, place.bed.a, "migrate", "g1", "--confirm", code=3)
    expect("no move of it has kept its source" in said, f"confirmed twice: {said}")
    expect_states(place, None, "shut off")
    expect(job.describe()["status"] == "done", f"the job after commit: {job.describe()}")
    place.expect_nothing_left()
    start_and_check(place, place.bed.b, NEW_QCOW2, "qcow2")


def fallback(place):
    """It is taken back, also after the gateways were killed; where it runs there already, that is refused."""
    source = shut_off(place)
    job = place.begin({"vda": NEW_QCOW2}, options=("--cold", "--keep-source"))
    job.wait_end(status="paused")
    place.bed.b.virsh("start", "g1")
    said = command(place, place.bed.a, "fallback", job.name, code=3)
    expect("runs on the other host" in said, f"why it is refused is not said: {said}")
    expect_states(place, "shut off", "running")
    place.bed.b.virsh("destroy", "g1")
    for host in place.bed.hosts:
        place.gateways.kill(host)
        place.gateways.start(host)
    command(place, place.bed.a, "fallback", job.name)
    expect_states(place, "shut off", None)
    place.expect_nothing_left(NEW_QCOW2)
    expect(job.describe()["status"] == "rolled-back", f"the job after fallback: {job.describe()}")
    say("taken back; and now for good, there and back again")
    place.begin({"vda": NEW_QCOW2}, options=("--cold",)).wait_end(status="done")
    back = place.begin({"vda": f"{IMAGES}/back.qcow2"}, source=place.bed.b, target=place.bed.a,
                       options=("--cold", "--keep-source"))
    back.wait_end(status="paused")
    command(place, place.bed.b, "migrate", "g1", "--revert")
    expect_states(place, None, "shut off")
    back = place.begin({"vda": f"{IMAGES}/back.qcow2"}, source=place.bed.b, target=place.bed.a, options=("--cold",))
    back.wait_end(status="done")
    expect_states(place, "shut off", None)
    expect(source, "the chain on host a has a name")
    start_and_check(place, place.bed.a, f"{IMAGES}/back.qcow2", "qcow2")


def killed(place):
    """The gateway is killed while it copies: the move is undone, and the next one succeeds."""
    source = shut_off(place, data_mib=12)
    place.bed.link(mbit=20)
    job = place.begin({"vda": NEW_QCOW2}, options=("--cold",))
    job.wait_phase("bulk")
    place.gateways.kill(place.bed.a)
    place.gateways.start(place.bed.a)
    place.bed.link()
    ended = job.wait_end()
    expect(ended["status"] in ("rolled-back", "failed"), f"the killed move is {ended['status']}")
    expect_states(place, "shut off", None)
    place.expect_nothing_left(NEW_QCOW2)
    place.vm.check(source, "qcow2", host=place.bed.a)
    place.begin({"vda": NEW_QCOW2}, options=("--cold",)).wait_end(status="done")
    expect_states(place, None, "shut off")
    start_and_check(place, place.bed.b, NEW_QCOW2, "qcow2")


if __name__ == "__main__":
    run_cases("cold", (stays, commit, fallback, killed))
