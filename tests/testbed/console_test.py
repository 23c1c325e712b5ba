"""The console of test guests (scripts/testbed/hosts/console.py): what it keeps, and the gaps it must find.

Usage: console_test.py HOSTS CACHE.
"""

import pathlib
import socket
import sys
import tempfile
import time
import unittest

HOSTS = pathlib.Path(sys.argv[1])
sys.path[:0] = [str(HOSTS), str(HOSTS.parent)]

import console  # noqa: E402
from console import Ack  # noqa: E402
from processes import wait_until  # noqa: E402


def acks(*spans):
    """One acknowledgement each 10 ms in each (connection, begin, end), times in ms."""
    found, number = [], 0
    for connection, begin, end in spans:
        for at in range(begin, end, 10):
            number += 1
            found.append(Ack(100 + at / 1000, connection, number, number, 500))
    return found


class GapsTest(unittest.TestCase):
    def test_gaps(self):
        steady = acks((1, 0, 1000))
        stalled = acks((1, 0, 500), (1, 800, 1000))
        moved = acks((1, 0, 500), (2, 650, 1000))
        for name, given, since, until, expected in (
                ("steady", steady, 0, float("inf"), 10),
                ("a stall in the middle", stalled, 0, float("inf"), 310),
                ("a stall before the interval", stalled, 100.8, float("inf"), 10),
                ("a stall that the interval's begin cuts", stalled, 100.7, float("inf"), 100),
                ("a stall that the interval's end cuts", stalled, 0, 100.6, 110),
                ("silence at the end", steady, 0, 103.0, 2010),
                ("silence all over", steady, 105.0, 106.0, 1000),
                ("nothing at all", [], 100.0, 101.0, 1000),
                ("across the change of connection", moved, 0, float("inf"), 160)):
            with self.subTest(name):
                self.assertAlmostEqual(console.longest_gap_ms(given, since, until), expected, places=3)

    def test_the_gap_at_the_change_of_connection(self):
        self.assertEqual(console.switch_gaps_ms(acks((1, 0, 500))), [])
        gaps = console.switch_gaps_ms(acks((1, 0, 300), (1, 900, 1000), (2, 1100, 1200), (3, 1500, 1600)))
        self.assertEqual([round(gap) for gap in gaps], [110, 310])

    def test_rates(self):
        given = acks((1, 0, 1000), (1, 1000, 1500))
        self.assertAlmostEqual(console.writes_per_second(given), 100)
        self.assertAlmostEqual(console.writes_per_second(given, 100.5, 101.0), 100)
        self.assertEqual(console.writes_per_second(given, 200.0), 0)

    def test_the_worst_write(self):
        given = [*acks((1, 0, 100)), Ack(100.2, 1, 11, 11, 123456)]
        self.assertEqual(console.worst_write_ms(given), 123.456)
        self.assertEqual(console.worst_write_ms(given, 0, 100.1), 0.5)

    def test_lines(self):
        for text, expected in (("ACK 3 9 w=1200 t=77", Ack(1.0, 1, 3, 9, 1200)), ("TICK 4 99", Ack(1.0, 1, 4, 4, 0)),
                               ("ACK 3 9 w=1200 t=", None), ("CK 3 9 w=1200 t=77", None), ("xACK 3 9 w=1 t=7", None),
                               ("ACK 3 9", None), ("READY mode=rand", None), ("", None)):
            with self.subTest(text):
                self.assertEqual(console.parse(1.0, 1, text), expected)


class ConsoleTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        # Longer than the address of a socket may be: a build folder deep down must do.
        deep = pathlib.Path(folder.name, *["deep-" * 8] * 4)
        deep.mkdir(parents=True)
        self.console = console.Console(deep / "c.sock", deep / "c.log")
        self.addCleanup(self.console.close)

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        folder = self.console.path.parent
        short = pathlib.Path(tempfile.mkdtemp())
        (short / "d").symlink_to(folder)
        self.addCleanup(short.rmdir)
        self.addCleanup((short / "d").unlink)
        client.connect(str(short / "d" / self.console.path.name))
        return client

    def texts(self, count):
        wait_until(lambda: len(self.console.lines) >= count, f"{count} lines", 10)
        return [(connection, text) for _, connection, text in self.console.lines]

    def test_lines_in_pieces_from_two_ends_are_kept_whole(self):
        first = self.connect()
        first.sendall(b"READY x\r\nACK 1 2 w=5 ")
        first.sendall(b"t=9\r\nACK 3 4")
        self.texts(2)
        first.close()
        second = self.connect()
        second.sendall(b"w=5 t=9\nACK 5 6 w=7 t=9\nWERR 7 no\n")
        self.assertEqual(self.texts(5), [(1, "READY x"), (1, "ACK 1 2 w=5 t=9"), (2, "w=5 t=9"), (2, "ACK 5 6 w=7 t=9"),
                                         (2, "WERR 7 no")])
        self.assertEqual([(ack.connection, ack.first, ack.last) for ack in self.console.acks], [(1, 1, 2), (2, 5, 6)])
        self.assertEqual(self.console.trouble, ["WERR 7 no"])

    def test_the_kernel_of_the_guest_can_be_in_trouble(self):
        client = self.connect()
        lines = ["[    0.1] all is well", "[   20.018863] general protection fault, probably for non-canonical address 0x34",
                 "[   20.1] Kernel panic - not syncing: Fatal exception", "[    9.5] blk_update_request: I/O error, dev vda"]
        client.sendall("".join(line + "\n" for line in lines).encode())
        self.texts(len(lines))
        self.assertEqual(self.console.trouble, lines[1:])

    def test_the_log_is_what_the_checker_reads(self):
        before = time.monotonic()
        client = self.connect()
        client.sendall(b"ACK 1 2 w=5 t=9\n")
        self.texts(1)
        self.console.close()
        microseconds, connection, text = self.console.log.read_text(encoding="utf-8").rstrip("\n").split(" ", 2)
        self.assertEqual((connection, text), ("1", "ACK 1 2 w=5 t=9"))
        self.assertGreaterEqual(int(microseconds) + 1, int(before * 1e6))
        self.assertFalse(self.console.path.exists())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
