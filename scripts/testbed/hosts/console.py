"""The consoles of guests on one clock: every serial port of a guest connects to one socket, before and after it moves, so
the longest time without an acknowledged write is what the guest saw of the migration.
"""

import dataclasses
import os
import pathlib
import re
import selectors
import socket
import threading
import time

ACK = re.compile(r"^ACK (\d+) (\d+) w=(\d+) t=\d+(?: l=([\d,]+))?$")
TICK = re.compile(r"^TICK (\d+) \d+$")
TROUBLE = ("WERR ", "RERR ", "BAD ", "FATAL ")
# The guest's kernel in its own words. Lines of the kernel begin with its time.
KERNEL_TROUBLE = re.compile(r"^\[ *\d+\.\d+\] (Kernel panic|general protection fault|BUG: |Oops|I/O error|.*I/O error, dev )")


@dataclasses.dataclass(frozen=True)
class Ack:
    """Writes `first` to `last` were acknowledged; heard at `time` (s, time.monotonic) on connection number `connection`."""

    time: float
    connection: int
    first: int
    last: int
    worst_us: int
    times_us: tuple = ()  # of each write, where the guest tells (wl.times=1)


def parse(time_s, connection, text):
    """The Ack in a line, or None. An idle guest's tick counts as the acknowledgement of nothing."""
    if match := ACK.match(text):
        times = tuple(int(word) for word in match[4].split(",")) if match[4] else ()
        return Ack(time_s, connection, int(match[1]), int(match[2]), int(match[3]), times)
    if match := TICK.match(text):
        return Ack(time_s, connection, int(match[1]), int(match[1]), 0)
    return None


def between(acks, since=0.0, until=float("inf")):
    return [ack for ack in acks if since <= ack.time <= until]


def longest_gap_ms(acks, since=0.0, until=float("inf")):
    """The longest time without an acknowledgement within the interval. Its borders count when they are given: silence
    from the last line to `until` is a gap too."""
    times = [ack.time for ack in between(acks, since, until)]
    if since > 0:
        times.insert(0, since)
    if until < float("inf"):
        times.append(until)
    return max(((later - earlier) * 1000 for earlier, later in zip(times, times[1:])), default=0.0)


def switch_gaps_ms(acks):
    """For each change of connection, the time from the last acknowledgement of the old to the first of the new one."""
    return [(later.time - earlier.time) * 1000 for earlier, later in zip(acks, acks[1:])
            if later.connection != earlier.connection]


def writes_per_second(acks, since=0.0, until=float("inf")):
    inside = between(acks, since, until)
    if len(inside) < 2:
        return 0.0
    return (inside[-1].last - inside[0].last) / (inside[-1].time - inside[0].time)


def worst_write_ms(acks, since=0.0, until=float("inf")):
    """The longest single write, by the guest's clock."""
    return max((ack.worst_us / 1000 for ack in between(acks, since, until)), default=0.0)


def write_times_ms(acks, since=0.0, until=float("inf")):
    """The times of single writes, sorted; none where the guest does not tell them."""
    return sorted(us / 1000 for ack in between(acks, since, until) for us in ack.times_us)


class Console(threading.Thread):
    """Listens on a UNIX socket `path` and keeps every line. `log` gets "<microseconds> <connection> <line>", for check.c."""

    def __init__(self, path, log):
        super().__init__(daemon=True, name=f"console {path}")
        self.path = pathlib.Path(path)
        self.log = pathlib.Path(log)
        self.lines = []  # (time, connection, text); only grows
        self.acks = []
        self.trouble = []  # texts that must never be seen
        self._out = open(self.log, "wb", buffering=0)  # pylint: disable=consider-using-with
        self._listener = socket.socket(socket.AF_UNIX)
        self.path.unlink(missing_ok=True)
        folder = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY)
        try:  # by this way the folder's name may be longer than a socket's address
            self._listener.bind(f"/proc/self/fd/{folder}/{self.path.name}")
        finally:
            os.close(folder)
        self._listener.listen(8)
        self._wake, self._waker = os.pipe()
        self.start()

    def run(self):
        selector = selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ)
        selector.register(self._wake, selectors.EVENT_READ)
        partial = {}  # connection: [number, the bytes of its unfinished line]
        while True:
            for key, _ in selector.select():
                now = time.monotonic()
                if key.fileobj == self._wake:
                    for connection in partial:
                        connection.close()
                    selector.close()
                    return
                if key.fileobj is self._listener:
                    connection, _ = self._listener.accept()
                    partial[connection] = [self._number_of_connections(partial), b""]
                    selector.register(connection, selectors.EVENT_READ)
                elif not self._read(now, key.fileobj, partial[key.fileobj]):
                    # An unfinished line is not to be believed: its number may be cut off.
                    selector.unregister(key.fileobj)
                    key.fileobj.close()

    @staticmethod
    def _number_of_connections(partial):
        return len(partial) + 1

    def _read(self, now, connection, state):
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        *lines, state[1] = (state[1] + data).split(b"\n")
        for line in lines:
            self._keep(now, state[0], line.rstrip(b"\r").decode("utf-8", "replace"))
        return bool(data)

    def _keep(self, now, connection, text):
        self._out.write(f"{int(now * 1e6)} {connection} {text}\n".encode())
        self.lines.append((now, connection, text))
        if ack := parse(now, connection, text):
            self.acks.append(ack)
        elif text.startswith(TROUBLE) or KERNEL_TROUBLE.match(text):
            self.trouble.append(text)

    def close(self):
        """Ends listening; the lines stay."""
        if self.is_alive():
            os.write(self._waker, b"x")
            self.join(10)
            for fd in (self._wake, self._waker):
                os.close(fd)
            self._listener.close()
            self._out.close()
            self.path.unlink(missing_ok=True)
