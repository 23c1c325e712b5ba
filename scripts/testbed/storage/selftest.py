#!/usr/bin/env python3
"""The storage servers test themselves with Debian's own clients: data outlive crashes, hangs end, full is full, strangers are
refused, nothing is left.

    selftest.py [ceph | iscsi | nfs | gluster]...      all of them by default, side by side
"""

import concurrent.futures
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from processes import run, wait_until  # noqa: E402
from report import Failed, say  # noqa: E402
from storage.selftest_block import OfCeph, OfIscsi  # noqa: E402
from storage.selftest_common import (DISK_BYTES, WRITTEN_BYTES, expect, expect_ends_well, expect_refused,  # noqa: E402
                                     expect_waiting, processes_of)
from storage.selftest_files import OfGluster, OfNfs  # noqa: E402

KINDS = {kind.name: kind for kind in (OfCeph(), OfIscsi(), OfNfs(), OfGluster())}
USER = """if True:
    import sys
    sys.path.insert(0, sys.argv[1])
    from storage import selftest
    with selftest.KINDS[sys.argv[2]].server(sys.argv[3]) as server:
        print("up", flush=True)
        sys.stdin.read()
"""


def expect_nothing_left(server, outside):
    expect(not processes_of(server.folder), f"left: {processes_of(server.folder)}")
    left = [file for file in [server.folder, *outside] if os.path.lexists(file)]
    expect(not left, f"left: {left}")
    expect(str(server.folder) not in pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8"), "a mount is left")


class Disk:
    """A disk on the server, written and compared by qemu-img."""

    def __init__(self, server, kind, folder):
        self.target = kind.target(server)
        self.environment = kind.client_environment(server)
        self.source = folder / f"{server.KIND}.raw"
        with open(self.source, "wb") as out:
            out.write(random.randbytes(WRITTEN_BYTES))
            out.truncate(DISK_BYTES)

    def write(self):
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", self.source, self.target, env=self.environment)

    def compare(self):
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", self.source, self.target, env=self.environment)

    def start_compare(self):
        return subprocess.Popen(["qemu-img", "compare", "-f", "raw", "-F", "raw", self.source, self.target],
                                env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)


def front(server, verb):
    """The command for shells. Its output is read to the end: a program that kept it open would let us wait."""
    return run(sys.executable, HERE.parent / server.KIND, verb, server.folder, timeout=60)


def try_crash(server, disk):
    disk.write()
    disk.compare()
    # What compares must be able to differ.
    with open(disk.source, "r+b") as out:
        first = out.read(1)[0]
        out.seek(0)
        out.write(bytes([first ^ 1]))
        out.flush()
        expect_refused(disk.compare, "exit 1", "other data are taken for the same")
        out.seek(0)
        out.write(bytes([first]))
    old = server.pids()
    server.kill9()
    expect(not server.pids() and not server.is_alive(), f"alive after kill -9: {server.pids()}")
    began = time.monotonic()
    server.start()
    took = time.monotonic() - began
    new = server.pids()
    expect(new.keys() == old.keys() and not set(new.values()) & set(old.values()), f"{old} became {new}")
    disk.compare()
    server.start()
    expect(server.pids() == new, "a start of what is up started something")
    return took


def try_hang(server, disk):
    server.hang()
    reader = disk.start_compare()
    try:
        expect_waiting(reader, "a client of a hung server")
        server.cont()
        expect_ends_well(reader, "what waited for a hung server")
    finally:
        server.cont()
        reader.kill()
        reader.wait(10)
    # A hung server is ended, too.
    server.hang()


def try_stop(server, disk):
    server.stop()
    expect(not processes_of(server.folder), f"running after stop: {processes_of(server.folder)}")
    expect_refused(lambda: front(server, "status"), "exit 3", "the front end says that a stopped server is up")
    front(server, "start")
    expect(front(server, "status").count("up pid") == len(server.pids()) > 0, "the front end says that a server is down")
    expect(str(server.folder) in front(server, "env") or server.uri() in front(server, "env"), "the front end has no variables")
    disk.compare()


def try_folder(server, folder):
    """What is somebody else's stays, and a server is not taken for another one."""
    kind = type(server)
    expect_refused(lambda: kind(folder / ("x" * 80)), "too long", "a folder is taken whose sockets would have too long names")
    foreign = folder / "foreign"
    foreign.mkdir()
    (foreign / "letters").touch()
    expect_refused(kind(foreign).start, "neither empty nor", "a server starts among foreign files")
    kind(foreign).destroy()
    expect((foreign / "letters").exists(), "foreign files are destroyed")
    option, value = next((name, default) for name, (default, _) in kind.OPTIONS.items() if type(default) is int)
    expect_refused(kind(server.folder, **{option: value + 1}).start, "was made with", "options are forgotten")


def try_kill_of_the_user(kind, folder):
    """A test that is killed leaves no server."""
    with subprocess.Popen([sys.executable, "-c", USER, HERE.parent, kind.name, folder], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as user:
        expect(user.stdout.readline() == b"up\n", "the server of another process does not start")
        server = kind.server(folder)
        outside = kind.outside(server)
        expect(server.is_alive(), "a server is not seen by another process")
        user.send_signal(signal.SIGKILL)
    wait_until(lambda: not folder.exists() and not processes_of(folder), "the end of a server whose user was killed")
    expect_nothing_left(server, outside)


def try_kind(name, folder):
    kind = KINDS[name]
    folder.mkdir()
    began = time.monotonic()
    with kind.server(folder / "main") as server:
        first = time.monotonic() - began
        kind.prepare(server)
        disk = Disk(server, kind, folder)
        again = try_crash(server, disk)
        memory = sum(daemon.memory_kib() for daemon in server.daemons.values()) / 1024
        try_hang(server, disk)
        try_stop(server, disk)
        say(f"{name}: up in {first:.2f} s, after kill -9 in {again:.2f} s, {memory:.0f} MiB; crash, hang and stop lose nothing")
        try_folder(server, folder)
        kind.try_own(server)
        outside = kind.outside(server)
    expect_nothing_left(server, outside)
    try_kill_of_the_user(kind, folder / "other")
    say(f"{name}: nothing is left")


def main():
    names = sys.argv[1:] or list(KINDS)
    if unknown := set(names) - set(KINDS):
        raise Failed(f"no such server: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="st-") as folder, concurrent.futures.ThreadPoolExecutor() as pool:
        for one in [pool.submit(try_kind, name, pathlib.Path(folder) / name) for name in names]:
            one.result()


if __name__ == "__main__":
    started = time.monotonic()
    try:
        main()
    except Failed as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        sys.exit(1)
    say(f"passed in {time.monotonic() - started:.0f} s")
