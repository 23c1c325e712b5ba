#!/usr/bin/env python3
"""The NBD server as a stranger sees it: bytes written by hand, from the protocol's text (doc/proto.md and the
text of the extended headers) and from nothing of this project. Run by ctest with the program's path as the
only argument; every wait has a limit, and a server that is too slow or says too much fails the test."""

import os
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

PROGRAM = ""
MIB = 1 << 20
DISK_BYTES = 8 * MIB + 1001
LIMIT = 20.0

OPT_MAGIC = 0x49484156454F5054
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO = 1, 2, 3, 5, 6, 7
STRUCTURED, LIST_META, SET_META, EXTENDED = 8, 9, 10, 11
ACK, REP_SERVER, REP_INFO, REP_META = 1, 2, 3, 4
ERR = 1 << 31
UNSUP, POLICY, INVALID, TLS_REQD, UNKNOWN, TOO_BIG, EXT_REQD = (ERR + n for n in (1, 2, 3, 5, 6, 9, 10))
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZERO, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST, PAYLOAD = (1 << n for n in range(6))
EPERM, EIO, EINVAL, ENOSPC, ENOTSUP = 1, 5, 22, 28, 95


class Closed(Exception):
    pass


class Client:
    def __init__(self, path, flags=3):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(LIMIT)
        end = time.monotonic() + LIMIT
        while True:
            try:
                self.s.connect(path)
                break
            except BlockingIOError:  # the server's backlog is full
                assert time.monotonic() < end
                time.sleep(0.001)
        self.style = "simple"
        self.contexts = {}
        if flags is not None:
            magic, option_magic, self.server_flags = struct.unpack(">QQH", self.take(18))
            assert magic == 0x4E42444D41474943 and option_magic == OPT_MAGIC
            self.send(struct.pack(">I", flags))

    def send(self, data):
        self.s.sendall(data)

    def take(self, count):
        data = b""
        while len(data) < count:
            try:
                got = self.s.recv(count - len(data))
            except ConnectionError:
                got = b""
            if not got:
                raise Closed(f"{len(data)} of {count}")
            data += got
        return data

    def is_closed(self):
        try:
            return self.s.recv(1) == b""
        except ConnectionError:
            return True

    def close(self):
        self.s.close()

    # Negotiation.
    def option(self, number, data=b"", length=None):
        self.send(struct.pack(">QII", OPT_MAGIC, number, len(data) if length is None else length) + data)

    def reply(self):
        magic, number, kind, length = struct.unpack(">QIII", self.take(20))
        assert magic == 0x3E889045565A9, hex(magic)
        assert length < MIB
        return number, kind, self.take(length)

    def ask(self, number, data=b""):
        """All replies to an option, up to the one that ends it."""
        self.option(number, data)
        replies = []
        while True:
            answered, kind, payload = self.reply()
            assert answered == number, (answered, number)
            replies.append((kind, payload))
            if kind == ACK or kind & ERR:
                return replies

    def result(self, number, data=b""):
        return self.ask(number, data)[-1][0]

    def select(self, name, queries):
        replies = self.ask(SET_META, meta(name, queries))
        if replies[-1][0] == ACK:
            self.contexts = {p[4:].decode(): struct.unpack(">I", p[:4])[0] for _, p in replies[:-1]}
        return replies

    def go(self, name="disk", style="simple", queries=()):
        if style != "simple":
            assert self.result(STRUCTURED if style == "structured" else EXTENDED) == ACK
        self.style = style
        if queries:
            assert self.select(name, queries)[-1][0] == ACK
        replies = self.ask(GO, go(name))
        assert replies[-1][0] == ACK, replies
        for kind, payload in replies[:-1]:
            if kind == REP_INFO and payload[:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", payload[2:])
        return self

    # Transmission.
    def request(self, command, offset=0, length=0, flags=0, payload=b"", cookie=7, magic=None):
        if self.style == "extended":
            if command == WRITE and not flags & PAYLOAD:
                flags |= PAYLOAD
            head = struct.pack(">IHHQQQ", magic or 0x21E41C71, flags, command, cookie, offset, length)
        else:
            head = struct.pack(">IHHQQI", magic or 0x25609513, flags, command, cookie, offset, length)
        self.send(head + payload)

    def chunk(self, cookie=7):
        """(is it the last, its type, its payload); a simple reply has the type of its error, negated."""
        magic = struct.unpack(">I", self.take(4))[0]
        if magic == 0x67446698 and self.style != "extended":
            error, answered = struct.unpack(">IQ", self.take(12))
            assert answered == cookie, (answered, cookie)
            return True, -error, b""
        if self.style == "extended":
            assert magic == 0x6E8A278C, hex(magic)
            flags, kind, answered, _, length = struct.unpack(">HHQQQ", self.take(28))
        else:
            assert magic == 0x668E33EF and self.style == "structured", hex(magic)
            flags, kind, answered, length = struct.unpack(">HHQI", self.take(16))
        assert answered == cookie and length <= 33 * MIB
        return bool(flags & 1), kind, self.take(length)

    def answer(self, cookie=7):
        """(errno, chunks)"""
        chunks, error = [], 0
        while True:
            last, kind, payload = self.chunk(cookie)
            if kind < 0:
                error = -kind
            elif kind >= 0x8001:
                error, length = struct.unpack(">IH", payload[:6])
                assert error != 0 and len(payload) >= 6 + length
                payload[6 : 6 + length].decode()
            elif kind:
                chunks.append((kind, payload))
            if last:
                return error, chunks

    def do(self, *args, **kw):
        self.request(*args, **kw)
        return self.answer()[0]

    def read(self, offset, length, flags=0):
        self.request(READ, offset, length, flags)
        if self.style == "simple":
            last, kind, _ = self.chunk()
            return -kind, (self.take(length) if kind == 0 else b"")
        error, chunks = self.answer()
        data, seen = bytearray(length), bytearray(length)
        for kind, payload in chunks:
            at = struct.unpack(">Q", payload[:8])[0] - offset
            count = len(payload) - 8 if kind == 1 else struct.unpack(">I", payload[8:])[0]
            assert kind in (1, 2) and count > 0 and 0 <= at and at + count <= length
            assert not any(seen[at : at + count]), "a byte came twice"
            seen[at : at + count] = b"\1" * count
            if kind == 1:
                data[at : at + count] = payload[8:]
        assert error or all(seen), "bytes are missing"
        return error, bytes(data)

    def status(self, offset, length, flags=0, payload=None):
        """(errno, {context id: [(length, status)]})"""
        if payload is None:
            self.request(STATUS, offset, length, flags)
        else:
            self.request(STATUS, offset, len(payload), flags | PAYLOAD, payload)
        error, chunks = self.answer()
        found = {}
        for kind, payload in chunks:
            context = struct.unpack(">I", payload[:4])[0]
            assert context not in found
            if self.style == "extended":
                assert kind == 6
                count = struct.unpack(">I", payload[4:8])[0]
                runs = list(struct.iter_unpack(">QQ", payload[8:]))
                assert count == len(runs)
            else:
                assert kind == 5
                runs = list(struct.iter_unpack(">II", payload[4:]))
            assert runs and all(n > 0 for n, _ in runs)
            assert sum(n for n, _ in runs[:-1]) < length
            found[context] = runs
        return error, found


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack(">I", len(value)) + value


def go(name, infos=()):
    return text(name) + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def meta(name, queries):
    return text(name) + struct.pack(">I", len(queries)) + b"".join(text(q) for q in queries)


class Server:
    def __init__(self, *arguments, images=("disk", "other"), writable=True, islands=0):
        self.folder = tempfile.mkdtemp()
        self.path = os.path.join(self.folder, "socket")
        command = [PROGRAM, "export", "-f", "raw", "--listen", "unix:" + self.path]
        command += ["--writable"] if writable else []
        for name in images:
            file = os.path.join(self.folder, name)
            with open(file, "wb") as out:
                out.write(bytes(range(256)) * 256)
                out.truncate(max(DISK_BYTES, islands * 8192))
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
        assert ready and self.process.stdout.readline().startswith(b"READY"), self.errors()

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
        end = time.monotonic() + LIMIT
        while True:
            try:
                return self.client()
            except Closed:
                assert time.monotonic() < end
                time.sleep(0.01)

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


class Haggling(Shared):
    def test_unknown_options_and_what_follows(self):
        c = self.connect()
        for number in (0, 4, 12, 99, 0xFFFFFFFF):
            self.assertEqual(c.result(number), UNSUP)
            self.assertEqual(c.result(number, b"x" * 5000), UNSUP)
        self.assertEqual(c.result(LIST), ACK)

    def test_options_with_data_they_do_not_take(self):
        c = self.connect()
        for number in (LIST, STRUCTURED, EXTENDED, STARTTLS):
            self.assertTrue(c.result(number, b"x") in (INVALID, POLICY))
        self.assertEqual(c.result(STRUCTURED), ACK)
        self.assertEqual(c.result(STRUCTURED), ACK)

    def test_malformed_go_info_and_contexts(self):
        c = self.connect()
        c.result(STRUCTURED)
        good = go("disk", [0, 3])
        for number in (INFO, GO):
            for bad in [good[:n] for n in range(len(good))] + [good + b"x", b"\xff" * 40, go("disk" * 1025)]:
                self.assertIn(c.result(number, bad), (INVALID, TOO_BIG))
                if c.s.fileno() and number == GO and len(bad) % 30 == 29:
                    c = self.connect()  # stay below the bound on options
                    c.result(STRUCTURED)
        good = meta("disk", ["base:allocation"])
        c = self.connect()
        c.result(STRUCTURED)
        for bad in [good[:n] for n in range(len(good))] + [good + b"x"]:
            self.assertEqual(c.result(SET_META, bad), INVALID)
        self.assertEqual(c.result(LIST_META, text("disk") + b"\xff\xff\xff\xff"), INVALID)

    def test_names_of_4096_bytes(self):
        c = self.connect()
        self.assertEqual(c.result(INFO, go("x" * 4096)), UNKNOWN)
        self.assertEqual(c.result(GO, go(b"\xff\0\n%s" * 800)), UNKNOWN)
        self.assertIn(c.result(INFO, go("x" * 4097)), (INVALID, TOO_BIG))
        c.option(EXPORT_NAME, b"x" * 4096)
        self.assertTrue(c.is_closed())

    def test_an_option_of_a_megabyte_is_refused_and_skipped(self):
        c = self.connect()
        self.assertEqual(c.result(99, b"\0" * MIB), TOO_BIG)
        self.assertEqual(c.result(LIST), ACK)
        c.option(99, b"", 0xFFFFFFFF)
        self.assertTrue(c.is_closed())

    def test_info_requests_of_every_kind(self):
        c = self.connect()
        replies = c.ask(INFO, go("disk", list(range(2000)) + [3] * 2000))
        self.assertEqual(replies[-1][0], ACK)
        kinds = [struct.unpack(">H", p[:2])[0] for k, p in replies[:-1]]
        self.assertEqual(len(kinds), len(set(kinds)))
        self.assertIn(0, kinds)
        self.assertIn(3, kinds)
        sizes = next(p for k, p in replies if p[:2] == b"\0\3")
        minimum, preferred, maximum = struct.unpack(">III", sizes[2:])
        self.assertTrue(minimum <= preferred <= maximum)
        self.assertEqual(preferred & (preferred - 1), 0)

    def test_list_is_complete(self):
        names = [p[4 : 4 + struct.unpack(">I", p[:4])[0]] for k, p in self.connect().ask(LIST) if k == REP_SERVER]
        self.assertEqual(names, [b"disk", b"other"])

    def test_export_name_with_and_without_zeroes(self):
        for flags, more in ((1, 124), (3, 0)):
            c = self.connect(flags)
            c.option(EXPORT_NAME, b"disk")
            size, export_flags = struct.unpack(">QH", c.take(10))
            self.assertEqual(size, DISK_BYTES)
            self.assertTrue(export_flags & 1)
            self.assertEqual(c.take(more), b"\0" * more)
            self.assertEqual(c.read(0, 4), (0, b"\0\1\2\3"))

    def test_export_name_after_structured_replies(self):
        c = self.connect()
        self.assertEqual(c.result(STRUCTURED), ACK)
        self.assertEqual(c.select("disk", ["base:allocation"])[-1][0], ACK)
        c.option(EXPORT_NAME, b"disk")
        c.take(10)
        c.style = "structured"
        self.assertEqual(c.read(3, 4), (0, b"\3\4\5\6"))
        self.assertEqual(c.status(0, 4096)[0], 0)

    def test_client_flags(self):
        self.assertTrue(self.connect(0x100).is_closed())
        c = self.connect(1)
        self.assertEqual(c.result(LIST), ACK)

    def test_abort(self):
        c = self.connect()
        self.assertEqual(c.result(ABORT), ACK)
        self.assertTrue(c.is_closed())
        self.connect().option(ABORT)  # and leaves without waiting

    def test_too_many_options(self):
        c = self.connect()
        with self.assertRaises((Closed, ConnectionError)):
            for _ in range(1000):
                c.ask(LIST)

    def test_wrong_option_magic(self):
        c = self.connect()
        c.send(b"IHAVEOPX" + b"\0" * 8)
        self.assertTrue(c.is_closed())

    def test_contexts(self):
        c = self.connect()
        self.assertIn(c.result(SET_META, meta("disk", ["base:allocation"])), (INVALID, EXT_REQD))
        c.result(STRUCTURED)
        self.assertEqual(len(c.ask(LIST_META, meta("disk", ["base:"]))), 2)
        self.assertGreaterEqual(len(c.ask(LIST_META, meta("disk", []))), 2)
        for nothing in ([], ["x:y"], ["base:nothing", "", ":", "base", "qemu:dirty-bitmap:no"]):
            self.assertEqual(c.select("disk", nothing), [(ACK, b"")])
        self.assertEqual(len(c.select("disk", ["base:allocation"] * 500)), 2)
        self.assertEqual(c.select("nobody", ["base:allocation"])[-1][0], UNKNOWN)
        both = c.select("disk", ["qemu:allocation-depth", "base:allocation"])
        self.assertEqual(len(c.contexts), 2)
        self.assertEqual(len(set(c.contexts.values())), 2)

    def status_error_after(self, *steps):
        c = self.connect()
        c.result(STRUCTURED)
        for step in steps:
            c.ask(*step)
        c.style = "structured"
        self.assertEqual(c.ask(GO, go("disk"))[-1][0], ACK)
        error = c.status(0, 4096)[0]
        self.assertEqual(c.read(0, 4)[0], 0)
        return error

    def test_status_only_with_the_last_selection_for_this_export(self):
        good = (SET_META, meta("disk", ["base:allocation"]))
        self.assertEqual(self.status_error_after(), EINVAL)
        self.assertEqual(self.status_error_after(good), 0)
        self.assertEqual(self.status_error_after(good, good), 0)
        self.assertEqual(self.status_error_after(good, (SET_META, meta("other", ["base:allocation"]))), EINVAL)
        self.assertEqual(self.status_error_after(good, (SET_META, meta("disk", ["x:y"]))), EINVAL)
        self.assertEqual(self.status_error_after(good, (SET_META, meta("nobody", ["base:allocation"]))), EINVAL)
        self.assertEqual(self.status_error_after(good, (SET_META, b"junk")), EINVAL)
        self.assertEqual(self.status_error_after(good, (LIST_META, meta("other", []))), 0)
        self.assertEqual(self.status_error_after((SET_META, meta("nobody", ["base:allocation"])), good), 0)

    def test_styles_in_odd_orders(self):
        c = self.connect()
        self.assertEqual(c.result(STRUCTURED), ACK)
        self.assertEqual(c.result(EXTENDED), ACK)
        self.assertEqual(c.result(EXTENDED), ACK)
        self.assertEqual(c.result(STRUCTURED), EXT_REQD)
        self.assertEqual(c.result(GO, go("nobody")), UNKNOWN)
        c.select("disk", ["base:allocation"])
        c.style = "extended"
        c.ask(GO, go("disk"))
        self.assertEqual(c.status(0, DISK_BYTES)[0], 0)
        c = self.connect()
        c.result(EXTENDED)
        c.option(EXPORT_NAME, b"disk")
        self.assertTrue(c.is_closed())

    def test_a_whole_conversation_in_one_packet_and_byte_by_byte(self):
        whole = struct.pack(">QII", OPT_MAGIC, STRUCTURED, 0)
        whole += struct.pack(">QII", OPT_MAGIC, GO, len(go("disk"))) + go("disk")
        whole += struct.pack(">IHHQQI", 0x25609513, 0, READ, 7, 0, 512)
        for step in (len(whole), 1, 7):
            c = self.connect()
            for at in range(0, len(whole), step):
                c.send(whole[at : at + step])
            while c.reply()[1] != ACK or c.reply()[0] != GO:
                pass
            while c.reply()[1] != ACK:
                pass
            c.style = "structured"
            self.assertEqual(c.answer()[0], 0)

    def test_dying_at_every_byte(self):
        whole = struct.pack(">IQII", 3, OPT_MAGIC, STRUCTURED, 0)
        data = meta("disk", ["base:allocation"])
        whole += struct.pack(">QII", OPT_MAGIC, SET_META, len(data)) + data
        whole += struct.pack(">QII", OPT_MAGIC, GO, len(go("disk"))) + go("disk")
        whole += struct.pack(">IHHQQI", 0x25609513, 0, READ, 7, 0, 100000)
        whole += struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 8, 70000, 64) + b"\0" * 64
        whole += struct.pack(">IHHQQI", 0x25609513, 0, STATUS, 9, 0, DISK_BYTES)
        for at in range(len(whole) + 1):
            c = self.server.client(None)
            try:
                c.send(whole[:at])
                if at % 2:
                    c.s.shutdown(socket.SHUT_WR)
            except ConnectionError:  # there were too many of us
                pass
            c.close()


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
        self.assertTrue(9 < took < 13, took)
        self.assertTrue(c.is_closed())
        self.assertLess(server.stop(), 5)

    def greedy(self, server, style, request, count):
        """Clients that send requests until the server takes no more, and read nothing."""
        clients = []
        for _ in range(count):
            c = server.client().go(style=style, queries=("base:allocation", "qemu:allocation-depth"))
            c.s.setblocking(False)
            clients.append(c)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for c in clients:
                try:
                    while True:
                        request(c)
                except (BlockingIOError, ConnectionError):
                    pass
            time.sleep(0.02)
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
        time.sleep(0.5)
        for _ in range(4):  # the session's own memory, and then a write that has to wait for it
            c = server.client().go()
            c.request(READ, 0, 500000)
            c.request(WRITE, 0, 500000)
            clients.append(c)
        time.sleep(0.5)
        self.assertLess(server.stop(), 16)
        for c in clients:
            c.close()

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


@unittest.skipUnless(shutil.which("openssl"), "needs openssl to make a certificate")
class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        key, certificate = (os.path.join(cls.folder, n) for n in ("server-key.pem", "server-cert.pem"))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
            check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        shutil.copy(certificate, os.path.join(cls.folder, "ca-cert.pem"))
        cls.server = Server("--tls", "on", "--tls-certificates", cls.folder)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        shutil.rmtree(cls.folder)

    def upgrade(self, c):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        c.s = context.wrap_socket(c.s)

    def test_what_was_sent_before_tls_counts_for_nothing(self):
        injected = struct.pack(">QII", OPT_MAGIC, STRUCTURED, 0)
        injected += struct.pack(">QII", OPT_MAGIC, SET_META, len(meta("disk", ["base:allocation"])))
        injected += meta("disk", ["base:allocation"])
        c = self.server.client()
        self.assertEqual(c.result(STRUCTURED), ACK)
        self.assertEqual(c.select("disk", ["base:allocation"])[-1][0], ACK)
        c.send(struct.pack(">QII", OPT_MAGIC, STARTTLS, 0) + injected)
        self.assertEqual(c.reply(), (STARTTLS, ACK, b""))
        self.upgrade(c)
        self.assertEqual(c.result(LIST), ACK)  # the first answer is to the first option after TLS
        self.assertEqual(c.result(STARTTLS), INVALID)
        self.assertEqual(c.ask(GO, go("disk"))[-1][0], ACK)
        self.assertEqual(c.read(0, 4), (0, b"\0\1\2\3"))  # simple replies again
        self.assertEqual(c.do(STATUS, 0, 512), EINVAL)
        c.close()

    def test_a_read_over_tls_and_a_client_that_just_goes(self):
        for style in Requests.styles:
            c = self.server.client()
            self.assertEqual(c.result(STARTTLS), ACK)
            self.upgrade(c)
            c.go(style=style)
            self.assertEqual(c.read(0, MIB)[1][:256], bytes(range(256)))
            self.assertEqual(c.do(WRITE, MIB, 3 * MIB, payload=b"t" * 3 * MIB), 0)
            c.request(READ, 0, 8 * MIB)
            c.s.close()

    def test_plain_text_where_tls_belongs(self):
        for junk in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 100, b"\0" * 70000):
            c = self.server.client()
            self.assertEqual(c.result(STARTTLS), ACK)
            try:
                c.send(junk)
                c.s.shutdown(socket.SHUT_WR)
                while c.s.recv(4096):
                    pass
            except ConnectionError:
                pass
            c.close()


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main(verbosity=1)
