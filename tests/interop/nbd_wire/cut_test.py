"""Connections that break: reset, half open or silent, at every point of a conversation."""

import os
import resource
import socket
import struct
import time
import unittest

from server import main, Server, until
from wire import (
    ACK, Client, Closed, DISK_BYTES, EINVAL, EXPORT_NAME, GO, LIST, MIB, OPT_MAGIC, READ, STATUS, STRUCTURED, WRITE, go)


class OverTcp(Client):
    """The same client on TCP, where a connection can be reset."""

    def __init__(self, port, flags=3):
        self.port = port
        super().__init__("", flags)

    def connect_socket(self, _):
        return socket.create_connection(("127.0.0.1", self.port))

    def reset(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()


class Cuts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--listen", "nbd://127.0.0.1:0", "--verbose")
        cls.at_rest = cls.sockets()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    @classmethod
    def sockets(cls):
        folder = f"/proc/{cls.server.process.pid}/fd"
        count = 0
        for name in os.listdir(folder):
            try:
                count += os.readlink(os.path.join(folder, name)).startswith("socket:")
            except FileNotFoundError:
                pass
        return count

    def tearDown(self):
        c = self.server.patient_client().go()
        self.assertEqual(c.read(0, 4), (0, b"\0\1\2\3"))
        c.close()
        until(lambda: self.sockets() == self.at_rest, "connections are left over")

    def connect(self, flags=3):
        return OverTcp(self.server.port, flags)

    def test_reset_in_the_handshake(self):
        for sent in (b"", b"IHAVEOPT", struct.pack(">QII", OPT_MAGIC, GO, 1000) + b"x", struct.pack(">QII", OPT_MAGIC, LIST, 0) * 100):
            c = self.connect()
            c.send(sent)
            c.reset()
        c = OverTcp(self.server.port, None)
        c.reset()

    def test_reset_in_a_payload(self):
        for style in ("simple", "structured", "extended"):
            for length, sent in ((4096, 1), (65536, 65535), (4 * MIB, 0), (4 * MIB, 3 * MIB)):
                c = self.connect().go(style=style)
                c.request(WRITE, MIB, length, payload=b"z" * sent)
                c.reset()
        c = self.server.client().go()
        self.assertEqual(c.read(MIB, 4 * MIB), (0, b"\0" * 4 * MIB))  # a torn payload is not written
        c.close()

    def test_reset_in_a_reply(self):
        for style in ("simple", "structured", "extended"):
            c = self.connect().go(style=style, queries=("base:allocation",) if style != "simple" else ())
            for _ in range(8):
                c.request(READ, 0, 4 * MIB)
                if style != "simple":
                    c.request(STATUS, 0, DISK_BYTES)
            c.take(100)
            c.reset()

    def test_half_open(self):
        """Clients that send nothing more but go on reading, and clients that sent their end at once."""
        for flags in (None, 3):
            c = self.connect(flags)
            c.s.shutdown(socket.SHUT_WR)
            if flags is None:
                c.take(18)
            self.assertTrue(c.is_closed())
            c.close()
        c = self.connect()
        c.option(GO, go("disk"))
        c.s.shutdown(socket.SHUT_WR)
        while c.reply()[1] != ACK:
            pass
        self.assertTrue(c.is_closed())
        c.close()

    def test_silence_in_the_handshake_ends_and_others_are_served_meanwhile(self):
        begun = time.monotonic()
        silent = [self.connect(None), self.connect(), self.connect(), self.connect()]
        silent[2].send(b"I")
        silent[3].option(GO, b"", 1000)
        for c in silent:
            c.s.settimeout(0.2)
        open_still = set(silent)
        while open_still:
            other = self.server.client().go()
            self.assertEqual(other.read(0, 4096)[0], 0)
            other.close()
            for c in list(open_still):
                try:
                    if c.s.recv(64) == b"":
                        open_still.remove(c)
                except TimeoutError:
                    pass
                except ConnectionError:
                    open_still.remove(c)
            self.assertLess(time.monotonic() - begun, 25)
        self.assertGreater(time.monotonic() - begun, 9)
        for c in silent:
            c.close()


class Crowd(unittest.TestCase):
    def test_a_thousand_at_once(self):
        server = Server("--max-connections", "500")
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        good = server.client().go()
        before = server.memory_kib()
        crowd = [Client(server.path, None) for _ in range(1000)]
        greeted = 0
        for c in crowd:
            try:
                c.take(18)
                greeted += 1
            except Closed:
                pass
        self.assertEqual(greeted, 499)
        self.assertEqual(good.read(0, 4096)[0], 0)
        self.assertLess(server.memory_kib() - before, 64 << 10)
        for c in crowd:
            c.close()
        good.close()
        c = server.patient_client().go()
        self.assertEqual(c.read(0, 4096)[0], 0)
        c.close()
        self.assertLess(server.errors().count("\n"), 20)
        self.assertLess(server.stop(), 10)


if __name__ == "__main__":
    main()
