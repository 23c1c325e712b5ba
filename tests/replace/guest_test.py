#!/usr/bin/env python3
"""The storage under a real guest is replaced again and again, while the gateway and the servers fail under it.

    guest_test.py PROGRAMS CACHE [CASE...]        no CASE: all of them

REPLACES in the environment says how many changes of places a case makes. The guest writes numbered blocks; at the end every write that
was acknowledged must be there, and the guest must never have seen an error.
"""

import contextlib
import itertools
import json
import os
import pathlib
import random
import sys
import tempfile
import time

TESTBED = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "testbed"
sys.path[:0] = [str(TESTBED)]

from live_guest import DISK_BYTES, Gateway, LocalGuest, make_disk  # noqa: E402
from processes import wait_until  # noqa: E402
from report import Failed, say  # noqa: E402
from storage.ceph import Ceph  # noqa: E402
from storage.iscsi import Iscsi  # noqa: E402
from storage.nfs import Nfs  # noqa: E402

WRITES_BETWEEN = 40
PAUSE = ("--max-pause", "2000")  # a busy machine may take its time over what is held
JOB_SECONDS = 180


class Place:
    """A guest that writes to an export, and where its disk can go."""

    def __init__(self, programs, cache, folder, stack):
        self.folder = pathlib.Path(folder)
        self.first = self.folder / "first.raw"
        make_disk(self.first)
        self.gateway = Gateway(programs, folder, self.first)
        self.gateway.start()
        stack.callback(self.gateway.stop)
        self.guest = LocalGuest(folder, cache, self.gateway, rate=400)
        stack.callback(self.guest.stop)
        self.guest.wait_writing(WRITES_BETWEEN)

    def begin(self, target, *options):
        return self.gateway.ask("replace", "vm", target, "--detach", *PAUSE, *options).strip()

    def job(self, name):
        return json.loads(self.gateway.ask("status", name, "--json"))

    def wait_for(self, job, *phases, resumes=False):
        """`resumes` it where a fault has paused it."""
        def come():
            found = self.job(job)
            if found["status"] in ("failed", "rolled-back"):
                raise Failed(f"the job failed: {found['error']}")
            if resumes and found["status"] == "paused":
                self.gateway.ask("resume", job)
                return None
            return found if found["phase"] in phases else None

        return wait_until(come, f"the job being {' or '.join(phases)}", JOB_SECONDS)

    def restart_gateway(self):
        self.gateway.kill()
        self.gateway.start()

    def finish(self, image):
        self.guest.wait_writing(WRITES_BETWEEN)
        self.guest.stop()
        self.gateway.stop()
        found = self.guest.check(image)
        say(f"  {found['acknowledged']} acknowledged writes are there")


def replaces(usual):
    return int(os.environ.get("REPLACES", usual))


def target_of(kind, number, folder, servers):
    """The URI of a new one of that kind; of iSCSI, the LUN with that number."""
    if kind in ("file", "qcow2"):
        return f"{folder}/next{number}.{'raw' if kind == 'file' else kind}"
    if kind == "iscsi":
        return servers[kind].uri(number)
    return servers[kind].uri(f"next{number}.raw" if kind == "nfs" else f"next{number}")


def around(programs, cache, folder, stack):
    """From file to file and qcow2, NFS and iSCSI, and on."""
    nfs = stack.enter_context(Nfs(pathlib.Path(folder) / "nfs"))
    iscsi = stack.enter_context(Iscsi(pathlib.Path(folder) / "iscsi", size=0))
    place = Place(programs, cache, folder, stack)
    for number, kind in zip(range(1, replaces(6) + 1), itertools.cycle(("file", "nfs", "qcow2", "iscsi"))):
        if kind == "iscsi":
            iscsi.add_lun(number, DISK_BYTES + (3 << 20))  # larger than the disk, which stays what it is
        target = target_of(kind, number, folder, {"nfs": nfs, "iscsi": iscsi})
        told = place.gateway.replace(target, *PAUSE, *(("--overwrite",) if kind == "iscsi" else ("--remove-source",) if kind != "file" else ()))
        say(f"  {number}: onto {kind}, writes held {told['hold']['total-us'] / 1000:.1f} ms")
        place.guest.wait_writing(WRITES_BETWEEN)
        if kind == "iscsi":
            place.restart_gateway()
            place.guest.wait_writing(WRITES_BETWEEN)
    last = f"{folder}/last.raw"
    place.gateway.replace(last, *PAUSE)
    place.finish(last)


def killed(programs, cache, folder, stack):
    """The gateway is killed in every phase and started again: the guest waits, and the job goes on."""
    place = Place(programs, cache, folder, stack)
    chance = random.Random(7)
    image = place.first
    for number in range(1, replaces(3) + 1):
        image = f"{folder}/next{number}.raw"
        job = place.begin(image, "--retain", "600", "--rate", "24M", "--commit-by-hand")
        for _ in range(2):
            place.guest.wait_writing(chance.randrange(5, WRITES_BETWEEN))
            place.restart_gateway()
        place.gateway.ask("set", job, "--rate", "0")
        place.wait_for(job, "synchronized")
        place.restart_gateway()
        place.wait_for(job, "synchronized")
        place.gateway.ask("commit", job)
        if number % 2:  # in the middle of the switchover, or right after it
            place.restart_gateway()
            if place.wait_for(job, "synchronized", "retained")["phase"] == "synchronized":
                place.gateway.ask("commit", job)
        place.wait_for(job, "retained")
        place.guest.wait_writing(WRITES_BETWEEN)
        place.restart_gateway()
        place.guest.wait_writing(WRITES_BETWEEN)
        place.gateway.ask("commit", job)
        place.wait_for(job, "released")
    place.finish(image)


def target_fails(programs, cache, folder, stack):
    """The target's server is killed, comes back later, and hangs: the guest never notices, and `resume` goes on."""
    nfs = stack.enter_context(Nfs(pathlib.Path(folder) / "nfs"))
    place = Place(programs, cache, folder, stack)
    target = nfs.uri("next.raw") + "&reconnect-timeout=2&stall-timeout=2"
    job = place.begin(target, "--rate", "8M")
    place.guest.wait_writing(WRITES_BETWEEN)
    nfs.kill9()
    wait_until(lambda: place.job(job)["status"] == "paused", "the job being paused", JOB_SECONDS)
    say(f"  paused: {place.job(job)['error']}")
    place.guest.wait_writing(WRITES_BETWEEN)
    nfs.start()
    place.gateway.ask("set", job, "--rate", "0")
    place.gateway.ask("resume", job)
    place.wait_for(job, "released")
    place.guest.wait_writing(WRITES_BETWEEN)
    last = f"{folder}/last.raw"
    place.gateway.replace(last, *PAUSE)
    place.finish(last)


def gateway_dies(place, _):
    place.restart_gateway()
    place.guest.wait_writing()


def server_dies(_, server):
    server.kill9()
    server.start()


def old_server_dies(place, server):
    """Of the storage that the guest is on: what it had acknowledged and not flushed is written again."""
    server_dies(place, server)
    place.guest.wait_writing()


@contextlib.contextmanager
def hanging(server):
    server.hang()
    try:
        yield
    finally:
        server.cont()


def server_hangs(place, server):
    with hanging(server):
        place.guest.wait_writing(WRITES_BETWEEN)


def guest_waits(place, server):
    """For the storage it is on."""
    with hanging(server):
        wait_until(lambda: time.monotonic() - place.guest.console.acks[-1].time > 2, "the guest waiting for its storage")
    place.guest.wait_writing(WRITES_BETWEEN)


def nothing(*_):
    pass


def between(programs, cache, folder, stack):
    """Between files, qcow2, NFS, iSCSI and Ceph and back. In each round something fails while the disk is copied, and something when it
    changes places: the gateway, the target's server, or that of the storage that the guest is on is killed, or hangs."""
    servers = {"nfs": Nfs(pathlib.Path(folder) / "nfs"), "iscsi": Iscsi(pathlib.Path(folder) / "iscsi", size=0),
               "ceph": Ceph(pathlib.Path(folder) / "ceph")}
    for server in servers.values():
        stack.enter_context(server)
    servers["iscsi"].add_lun(1, DISK_BYTES)
    kinds = ("file", "ceph", "nfs", "qcow2", "iscsi")
    place = Place(programs, cache, folder, stack)
    chance = random.Random(int(os.environ.get("SEED", "11")))
    now = "first"
    for number in range(1, replaces(6) + 1):
        kind = kinds[number % len(kinds)] if number <= len(kinds) else chance.choice([one for one in kinds if one != now])
        # The LUN is what it was the last time; all else is removed once the disk has left it.
        target = target_of(kind, 1 if kind == "iscsi" else number, folder, servers)
        options = ("--overwrite",) if kind == "iscsi" else ()
        leave = () if now in ("first", "iscsi") else ("--remove-source",)
        job = place.begin(target, "--commit-by-hand", "--rate", "24M", *options, *leave)
        first = chance.choice([nothing, gateway_dies] + ([server_dies, server_hangs] if kind in servers else []) +
                              ([old_server_dies] if now in servers else []))
        second = chance.choice([nothing, gateway_dies] + ([server_dies] if kind in servers else []) +
                               ([old_server_dies] if now in servers else []))
        place.wait_for(job, "bulk", "delta", "synchronized")  # one whose target does not answer before that is given up
        place.guest.wait_writing(chance.randrange(1, WRITES_BETWEEN))
        first(place, servers.get(now if first is old_server_dies else kind))
        place.gateway.ask("set", job, "--rate", "0")
        place.wait_for(job, "synchronized", resumes=True)
        place.gateway.ask("commit", job)
        second(place, servers.get(now if second is old_server_dies else kind))
        if second is gateway_dies and place.wait_for(job, "synchronized", "released", resumes=True)["phase"] == "synchronized":
            place.gateway.ask("commit", job)  # who had heard it is gone
        place.wait_for(job, "released", resumes=True)
        place.guest.wait_writing(WRITES_BETWEEN)
        say(f"  {number}: {now} -> {kind}; {first.__name__}, {second.__name__}")
        if now in servers and chance.random() < 0.3:
            server_dies(place, servers[now])  # nobody needs it any more
        if kind in servers and chance.random() < 0.6:
            chance.choice([guest_waits, server_dies])(place, servers[kind])
            place.guest.wait_writing(WRITES_BETWEEN)
        now = kind
    last = f"{folder}/last.raw"
    place.gateway.replace(last, *PAUSE)
    place.finish(last)


CASES = {case.__name__: case for case in (around, killed, target_fails, between)}


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    failed = 0
    for name in sys.argv[3:] or CASES:
        with tempfile.TemporaryDirectory(prefix="df-") as folder:
            try:
                with contextlib.ExitStack() as stack:
                    CASES[name](sys.argv[1], sys.argv[2], folder, stack)
                say(f"replace.{name}: passed")
            except Failed as failure:
                failed += 1
                log = pathlib.Path(folder) / "diskferryd.log"
                told = log.read_text(encoding="utf-8", errors="replace")[-3000:] if log.exists() else ""
                say(f"replace.{name}: FAILED: {failure}\n{told}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
