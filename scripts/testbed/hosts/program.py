"""A program running in a host of the testbed, as the test that started it holds it."""

import os
import pathlib
import signal
import subprocess
import time

from report import Failed


class Program:
    """Made by Host.start. `pid` is the program's own pid on this machine, or None when it ended before we could look.

    What it prints is appended to the file `log`. It dies with its host at the latest. With `held` its standard input is open
    until `let_go`, or until the test is gone.
    """

    def __init__(self, entry, words, log, held=False):
        self.words = [str(word) for word in words]
        self.log = pathlib.Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as out:
            self._log_begin = out.tell()
            # A session of its own: Ctrl-C in the test's terminal is the test's business.
            self._entry = subprocess.Popen([*entry, *self.words], stdin=subprocess.PIPE if held else subprocess.DEVNULL,
                                           stdout=out, stderr=out, start_new_session=True)
        self.pid = self._find_pid()

    def _find_pid(self, timeout=20.0):
        """nsenter forks once into the PID namespace and waits; its child is the program."""
        end = time.monotonic() + timeout
        children = f"/proc/{self._entry.pid}/task/{self._entry.pid}/children"
        while self._entry.poll() is None:
            try:
                if found := pathlib.Path(children).read_text(encoding="ascii").split():
                    return int(found[0])
            except OSError:
                pass
            if time.monotonic() > end:
                raise Failed(f"{self}: does not start")
            time.sleep(0.005)
        return None

    def __str__(self):
        return " ".join(self.words)

    def poll(self):
        """The exit code (negative: the signal that ended it), or None while it runs."""
        return self._entry.poll()

    def wait(self, timeout=60):
        """Waits for the end, in seconds, and returns the exit code."""
        try:
            return self._entry.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self}: still running after {timeout} s\n{self.output()[-2000:]}") from None

    def check(self, timeout=60):
        """Waits for a good end and returns what it printed."""
        if code := self.wait(timeout):
            raise Failed(f"{self}: exit {code}\n{self.output()[-2000:].strip()}")
        return self.output()

    def output(self):
        """Everything it has printed so far."""
        with open(self.log, "rb") as log:
            log.seek(self._log_begin)
            return log.read().decode("utf-8", "replace")

    def signal(self, number):
        # While nsenter is not reaped the child's pid cannot be anybody else's.
        if self.pid and self._entry.poll() is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def kill9(self):
        """Ends it as a crash would, and returns once it is gone."""
        self.signal(signal.SIGKILL)
        return self.wait(20)

    def let_go(self, timeout=60):
        """Ends the standard input of a program that is held, and returns the exit code with which it ends of it."""
        self._entry.stdin.close()
        return self.wait(timeout)

    def stop(self, timeout=20):
        """Asks it to end (SIGTERM), kills it when it does not in `timeout` seconds, and returns the exit code."""
        self.signal(signal.SIGTERM)
        try:
            return self._entry.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill9()
