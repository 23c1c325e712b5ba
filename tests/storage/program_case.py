"""The program `diskferry` in a folder of its own: what the cases about sources share.

    DISKFERRY_PROGRAM=PATH python3 X_test.py [CASE...]
"""

import ctypes
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

PROGRAM = os.environ["DISKFERRY_PROGRAM"]
LIMIT_S = 120
MIB = 1 << 20


def wait_until(what, condition, limit_s=60):
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit_s} s: {what}")
        time.sleep(0.02)


def children_of(pid):
    """Process ids of the children of all threads."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(one) for one in task.read_text().split()]
        except OSError:
            pass
    return found


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def started(pid):
    """When it was started, in ticks since the machine was; process ids begin anew when they are used up."""
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def command_line(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def knock(port):
    """In the place of a server that is away: waits until somebody connects, and sends him away."""
    with socket.create_server(("127.0.0.1", port)) as door:
        door.settimeout(60)
        door.accept()[0].close()


def connections_to(port):
    """Our ends of the TCP connections to this port of this host, made and being made."""
    ends = set()
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if int(remote.partition(":")[2], 16) == port and state in ("01", "02"):
            ends.add(local)
    return ends


def wait_for_connections(port, count=2):
    """Until so many connections were made from now on: with a server that answers none, all but the first of them because
    a request was given up and sent again."""
    known, seen = connections_to(port), set()
    def look():
        seen.update(connections_to(port) - known)
        return len(seen) >= count
    wait_until(f"{count} connections were made", look)


def landlock_version():
    """0: there is none; 4 (Linux 6.7) knows ports."""
    create_ruleset, ask_version = 444, 1
    return max(0, ctypes.CDLL(None).syscall(create_ruleset, None, 0, ask_version))


class Copy:
    """`diskferry copy` in the background, slowly, with its progress."""

    def __init__(self, *words, env=None, prefix=(PROGRAM,), pass_fds=()):
        self.process = subprocess.Popen([*prefix, "copy", "--progress", "json", "--no-verify", *words],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, pass_fds=pass_fds)
        self.errors = ""
        self.report = ""
        self.done_bytes = 0
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            if line.startswith("{"):
                event = json.loads(line)
                if event.get("phase") == "copy":
                    self.done_bytes = event["done"]
            else:
                self.errors += line

    def wait_for_bytes(self, count):
        wait_until(f"{count} bytes copied: {self.errors}",
                   lambda: self.done_bytes >= count or self.process.poll() is not None)
        assert self.process.poll() is None, f"the copy has ended: {self.errors}"

    def wait(self):
        code = self.process.wait(LIMIT_S)
        self.reader.join()
        self.report = self.process.stdout.read()
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        return self.wait()

    def children(self, with_words=b""):
        return [one for one in children_of(self.process.pid) if is_alive(one) and with_words in command_line(one)]

    def child(self, with_words=b""):
        """The qemu-nbd (with this in its arguments) that was started last, once there is one."""
        found = []
        def look():
            try:
                found[:] = sorted(self.children(with_words), key=started)
            except OSError:
                return False  # it has ended meanwhile
            return found
        wait_until("there is a qemu-nbd", look)
        return found[-1]


class ProgramCase(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="foreign-"))
        self.folder.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "images").mkdir()
        self.images = self.folder / "images"
        self.env = {**os.environ, "XDG_STATE_HOME": str(self.folder / "state")}

    def needs_root(self, what):
        self.assertEqual(os.geteuid(), 0, f"this test has to be run as root: {what}")

    def diskferry(self, *words, code=0, env=None, cwd=None, prefix=(PROGRAM,)):
        ran = subprocess.run([*prefix, *map(os.fsencode, map(str, words))], capture_output=True, timeout=LIMIT_S,
                             env={**self.env, **(env or {})}, cwd=cwd)
        ran.stdout, ran.stderr = (text.decode(errors="backslashreplace") for text in (ran.stdout, ran.stderr))
        self.assertIn(ran.returncode, code if isinstance(code, tuple) else (code,), f"{words}: {ran.stderr}{ran.stdout}")
        return ran

    def refused(self, *words, code=3, says=(), **options):
        """One line on stderr which says all of `says`."""
        ran = self.diskferry(*words, code=code, **options)
        self.assertEqual(ran.stderr.count("\n"), 1, ran.stderr)
        for text in [says] if isinstance(says, str) else says:
            self.assertIn(text, ran.stderr)
        return ran.stderr

    def tool(self, *words):
        ran = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=LIMIT_S, check=False)
        self.assertEqual(ran.returncode, 0, f"{words}: {ran.stderr}{ran.stdout}")
        return ran.stdout

    def make_raw(self, path, size=8 * MIB, seed=1):
        """Data and holes; a size that is no multiple of much."""
        random_bytes = random.Random(seed).randbytes
        with open(path, "wb") as file:
            for offset in range(0, size, 2 * MIB):
                file.seek(offset)
                file.write(random_bytes(MIB))
            file.truncate(size)
        return path

    def same_bytes(self, path, other):
        self.tool("cmp", path, other)
