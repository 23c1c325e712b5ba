"""Many clients, slow ones and greedy ones, and the end while they are there."""

import fcntl
import os
import select
import signal
import struct
import termios
import time
import unittest

from server import main, Server, until
from wire import Client, Closed, GO, LIMIT, MIB, OPT_MAGIC, READ, STATUS, WRITE


def taken(client):
    """The server has read all that was sent."""
    return struct.unpack("i", fcntl.ioctl(client.s, termios.TIOCOUTQ, b"\0" * 4))[0] == 0


def until_quiet(condition):
    """It holds, and has held for as long as the server needs to do what it can do about it."""
    since = None

    def is_quiet():
        nonlocal since
        if not condition():
            since = None
        elif since is None:
            since = time.monotonic()
        return since is not None and time.monotonic() - since > 0.3

    until(is_quiet, "the server goes on")


class Crowds(unittest.TestCase):
    """Each with a server of its own."""

    def test_two_hundred_at_once(self):
        server = Server()
        clients = []
        for _ in range(200):
            c = Client(server.path, None)
            clients.append(c)
        inside = 0
        for c in clients:
            try:
                c.take(18)
                inside += 1
            except Closed:
                pass
        self.assertEqual(inside, 100)
        for c in clients:
            c.close()
        self.assertEqual(server.patient_client().go().read(0, 4)[0], 0)
        self.assertLess(server.stop(), 5)

    def test_a_byte_a_second_does_not_hold_the_door(self):
        server = Server()
        begun = time.monotonic()
        c = server.client()
        for _ in range(20):
            try:
                c.send(b"I")
            except ConnectionError:
                break
            if select.select([c.s], [], [], 1)[0]:
                break
        took = time.monotonic() - begun
        self.assertTrue(9 < took < 18, took)  # twenty where each byte bought time
        self.assertTrue(c.is_closed())
        self.assertLess(server.stop(), 5)

    def greedy(self, server, style, request, count):
        """Clients that send requests until the server takes no more, and read nothing."""
        clients = []
        for _ in range(count):
            c = server.client().go(style=style, queries=("base:allocation", "qemu:allocation-depth"))
            c.s.setblocking(False)
            clients.append(c)
        sent = 0

        def takes_no_more():
            nonlocal sent
            before = sent
            for c in clients:
                try:
                    while True:
                        request(c)
                        sent += 1
                except (BlockingIOError, ConnectionError):
                    pass
            return sent == before

        until_quiet(takes_no_more)
        return clients

    def test_replies_nobody_reads_cost_little(self):
        # A disk of small islands: every status is as long as one can be.
        server = Server(islands=8000)
        before = server.memory_kib()
        clients = self.greedy(server, "structured", lambda c: c.request(STATUS, 0, 8000 * 8192), 20)
        grown = server.memory_kib() - before
        self.assertLess(grown, 20 * 4096)
        good = server.client().go()
        for _ in range(100):
            self.assertEqual(good.read(0, 65536)[0], 0)
        for c in clients:
            c.close()
        self.assertLess(server.stop(), 15)

    def test_reads_nobody_takes_leave_memory_for_others(self):
        server = Server()
        clients = self.greedy(server, "structured", lambda c: c.request(READ, 0, 8 * MIB), 40)
        self.assertLess(server.memory_kib(), 1 << 19)
        good = server.client().go()
        for _ in range(20):
            self.assertEqual(good.read(0, 500000)[0], 0)
            self.assertEqual(good.do(WRITE, 0, 4096, payload=b"q" * 4096), 0)
        # They stop with half a payload sent, while others wait for memory to begin one.
        for c in clients:
            try:
                c.request(WRITE, 0, 8 * MIB, payload=b"w" * MIB)
            except (BlockingIOError, ConnectionError):
                pass
        took = server.stop()
        self.assertLess(took, 16)
        for c in clients:
            c.close()

    def test_the_end_does_not_wait_for_writers_without_memory(self):
        server = Server()
        clients = []
        for _ in range(14):  # all the memory that sessions share, in replies that nobody reads
            c = server.client().go()
            c.request(READ, 0, 8 * MIB)
            clients.append(c)
        until_quiet(lambda: all(taken(c) for c in clients))
        for _ in range(4):  # the session's own memory, and then a write that has to wait for it
            c = server.client().go()
            c.request(READ, 0, 500000)
            c.request(WRITE, 0, 500000)
            clients.append(c)
        until_quiet(lambda: all(taken(c) for c in clients))
        self.assertLess(server.stop(), 16)
        for c in clients:
            c.close()

    def test_the_end_answers_what_was_taken_and_closes_cleanly(self):
        server = Server("--fault", "any,delay=300ms")
        c = server.client().go()
        for cookie in range(400):  # more than are taken at once: the rest lies there unread
            c.request(WRITE, 8192 * cookie, 4096, payload=bytes([1 + cookie % 255]) * 4096, cookie=cookie)
        self.assertTrue(select.select([c.s], [], [], LIMIT)[0])
        server.process.send_signal(signal.SIGTERM)
        answers = b""
        while got := c.s.recv(65536):  # up to the end of the stream; a reset would raise
            answers += got
            try:
                c.request(WRITE, 8192 * 400, 4096, payload=b"n" * 4096, cookie=400)  # and more keep coming
            except ConnectionError:
                pass
        self.assertEqual(len(answers) % 16, 0)
        cookies = []
        for magic, error, cookie in struct.iter_unpack(">IIQ", answers):
            self.assertEqual((magic, error), (0x67446698, 0))  # never ESHUTDOWN
            cookies.append(cookie)
        self.assertGreaterEqual(len(cookies), 128)
        with open(os.path.join(server.folder, "disk"), "rb") as disk:
            for cookie in cookies:
                disk.seek(8192 * cookie)
                self.assertEqual(disk.read(4096), (b"n" if cookie == 400 else bytes([1 + cookie % 255])) * 4096)
        c.close()
        server.process.wait(LIMIT)
        server.stop()

    def test_the_end_flushes_and_says_when_that_failed(self):
        server = Server("--fault", "flush,fail=io")
        c = server.client().go()
        self.assertEqual(c.do(WRITE, 0, 4096, payload=b"x" * 4096), 0)
        c.close()
        server.process.send_signal(signal.SIGTERM)
        self.assertNotEqual(server.process.wait(LIMIT), 0)
        self.assertIn("flush", server.errors())
        self.assertRaises(AssertionError, server.stop)

    def test_the_end_with_clients_in_every_state(self):
        server = Server()
        states = [server.client(None), server.client(), server.client()]
        states[2].send(struct.pack(">QII", OPT_MAGIC, GO, 1000) + b"x")
        inside = server.client().go()
        half = server.client().go()
        half.request(WRITE, 0, 4 * MIB, payload=b"x" * 100)
        header = server.client().go()
        header.send(b"\x25\x60")
        self.assertLess(server.stop(), 5)
        for c in states + [inside, half, header]:
            c.close()


if __name__ == "__main__":
    main()
