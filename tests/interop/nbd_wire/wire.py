"""The protocol as a client speaks it: numbers and bytes from doc/proto.md and the text of the extended headers, and
nothing of this project. Every wait has a limit, and a server that is too slow or says too much fails the test."""

import socket
import struct
import time

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
        self.s = self.connect_socket(path)
        self.s.settimeout(LIMIT)
        self.style = "simple"
        self.contexts = {}
        if flags is not None:
            magic, option_magic, self.server_flags = struct.unpack(">QQH", self.take(18))
            assert magic == 0x4E42444D41474943 and option_magic == OPT_MAGIC
            self.send(struct.pack(">I", flags))

    def connect_socket(self, path):
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(LIMIT)
        end = time.monotonic() + LIMIT
        while True:
            try:
                made.connect(path)
                return made
            except BlockingIOError:  # the server's backlog is full
                assert time.monotonic() < end
                time.sleep(0.001)

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
