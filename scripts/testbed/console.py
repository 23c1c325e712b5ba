"""Collects what guests print: both QEMUs of a move connect their serial port here, so that one clock times the lines
of both ends. The gap between two acknowledgements is what the guest saw of the move."""
import os
import re
import selectors
import socket
import threading
import time

ACKNOWLEDGED = re.compile(rb"ACK (\d+) (\d+) worst_us=(\d+)")


class Console:
    def __init__(self, socket_path, log_path):
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(socket_path)
        self._listener.listen(4)
        self._log = open(log_path, "wb", buffering=0)
        self._changed = threading.Condition()
        self.acknowledgements = []  # (time, first, last, worst_us)
        self.problems = []
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        selector, pending = selectors.DefaultSelector(), {}
        selector.register(self._listener, selectors.EVENT_READ)
        selector.register(self._stop_read, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == self._stop_read:
                    return
                if key.fileobj is self._listener:
                    port, _ = self._listener.accept()
                    pending[port] = b""
                    selector.register(port, selectors.EVENT_READ)
                    continue
                try:
                    chunk = key.fileobj.recv(65536)
                except OSError:
                    chunk = b""
                if not chunk:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    continue
                *lines, pending[key.fileobj] = (pending[key.fileobj] + chunk).split(b"\n")
                for line in lines:
                    self._take(line.rstrip(b"\r"))

    def _take(self, line):
        now = time.monotonic()
        self._log.write(line + b"\n")
        with self._changed:
            if found := ACKNOWLEDGED.search(line):
                self.acknowledgements.append((now, *map(int, found.groups())))
            elif re.search(rb"WERR|BAD|FATAL", line):
                self.problems.append(line.decode(errors="replace"))
            self._changed.notify_all()

    def wait_for_writes(self, count, limit_seconds=120):
        """Waits until `count` further writes were acknowledged."""
        with self._changed:
            goal = (self.acknowledgements[-1][2] if self.acknowledgements else 0) + count
            if not self._changed.wait_for(
                    lambda: self.acknowledgements and self.acknowledgements[-1][2] >= goal, limit_seconds):
                raise TimeoutError(f"the guest did not acknowledge {count} writes in {limit_seconds} s")

    def longest_gap(self, begin, end):
        """Longest time without an acknowledgement between two moments, in seconds."""
        times = [entry[0] for entry in self.acknowledgements if begin <= entry[0] <= end]
        return max((after - before for before, after in zip(times, times[1:])), default=0.0)

    def close(self):
        os.write(self._stop_write, b"x")
        self._thread.join()
        self._listener.close()
        self._log.close()
