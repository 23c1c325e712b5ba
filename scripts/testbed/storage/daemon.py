"""One program of a storage server, recorded in the server's folder, so that whoever comes later can signal and end it.

The record is "PID STARTTIME". A pid is used again sooner or later, a pair of both is not: what we did not start is never
signalled.
"""

import os
import pathlib
import select
import signal
import subprocess

from processes import wait_until
from report import Failed

END_SECONDS = 10.0


def _state(pid):
    """(state letter, start time) of a process, from /proc/PID/stat (proc(5), fields 3 and 22), or None."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    words = text.rpartition(")")[2].split()  # the name before it may hold anything
    return words[0], words[19]


def _is_gone(pid, state):
    """A zombie is gone, unless other threads of it still run: those keep its locks and ports."""
    if state in "ZX":
        try:
            return len(os.listdir(f"/proc/{pid}/task")) < 2
        except OSError:
            return True
    return False


class Daemon:
    """The program `name` of the server in `folder`. Objects are cheap: two of the same name mean the same program."""

    def __init__(self, folder, name):
        self.name = name
        self.log = pathlib.Path(folder) / "log" / f"{name}.out"
        self._record = pathlib.Path(folder) / "run" / f"{name}.pid"
        self._child = None

    def __str__(self):
        return self.name

    @property
    def pid(self):
        """The pid, or None when it does not run."""
        if self._child is not None:
            self._child.poll()
        try:
            number, started = self._record.read_text(encoding="ascii").split()
        except (OSError, ValueError):
            return None
        state = _state(number)
        return int(number) if state is not None and state[1] == started and not _is_gone(number, state[0]) else None

    def is_alive(self):
        return self.pid is not None

    def is_hung(self):
        pid = self.pid
        state = _state(pid) if pid else None
        return state is not None and state[0] == "T"

    def memory_kib(self):
        """Resident memory, or 0 when it does not run."""
        try:
            for line in pathlib.Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        except OSError:
            pass
        return 0

    def start(self, *words, environment):
        """Starts the program, which must stay in the foreground. It inherits no descriptors and has a session of its own:
        Ctrl-C in a test's terminal is the test's business."""
        with open(self.log, "ab") as out:
            self._child = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                           env=environment, start_new_session=True)
        self.adopt(self._child.pid)

    def adopt(self, pid):
        """Records a process that somebody else started for this server."""
        state = _state(pid)
        if state is None:
            raise Failed(f"{self.name} ended at once: {self.last_words()}")
        draft = self._record.with_suffix(".draft")
        draft.write_text(f"{pid} {state[1]}\n", encoding="ascii")
        draft.replace(self._record)

    def last_words(self, lines=5):
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no output)"

    def signal(self, number):
        """Signals the program if it runs. The pidfd is opened before the record is checked, so nobody can come between."""
        pid = self.pid
        if pid is None:
            return
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if self.pid == pid:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)

    def kill9(self):
        """Ends it as a crash would; returns once it is gone."""
        self.signal(signal.SIGKILL)
        self.wait_gone()

    def hang(self):
        """Stops it without ending it: connections stay open and nobody answers. Returns once it has stopped."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: self.is_hung() or not self.is_alive(), f"stopping {self.name}")

    def cont(self):
        self.signal(signal.SIGCONT)
        wait_until(lambda: not self.is_hung(), f"continuing {self.name}")

    def stop(self, timeout=END_SECONDS):
        """Asks it to end (SIGTERM), hung or not, and kills it when it does not in `timeout` seconds."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        if not self._ends_within(timeout):
            self.kill9()
        self._record.unlink(missing_ok=True)

    def wait_gone(self, timeout=END_SECONDS):
        if not self._ends_within(timeout):
            raise Failed(f"{self.name} (pid {self.pid}) does not end")

    def _ends_within(self, timeout):
        """Waits for the end on a pidfd, which becomes readable with it."""
        pid = self.pid
        if pid is None:
            return True
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            if self.pid == pid:
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                poll.poll(timeout * 1000)
        finally:
            os.close(handle)
        return not self.is_alive()
