"""What clients say before they enter an export."""

import socket
import struct

from server import main, Shared
from wire import (
    ABORT, ACK, Closed, DISK_BYTES, EINVAL, EXPORT_NAME, EXTENDED, EXT_REQD, GO, INFO, INVALID, LIST, LIST_META,
    MIB, OPT_MAGIC, POLICY, READ, REP_SERVER, SET_META, STARTTLS, STATUS, STRUCTURED, TOO_BIG, UNKNOWN, UNSUP,
    WRITE, go, meta, text)


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
        self.assertEqual(c.result(STRUCTURED), INVALID)

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

    def test_queries_of_every_kind(self):
        c = self.connect()
        c.result(STRUCTURED)
        for query in ("*", "base:*", "base", "", ":", "qemu:dirty-bitmap:", "base:allocation\0", b"\xff\xfe", "x" * 4096):
            self.assertEqual(c.ask(LIST_META, meta("disk", [query])), [(ACK, b"")])  # no wildcards, no parts of names
            self.assertEqual(c.select("disk", [query]), [(ACK, b"")])
        self.assertEqual(c.select("disk", ["base:"]), [(ACK, b"")])  # a namespace lists and does not select
        thousands = [f"x:{n}" for n in range(4000)] + ["base:", "base:allocation"] * 200
        self.assertEqual(len(c.ask(LIST_META, meta("disk", thousands))), 2)
        self.assertEqual(len(c.select("disk", thousands)), 2)
        self.assertEqual(c.select("disk", ["y" * 4096] * 20)[-1][0], TOO_BIG)
        for bad in (meta("disk", ["x" * 4097]), text("disk") + b"\xff\xff\xff\xff", text("disk"), text("disk") + b"\0\0"):
            self.assertEqual(c.result(LIST_META, bad), INVALID)
            self.assertEqual(c.result(SET_META, bad), INVALID)

    def test_names_that_are_none(self):
        c = self.connect()
        c.result(STRUCTURED)
        for name in (b"disk\0", b"\0disk", b"\0", b"di\0sk", b"\xff\xfe", b"DISK", b"disk ", b"../disk"):
            for number, data in ((INFO, go(name)), (GO, go(name)), (LIST_META, meta(name, [])), (SET_META, meta(name, []))):
                kind, answer = c.ask(number, data)[-1]
                self.assertEqual(kind, UNKNOWN)
                self.assertTrue(answer.decode().isprintable())
        self.assertEqual(c.result(LIST_META, meta("", ["base:"])), ACK)
        for name in (b"disk\0", b"\xff", b"x" * 5000):
            c = self.connect()
            c.option(EXPORT_NAME, name)
            self.assertTrue(c.is_closed())
        self.assertEqual(self.connect().ask(GO, go(""))[-1][0], ACK)  # no name: the first export

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
        self.assertEqual(c.result(EXTENDED), INVALID)
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


if __name__ == "__main__":
    main()
