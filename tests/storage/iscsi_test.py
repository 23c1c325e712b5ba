#!/usr/bin/env python3
"""What only iSCSI has: who may log in, whose reservation it is, LUNs that are exchanged, and what blocks and holes they have.

    iscsi_test.py PROGRAM [CASE...]        no CASE: all
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
TESTBED = HERE.parents[1] / "scripts" / "testbed"
sys.path[:0] = [str(HERE), str(TESTBED)]

from faults_test import DATA_BYTES, DISK_BYTES, HANG_SECONDS, Place, ends, expect  # noqa: E402
from processes import start, stop, stop_all, wait_until  # noqa: E402
from report import Failed, say  # noqa: E402
from storage.iscsi import TARGET_ID, Iscsi  # noqa: E402
from storage_base import PATIENT, with_keys  # noqa: E402
from iscsi_storage import PASSWORD, USER, IscsiStorage  # noqa: E402

KEY_OF_OURS = "0xdf"
ENDS_WITHIN = 60
CUTS = 6
CONNECTIONS = ("--mode", "conn", "--tid", TARGET_ID)
PASSWORD_VARIABLE = "DISKFERRY_ISCSI_PASSWORD"
OTHER_HOST = ("unshare", "--pid", "--fork", "--kill-child")  # its processes are none that ours can see


class Writer:
    """An export that has the LUN open for writing, as long as it runs."""

    def __init__(self, place, uri, prefix=()):
        self._socket = place.folder / "nbd.sock"
        self._socket.unlink(missing_ok=True)
        self.process = start(*prefix, place.program, "export", "--writable", "-f", "raw", "--listen", f"unix:{self._socket}", uri,
                             env=place.environment(), stdout=subprocess.DEVNULL)
        wait_until(lambda: self._socket.exists() or self.process.poll() is not None, "the export being up")
        expect(self.process.poll() is None, f"the export of {uri} ended")

    def write(self):
        """Whether a client can write through it."""
        done = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 64k", f"nbd+unix:///?socket={self._socket}"],
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=ENDS_WITHIN, check=False)
        return done.returncode == 0 and "wrote" in done.stdout

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self):
        stop(self.process)


def expect_refused(place, uri, text, code=3, environment=None):
    done = subprocess.run(place.command(place.disk, uri, "--no-create"), env=environment or place.environment(), text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=ENDS_WITHIN, check=False)
    said = done.stdout + done.stderr
    expect(done.returncode == code, f"exit {done.returncode} instead of {code}: {said}")
    expect(text in said, f"no '{text}' in: {said}")
    expect(PASSWORD not in said, f"the password is in: {said}")
    return said


def expect_copied(place, uri, *options):
    code, said = place.copy(place.disk, uri, "--no-create", *options)
    expect(code == 0, f"exit {code}: {said}")
    place.expect_target("disk.raw")
    return said


def passwords(place):
    """By the environment; never in the URI, and nowhere told."""
    place.storage.make_room("disk.raw", DISK_BYTES)
    bare = place.storage.uri("disk.raw").split("?", maxsplit=1)[0]
    expect_refused(place, bare, "there is no password", code=2)
    shown = bare.replace(f"{USER}@", f"{USER}:{PASSWORD.replace(' ', '%20')}@")
    said = expect_refused(place, shown, "can be seen by everybody", code=2)
    expect(PASSWORD.replace(" ", "%20") not in said, f"the password is in: {said}")
    os.environ[PASSWORD_VARIABLE] = PASSWORD
    try:
        expect_copied(place, bare)
    finally:
        del os.environ[PASSWORD_VARIABLE]


def mutual(place):
    """The target proves itself, or nothing is written there."""
    server = place.storage.server
    with Iscsi(place.folder / "m", size=DISK_BYTES, user=USER, password=PASSWORD, target_user="bob",
               target_password="secret of bob") as both:
        uri = with_keys(both.uri().replace("//", f"//{USER}@"),
                        {"password-file": both.password_file, "target-user": "bob",
                         "target-password-file": both.target_password_file})
        expect_refused(place, uri.replace("target-user=bob", "target-user=carol"), "does not prove")
        forged = place.folder / "forged"
        forged.write_text("another secret", encoding="ascii")
        expect_refused(place, uri.replace(str(both.target_password_file), str(forged)), "does not prove")
        expect_refused(place, uri.replace(str(both.target_password_file), str(both.password_file)), "same password", code=2)
        place.storage.make_room("disk.raw", DISK_BYTES)
        one_way = with_keys(place.storage.uri("disk.raw"),
                            {"target-user": "bob", "target-password-file": both.target_password_file})
        expect_refused(place, one_way, "refuses the user or the password")
        place.storage.server, place.storage.file = both, lambda _: both.image(1)
        try:
            expect_copied(place, uri)
        finally:
            place.storage.server = server


def reserved(place):
    """Another host's reservation is respected, in a plan, too; reading goes on; stolen, it lets nobody else write."""
    place.storage.write("disk.raw", place.disk)
    uri = place.storage.uri("disk.raw")
    writer = Writer(place, uri, OTHER_HOST)
    expect(writer.write(), "who has reserved the LUN cannot write")
    said = expect_refused(place, uri, "has reserved it")
    expect(KEY_OF_OURS in said and "steal-reservation" in said, f"it does not say what to do: {said}")
    code, said = place.plan(place.disk, uri, "--no-create")
    expect(code == 3 and "has reserved it" in said, f"plan: exit {code}: {said}")
    code, said = place.copy(uri, place.result)
    expect(code == 0, f"reading, exit {code}: {said}")
    copy = place.begin(place.disk, uri + "&steal-reservation=yes", "--no-create")
    copy.in_the_middle()
    expect(not writer.write(), "who has lost the reservation can write")
    code, said = copy.end()
    expect(code == 0, f"exit {code}: {said}")
    place.expect_target("disk.raw")
    expect(not writer.write(), "who has lost the reservation can write after that")
    writer.kill()


def left_behind(place):
    """What a process of this host holds is respected while it runs, and not longer."""
    place.storage.make_room("disk.raw", DISK_BYTES)
    uri = place.storage.uri("disk.raw")
    writer = Writer(place, uri)
    expect_refused(place, uri, f"process {writer.process.pid} of this host writes to it")
    writer.kill()
    expect_copied(place, uri)
    writer = Writer(place, uri)
    writer.end()
    expect_copied(place, uri)
    # Nothing of all these is left at the target: whoever is on another host may write.
    other = Writer(place, uri, OTHER_HOST)
    expect(other.write(), "a LUN that nobody uses cannot be written")
    other.kill()


def outlived(place):
    """Silent for longer than a session may be: it is given up, and comes back when the target does."""
    keys = {**PATIENT, "stall-timeout": 1, "connect-timeout": 1}
    copy = place.begin(*ends(place, keys, True), "--no-create")
    copy.in_the_middle()
    place.storage.server.hang()
    timer = threading.Timer(HANG_SECONDS, place.storage.server.cont)
    timer.start()
    code, said = copy.end()
    timer.join()
    expect(code == 0, f"exit {code}: {said}")
    expect("copied again" not in said, f"a target that kept its power lost nothing: {said}")
    place.expect_target("disk.raw")


def sessions_of(server):
    return set(re.findall(r"Session: (\d+)", server.tgtadm(*CONNECTIONS, "--op", "show")))


def cut(place):
    """One session is cut, and then another: what they had in flight is done by them once more, and nothing is lost."""
    copy = place.begin(*ends(place, PATIENT, True), "--no-create")
    copy.in_the_middle()
    seen = set()
    for _ in range(CUTS):
        # The oldest, once it is another one than before.
        sessions = wait_until(lambda: sessions_of(place.storage.server) - seen, "a session having come back")
        seen.add(min(sessions, key=int))
        place.storage.server.tgtadm(*CONNECTIONS, "--op", "delete", "--sid", min(sessions, key=int), "--cid", 0)
    code, said = copy.end()
    expect(code == 0, f"exit {code}: {said}")
    expect("copied again" not in said, f"a target that kept its power lost nothing: {said}")
    place.expect_target("disk.raw")


def is_deleted(server, number):
    try:
        server.del_lun(number)
    except Failed as failure:
        if "still active" in str(failure):
            return False
        raise
    return True


def taken_away(place):
    """A LUN that is offline, and then not there for a while."""
    copy = place.begin(*ends(place, PATIENT, True), "--no-create")
    copy.in_the_middle()
    server, number = place.storage.server, place.storage.number("disk.raw")
    server.set_lun(number, online=False)
    # A new LUN gets its serial number a moment after it is there: nobody looks at it before.
    access = ("--mode", "target", "--tid", TARGET_ID, "--initiator-address", server.address)
    server.tgtadm("--op", "unbind", *access)
    wait_until(lambda: is_deleted(server, number), "the LUN being idle, and deleted")
    place.storage.make_room("disk.raw", DISK_BYTES)
    server.tgtadm("--op", "bind", *access)
    code, said = copy.end()
    expect(code == 0, f"exit {code}: {said}")
    place.expect_target("disk.raw")


def exchanged(place):
    """Another LUN under the same number is not written to."""
    copy = place.begin(*ends(place, PATIENT, True), "--no-create")
    copy.in_the_middle()
    other = place.storage.file("disk.raw")
    place.storage.server.set_lun(place.storage.number("disk.raw"), serial="another")
    place.storage.server.kill9()
    place.storage.lose("disk.raw")
    place.storage.server.start()
    code, said = copy.end()
    expect(code != 0 and "another LUN has this number" in said, f"exit {code}: {said}")
    with open(other, "rb") as file:
        expect(not any(file.read()), "the other LUN was written to")


def holes(place):
    """Of a thin LUN only what has data is read, and a copy onto one stays as thin."""
    place.storage.write("disk.raw", place.disk)
    code, said = place.copy(place.storage.uri("disk.raw"), place.result, "--json")
    expect(code == 0, f"exit {code}: {said}")
    report = json.loads("".join(line for line in said.splitlines(keepends=True) if '"phase"' not in line))
    expect(DATA_BYTES <= report["read"] < DATA_BYTES + DISK_BYTES // 8, f"{report['read']} bytes were read")
    place.expect_file()
    place.storage.make_room("other.raw", DISK_BYTES)
    code, said = place.copy(place.disk, place.storage.uri("other.raw"), "--no-create")
    expect(code == 0, f"exit {code}: {said}")
    used = place.storage.file("other.raw").stat().st_blocks * 512
    expect(used < DATA_BYTES + DISK_BYTES // 8, f"{used} bytes are in use")


def large_blocks(place):
    """Blocks of 4096 bytes, both ways."""
    place.storage.make_room("disk.raw", DISK_BYTES, block_size=4096)
    expect_copied(place, place.storage.uri("disk.raw"))
    place.result.unlink()
    code, said = place.copy(place.storage.uri("disk.raw"), place.result)
    expect(code == 0, f"exit {code}: {said}")
    place.expect_file()


def thick(place):
    """Without provisioning, full of something else before; and headers are protected."""
    with open(place.storage.file("disk.raw"), "wb") as file:
        file.write(b"\xa5" * DISK_BYTES)
    place.storage.make_room("disk.raw", DISK_BYTES, thin=False)
    expect_copied(place, place.storage.uri("disk.raw", {"header-digest": "crc32c"}))


CASES = {case.__name__: case for case in (passwords, mutual, reserved, left_behind, outlived, cut, taken_away, exchanged, holes,
                                          large_blocks, thick)}


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    failed = 0
    for name in sys.argv[2:] or CASES:
        try:
            with tempfile.TemporaryDirectory(prefix="df-") as folder:
                with Place(sys.argv[1], IscsiStorage, folder) as place:
                    CASES[name](place)
            say(f"iscsi.{name}: passed")
        except Failed as failure:
            failed += 1
            say(f"iscsi.{name}: FAILED: {failure}")
        finally:
            stop_all()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
