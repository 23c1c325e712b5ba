"""Requests and their answers, in every style of reply."""

import socket
import struct
import unittest

from server import main, Server, Shared
from wire import (
    CACHE, DF, DISC, DISK_BYTES, EINVAL, ENOSPC, ENOTSUP, EPERM, FAST, FLUSH, FUA, MIB, NO_HOLE, PAYLOAD, READ,
    REQ_ONE, STATUS, TRIM, WRITE, ZERO)


class Requests(Shared):
    styles = ("simple", "structured", "extended")

    def each_style(self, **kw):
        for style in self.styles:
            with self.subTest(style=style):
                queries = ("base:allocation",) if style != "simple" else ()
                yield self.connect().go(style=style, queries=queries)

    def test_the_odd_tail(self):
        for c in self.each_style():
            self.assertEqual(c.size, DISK_BYTES)
            self.assertEqual(c.do(WRITE, DISK_BYTES - 3, 3, payload=b"abc"), 0)
            self.assertEqual(c.read(DISK_BYTES - 4, 4), (0, b"\0abc"))
            self.assertEqual(c.do(ZERO, DISK_BYTES - 3, 3), 0)

    def test_out_of_range(self):
        for c in self.each_style():
            for offset, length in ((DISK_BYTES, 1), (DISK_BYTES - 1, 2), (2**63, 1), (2**64 - 1, 1), (2**64 - 1, 4096)):
                self.assertEqual(c.read(offset, length)[0], EINVAL)
                for command in (TRIM, CACHE):
                    self.assertEqual(c.do(command, offset, length), EINVAL)
                self.assertEqual(c.do(ZERO, offset, length), ENOSPC)
                self.assertEqual(c.do(WRITE, offset, length, payload=b"x" * length), ENOSPC)
                if c.style != "simple":
                    self.assertEqual(c.status(offset, length)[0], EINVAL)
            if c.style == "extended":
                for command, error in ((READ, EINVAL), (TRIM, EINVAL), (ZERO, ENOSPC), (CACHE, EINVAL), (STATUS, EINVAL)):
                    self.assertEqual(c.do(command, 1, 2**64 - 1), error)
                    self.assertEqual(c.do(command, 4096, 2**63), error)

    def test_nothing_at_all(self):
        for c in self.each_style():
            for command in (READ, WRITE, TRIM, CACHE, ZERO, FLUSH):
                for offset in (0, 1, DISK_BYTES):
                    if command != FLUSH or offset == 0:
                        self.assertIn(c.do(command, offset, 0), (0, EINVAL))
            if c.style != "simple":
                self.assertEqual(c.do(STATUS, 0, 0), EINVAL)
            self.assertEqual(c.read(1, 2), (0, b"\1\2"))

    def test_unknown_commands_and_flags(self):
        for c in self.each_style():
            for command in (8, 9, 100, 0xFFFF):
                self.assertEqual(c.do(command, 0, 512), EINVAL)
            for flag in (1 << 6, 1 << 15, NO_HOLE, REQ_ONE):
                self.assertEqual(c.do(READ, 0, 512, flags=flag), EINVAL)
            for flag in (1 << 6, 1 << 15, NO_HOLE, REQ_ONE, DF, FAST):
                self.assertEqual(c.do(WRITE, 0, 512, flags=flag, payload=b"x" * 512), EINVAL)
            if c.style == "simple":
                self.assertEqual(c.do(READ, 0, 512, flags=DF), EINVAL)
                self.assertEqual(c.do(STATUS, 0, 512), EINVAL)
            self.assertEqual(c.read(0, 3), (0, b"\0\1\2"))  # nothing was written

    def test_fua_everywhere(self):
        for c in self.each_style():
            for command in (TRIM, CACHE, ZERO, FLUSH):
                self.assertEqual(c.do(command, 0 if command == FLUSH else 131072, 0 if command == FLUSH else 4096, flags=FUA), 0)
            self.assertEqual(c.do(WRITE, 131072, 512, flags=FUA, payload=b"y" * 512), 0)
            self.assertEqual(c.read(131072, 2, flags=FUA), (0, b"yy"))

    def test_sizes_over_the_limit(self):
        for c in self.each_style():
            self.assertEqual(c.do(TRIM, 200000, DISK_BYTES - 200000), 0)
            self.assertEqual(c.read(0, 33 * MIB)[0], EINVAL)
            self.assertEqual(c.do(WRITE, 0, 40 * MIB, payload=b"\1" * (40 * MIB)), EINVAL)
            self.assertEqual(c.read(0, 3), (0, b"\0\1\2"))
            try:
                c.request(WRITE, 0, 100 * MIB)
            except ConnectionError:
                pass
            self.assertTrue(c.is_closed())

    def test_wrong_magic_ends_it(self):
        for c in self.each_style():
            c.request(READ, 0, 4, magic=0x12345678)
            self.assertTrue(c.is_closed())
        c = self.connect().go(style="extended")
        c.style = "structured"
        c.request(READ, 0, 4)
        c.send(b"\0" * 4)
        self.assertTrue(c.is_closed())

    def test_status(self):
        for style in ("structured", "extended"):
            c = self.connect().go(style=style, queries=("base:allocation", "qemu:allocation-depth"))
            error, found = c.status(0, DISK_BYTES)
            self.assertEqual((error, sorted(found)), (0, sorted(c.contexts.values())))
            self.assertGreater(max(len(runs) for runs in found.values()), 1)
            for offset, length in ((100, 512), (0, DISK_BYTES)):
                for runs in c.status(offset, length, REQ_ONE)[1].values():
                    self.assertEqual(len(runs), 1)
                    self.assertLessEqual(runs[0][0], length)
            self.assertEqual(c.status(DISK_BYTES - 1, 1)[0], 0)
            for flags in (0, REQ_ONE):
                for offset, length in ((0, 0), (DISK_BYTES, 0), (DISK_BYTES, 1), (DISK_BYTES - 1, 2), (2**64 - 1, 1)):
                    self.assertEqual(c.status(offset, length, flags)[0], EINVAL)

    def test_filtered_status(self):
        c = self.connect().go(style="extended", queries=("base:allocation", "qemu:allocation-depth"))
        self.assertTrue(c.flags & 1 << 12)
        one, two = c.contexts.values()
        error, found = c.status(0, DISK_BYTES, payload=struct.pack(">QI", DISK_BYTES, two))
        self.assertEqual((error, list(found)), (0, [two]))
        head = struct.pack(">Q", 4096)
        for bad in (b"", b"x", head, head + b"xyz", head + struct.pack(">II", one, one),
                    head + struct.pack(">I", 77), struct.pack(">QI", 0, one), struct.pack(">QI", 2**64 - 1, one),
                    head + struct.pack(">I", one) * 4000, b"\0" * MIB):
            self.assertEqual(c.status(0, 4096, payload=bad)[0], EINVAL, bad[:20])
        self.assertEqual(c.status(2**63, 4096, payload=struct.pack(">QI", 4096, one))[0], EINVAL)
        for command in (READ, TRIM, ZERO, CACHE, FLUSH, 100):
            self.assertEqual(c.do(command, 0, 512, flags=PAYLOAD, payload=b"\0" * 512), EINVAL)
        self.assertEqual(c.read(0, 3), (0, b"\0\1\2"))

    def test_fast_zero(self):
        for c in self.each_style():
            self.assertIn(c.do(ZERO, 65536, 65536, flags=FAST), (0, ENOTSUP, EINVAL))
            self.assertEqual(c.do(ZERO, 300000, 1, flags=NO_HOLE), 0)

    def test_disc_answers_what_came_before(self):
        for c in self.each_style():
            for cookie in range(50):
                c.request(READ, 0, 65536, cookie=cookie)
            c.request(DISC)
            seen = set()
            if c.style == "simple":
                for _ in range(50):
                    seen.add(struct.unpack(">IIQ", c.take(16))[2])
                    c.take(65536)
            else:
                data = b""
                while True:
                    got = c.s.recv(MIB)
                    if not got:
                        break
                    data += got
                head = 20 if c.style == "structured" else 32
                at = 0
                while at < len(data):
                    seen.add(struct.unpack(">Q", data[at + 8 : at + 16])[0])
                    at += head + struct.unpack(">I", data[at + head - 4 : at + head])[0]
            self.assertEqual(seen, set(range(50)))
            self.assertTrue(c.is_closed())

    def test_a_half_closed_client_gets_its_answers(self):
        c = self.connect().go()
        for _ in range(20):
            c.request(READ, 0, 65536)
        c.s.shutdown(socket.SHUT_WR)
        for _ in range(20):
            self.assertEqual(c.chunk()[1], 0)
            c.take(65536)
        self.assertTrue(c.is_closed())

    def test_dying_inside_a_large_write(self):
        for style in self.styles:
            for sent in (0, 1, 65535, 3 * MIB):
                c = self.connect().go(style=style)
                c.request(WRITE, MIB, 4 * MIB, payload=b"z" * sent)
                c.close()
        self.assertEqual(self.connect().go().read(0, 3), (0, b"\0\1\2"))


class Nothing(unittest.TestCase):
    def test_an_export_of_no_bytes(self):
        server = Server(disk_bytes=0)
        for style in Requests.styles:
            c = server.client().go(style=style, queries=("base:allocation",) if style != "simple" else ())
            self.assertEqual(c.size, 0)
            self.assertEqual(c.read(0, 0)[0], 0)
            self.assertEqual(c.read(0, 1)[0], EINVAL)
            for length in (1, 65536):
                self.assertEqual(c.do(WRITE, 0, length, payload=b"x" * length), ENOSPC)
                self.assertEqual(c.do(ZERO, 0, length), ENOSPC)
                self.assertEqual(c.do(TRIM, 0, length), EINVAL)
                self.assertEqual(c.do(CACHE, 0, length), EINVAL)
            self.assertEqual(c.do(FLUSH), 0)
            if style != "simple":
                self.assertEqual((c.status(0, 0)[0], c.status(0, 1)[0], c.status(0, 1, REQ_ONE)[0]), (EINVAL,) * 3)
            c.close()
        self.assertLess(server.stop(), 5)


class ReadOnly(Shared):
    writable = False

    def test_changes_are_refused_and_their_payload_consumed(self):
        for style in Requests.styles:
            c = self.connect().go(style=style)
            self.assertTrue(c.flags & 2)
            for length in (0, 1, 512, 65536, 65537, 5 * MIB):
                self.assertEqual(c.do(WRITE, 0, length, payload=b"\0" * length), EPERM)
            self.assertEqual(c.do(ZERO, 0, 512), EPERM)
            self.assertEqual(c.do(TRIM, 0, 512), EPERM)
            self.assertEqual(c.do(FLUSH), 0)
            self.assertEqual(c.read(0, 3), (0, b"\0\1\2"))


if __name__ == "__main__":
    main()
