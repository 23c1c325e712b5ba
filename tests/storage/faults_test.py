#!/usr/bin/env python3
"""What `diskferry copy` does when a storage fails under it, on real servers.

    faults_test.py PROGRAM STORAGE [CASE...]        no CASE: the names of all

`onto` has the storage as the target, `from` as the source. HANG_SECONDS in the environment says for how long a server hangs.
"""

import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
TESTBED = HERE.parents[1] / "scripts" / "testbed"
sys.path[:0] = [str(HERE), str(TESTBED)]

from processes import run, wait_until  # noqa: E402
from report import Failed, say  # noqa: E402
from storage_base import IMPATIENT, MIB, PATIENT  # noqa: E402
from storages import STORAGES  # noqa: E402

DISK_BYTES = 48 * MIB
DATA_BYTES = 32 * MIB   # the rest is a hole
FAULT_BYTES = 8 * MIB   # so much is copied when something happens
RATE = "16M"            # bytes a second: slow enough to be met in the middle
SMALL_BYTES = 96 * MIB  # a store that can be filled
LEFT_BYTES = 12 * MIB
HANG_SECONDS = float(os.environ.get("HANG_SECONDS", "3"))
ENDS_WITHIN = 60


def expect(condition, what):
    if not condition:
        raise Failed(what)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Place:
    """A folder with a disk to copy, a storage, and the state of our own copies."""

    def __init__(self, program, kind, folder, small=0):
        self.program = program
        self.folder = pathlib.Path(folder)
        self.disk = self.folder / "disk.raw"
        self.result = self.folder / "result.raw"
        self.storage = kind(self.folder / "s", small)
        with open(self.disk, "wb") as file:
            file.write(random.Random(4).randbytes(DATA_BYTES))
            file.truncate(DISK_BYTES)

    def __enter__(self):
        self.storage.server.__enter__()
        return self

    def __exit__(self, *_):
        self.storage.server.__exit__()

    def command(self, source, target, *options):
        formats = [] if {"-f", "-O"} & set(options) else ["-f", "raw", "-O", "raw"]
        return [self.program, "copy", *formats, "--progress", "json", *options, str(source), str(target)]

    def environment(self):
        return {**os.environ, "XDG_STATE_HOME": str(self.folder / "state")}

    def copy(self, source, target, *options):
        """A whole copy; its exit code and what it said."""
        done = subprocess.run(self.command(source, target, *options), env=self.environment(), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=ENDS_WITHIN, check=False)
        return done.returncode, done.stdout + done.stderr

    def plan(self, source, target, *options):
        done = subprocess.run([self.program, "plan", "copy", "--json", "-f", "raw", *options, str(source), str(target)],
                              env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=ENDS_WITHIN, check=False)
        return done.returncode, done.stdout

    def begin(self, source, target, *options):
        return Copy(self.command(source, target, "--rate", RATE, *options), self.environment())

    def expect_target(self, volume):
        self.storage.read(volume, self.result)
        expect(digest(self.result) == digest(self.disk), f"{volume} is not what was copied")

    def expect_file(self):
        expect(digest(self.result) == digest(self.disk), "the file is not what was copied")


class Copy:
    """A copy that runs, and how far it is."""

    def __init__(self, command, environment):
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, text=True)
        self._done = 0
        self._said = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self._said.append(line)
            if line.startswith("{") and '"phase"' in line:
                now = json.loads(line)
                self._done = now["done"] if now["phase"] == "copy" else self._done

    @property
    def said(self):
        return "".join(line for line in self._said if not line.startswith("{"))

    def in_the_middle(self):
        wait_until(lambda: self._done >= FAULT_BYTES or self._process.poll() is not None, "the copy being in the middle")
        expect(self._process.poll() is None, f"the copy ended too early: {self.said}")

    def pause(self):
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self._process.send_signal(signal.SIGCONT)

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self.end()

    def end(self):
        try:
            code = self._process.wait(ENDS_WITHIN + HANG_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise Failed(f"the copy does not end: {self.said}") from None
        self._reader.join()
        return code, self.said


def ends(place, keys, onto):
    """Source and target of a copy in the one direction or the other."""
    volume = place.storage.uri("disk.raw", keys)
    if onto:
        place.storage.make_room("disk.raw", DISK_BYTES)
        return place.disk, volume
    place.storage.write("disk.raw", place.disk)
    return volume, place.result


def options_for(place, onto):
    """A volume that we cannot create is there and is used as it is."""
    return () if place.storage.creates or not onto else ("--no-create",)


def expect_copied(place, onto):
    if onto:
        place.expect_target("disk.raw")
    else:
        place.expect_file()


def restarted(place, onto):
    """Killed in the middle and back after it: the copy goes on."""
    copy = place.begin(*ends(place, PATIENT, onto), *options_for(place, onto))
    copy.in_the_middle()
    place.storage.server.kill9()
    place.storage.server.start()
    code, said = copy.end()
    expect(code == 0, f"exit {code}: {said}")
    expect_copied(place, onto)


def lost(place):
    """Killed in the middle, and what it had not made durable is lost: it is copied again."""
    source, target = ends(place, PATIENT, True)
    copy = place.begin(source, target, *options_for(place, True))
    copy.in_the_middle()
    place.storage.server.kill9()
    place.storage.lose("disk.raw")
    place.storage.server.start()
    code, said = copy.end()
    expect(code == 0, f"exit {code}: {said}")
    expect("copied again" in said, f"it does not say that something was copied again: {said}")
    place.expect_target("disk.raw")


def hung(place, onto):
    """Silent for a while: the copy goes on."""
    copy = place.begin(*ends(place, PATIENT, onto), *options_for(place, onto))
    copy.in_the_middle()
    place.storage.server.hang()
    timer = threading.Timer(HANG_SECONDS, place.storage.server.cont)
    timer.start()
    code, said = copy.end()
    timer.join()
    expect(code == 0, f"exit {code}: {said}")
    expect_copied(place, onto)


def gone(place, onto):
    """Gone for good: an error within the deadline, and --resume finishes when it is back."""
    source, target = ends(place, IMPATIENT, onto)
    copy = place.begin(source, target, *options_for(place, onto))
    copy.in_the_middle()
    place.storage.server.kill9()
    code, said = copy.end()
    expect(code == 1, f"exit {code}: {said}")
    expect("--resume" in said, f"it does not say how to go on: {said}")
    place.storage.server.start()
    code, said = place.copy(source, target, "--resume", *options_for(place, onto))
    expect(code == 0, f"resumed, exit {code}: {said}")
    expect('"resumed": 0' not in said, f"nothing was kept: {said}")
    expect_copied(place, onto)


def killed(place, onto):
    """We are killed: --resume finishes."""
    source, target = ends(place, PATIENT, onto)
    copy = place.begin(source, target, *options_for(place, onto))
    copy.in_the_middle()
    copy.kill()
    code, said = place.copy(source, target, "--resume", *options_for(place, onto))
    expect(code == 0, f"resumed, exit {code}: {said}")
    expect_copied(place, onto)


def full(place):
    """Full: an error that says so, and --resume finishes when there is space."""
    source, target = ends(place, PATIENT, True)
    place.storage.fill(LEFT_BYTES)
    code, said = place.copy(source, target, *options_for(place, True))
    expect(code == 1, f"exit {code}: {said}")
    expect("free space" in said and "--resume" in said, f"it does not say what to do: {said}")
    place.storage.free()
    code, said = place.copy(source, target, "--resume", *options_for(place, True))
    expect(code == 0, f"resumed, exit {code}: {said}")
    place.expect_target("disk.raw")


def images(place):
    """A qcow2 image onto the storage, and from it back to a raw file."""
    volume = place.storage.uri("disk.qcow2")
    place.storage.make_room("disk.qcow2", DISK_BYTES + DISK_BYTES // 8)
    code, said = place.copy(place.disk, volume, "-O", "qcow2", *(() if place.storage.creates else ("--overwrite",)))
    expect(code == 0, f"onto, exit {code}: {said}")
    image = place.folder / "image.qcow2"
    place.storage.read("disk.qcow2", image)
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, place.result)
    place.expect_file()
    place.result.unlink()
    code, said = place.copy(volume, place.result, "-f", "qcow2")
    expect(code == 0, f"from, exit {code}: {said}")
    place.expect_file()


def same(place):
    """One volume under two names is not copied onto itself."""
    place.storage.write("disk.raw", place.disk)
    code, said = place.copy(place.storage.uri("disk.raw"), place.storage.second_name("disk.raw"), "--overwrite")
    expect(code == 3 and "same image" in said, f"exit {code}: {said}")
    place.expect_target("disk.raw")


def refused(place):
    """What cannot be is refused before anything is changed, with the reason."""
    for what, uri, text in place.storage.refusals():
        code, said = place.copy(place.disk, uri, *options_for(place, True))
        expect(code == 3, f"{what}: exit {code}: {said}")
        expect(text in said.lower(), f"{what}: no '{text}' in: {said}")
        expect(not list((place.folder / "state").rglob("*.ledger")), f"{what}: a ledger is left")
        say(f"  {what}: {said.strip().splitlines()[-1]}")
        code, said = place.plan(place.disk, uri, *options_for(place, True))
        expect(code == 3, f"plan: {what}: exit {code}: {said}")
        expect(any(text in blocker.lower() for blocker in json.loads(said)["blockers"]), f"plan: {what}: no '{text}' in {said}")
    uri, text = place.storage.missing()
    code, said = place.copy(uri, place.result)
    expect(code == 3 and text in said.lower(), f"missing source: exit {code}: {said}")
    expect(not place.result.exists(), "the target of a copy without a source was made")


def version4(place):
    """By NFSv4, from it only."""
    place.storage.write("disk.raw", place.disk)
    code, said = place.copy(place.storage.server.uri("disk.raw", version=4), place.result)
    expect(code == 0, f"exit {code}: {said}")
    place.expect_file()


CASES = {f"{way}.{case.__name__}": (case, way == "onto") for case in (restarted, hung, gone, killed) for way in ("onto", "from")}
CASES |= {case.__name__: (case, None) for case in (lost, full, images, same, refused, version4)}


def run_case(program, kind, name):
    case, onto = CASES[name]
    with tempfile.TemporaryDirectory(prefix="df-") as folder:
        with Place(program, kind, folder, SMALL_BYTES if case is full else 0) as place:
            case(place) if onto is None else case(place, onto)
    say(f"{kind.name}.{name}: passed")


def main():
    if len(sys.argv) < 3 or sys.argv[2] not in STORAGES:
        sys.exit(__doc__)
    names = sys.argv[3:] or [name for name in CASES if name != "version4" or sys.argv[2] == "nfs"]
    failed = 0
    for name in names:
        try:
            run_case(sys.argv[1], STORAGES[sys.argv[2]], name)
        except Failed as failure:
            failed += 1
            say(f"{sys.argv[2]}.{name}: FAILED: {failure}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
