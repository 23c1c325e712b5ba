"""The program that is tested, as a server; it and its files end with the test process, however that ends."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from wire import Client, Closed, DISK_BYTES, LIMIT


def folder_until_our_end():
    """A shell that waits for the end of our pipe removes it. It leaves our family, for who ends a test that took too long
    ends its children too."""
    folder = tempfile.mkdtemp(prefix="diskferry-test-")
    ours_ends, _ = os.pipe()  # the other end stays open as long as we live
    subprocess.run(
        ["sh", "-c", "exec 3<&0; { trap '' INT TERM HUP; cat; for try in 1 2 3 4 5 6 7 8 9; do "
         "rm -rf -- \"$1\" && break; sleep 0.1; done; } <&3 3<&- &", "sh", folder],
        stdin=ours_ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    os.close(ours_ends)
    return folder


FOLDER = folder_until_our_end()


def until(condition, what):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


class Server:
    program = ""

    def __init__(self, *arguments, images=("disk", "other"), writable=True, islands=0, disk_bytes=DISK_BYTES):
        self.folder = tempfile.mkdtemp(dir=FOLDER)
        self.path = os.path.join(self.folder, "socket")
        command = ["setpriv", "--pdeathsig", "KILL", self.program, "export", "-f", "raw", "--listen", "unix:" + self.path]
        command += ["--writable"] if writable else []
        for name in images:
            file = os.path.join(self.folder, name)
            with open(file, "wb") as out:
                out.write(bytes(range(256)) * 256)
                out.truncate(max(disk_bytes, islands * 8192))
                for island in range(islands):
                    out.seek(island * 8192)
                    out.write(b"x" * 4096)
            command += ["--name", name]
        command += list(arguments) + [os.path.join(self.folder, name) for name in images]
        self.log = open(os.path.join(self.folder, "log"), "wb")
        # With AddressSanitizer, memory that was given back must not count as used.
        sanitizer = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=2:thread_local_quarantine_size_kb=64"
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, env=dict(os.environ, ASAN_OPTIONS=sanitizer))
        ready, _, _ = select.select([self.process.stdout], [], [], LIMIT)
        line = self.process.stdout.readline() if ready else b""
        assert line.startswith(b"READY"), self.errors()
        # Of a further address on TCP.
        self.port = next((int(port) for port in re.findall(rb"127\.0\.0\.1:(\d+)", line)), None)

    def errors(self):
        with open(os.path.join(self.folder, "log"), "rb") as log:
            return log.read().decode()

    def memory_kib(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    def client(self, flags=3):
        return Client(self.path, flags)

    def patient_client(self):
        """Also where clients that just left still fill the server."""
        clients = []

        def comes_in():
            try:
                clients.append(self.client())
            except Closed:
                return False
            return True

        until(comes_in, "the server stays full")
        return clients[0]

    def stop(self):
        """Seconds it took; the exit code must be 0."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()
            self.log.close()
        took = time.monotonic() - begun
        problems = self.errors()
        shutil.rmtree(self.folder)
        assert code == 0, (code, problems)
        return took


class Shared(unittest.TestCase):
    """One server for all tests of a class; after each it must still serve."""

    arguments = ()
    writable = True

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.arguments, writable=cls.writable)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def connect(self, flags=3):
        client = self.server.client(flags)
        self.addCleanup(client.close)
        return client

    def tearDown(self):
        if not self.arguments:
            self.assertEqual(self.server.patient_client().go().read(0, 4)[0], 0)


def main():
    """Of every test file: the program's path is the first argument, the rest are unittest's."""
    Server.program = sys.argv.pop(1)
    unittest.main(verbosity=1)
