"""A move as its job tells it: the phases while it runs, and how it ended."""

import json
import subprocess
import time

from processes import LineReader, stop, wait_until
from report import Failed

END_SECONDS = 150
FINAL = ("done", "failed", "cancelled", "rolled-back", "paused")


class Job:
    """Follows `diskferry watch --progress json JOB` on a host."""

    def __init__(self, gateways, host, name):
        self.gateways = gateways
        self.host = host
        self.name = name
        self.began = time.monotonic()
        self._watch = subprocess.Popen(gateways.command(host, "watch", "--progress", "json", name), stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        self._reader = LineReader(self._watch.stdout)

    def events(self):
        """Every event so far, as it was printed."""
        return [json.loads(text) for text in self._reader.texts() if text.startswith("{")]

    def phases(self):
        return [phase for event in self.events() if event.get("kind") == "phase" if (phase := body(event).get("phase"))]

    def wait_phase(self, phase, timeout=90):
        """Waits until the move is in this phase. Failed when it ended, or went past it, before."""
        def is_there():
            seen = self.phases()
            if phase in seen:
                return True
            if self._watch.poll() is not None and phase not in self.phases():
                raise Failed(f"the move ended without the phase {phase}: {seen}; {self._watch.stderr.read().strip()}")
            return False
        wait_until(is_there, f"the phase {phase}", timeout)

    def wait_progress(self, bytes_done, timeout=60):
        """Waits until so much of the disks was copied."""
        def is_there():
            return any(event.get("kind") == "progress" and body(event).get("done", 0) >= bytes_done
                       for event in self.events()[-20:])
        wait_until(is_there, f"{bytes_done} bytes of the move", timeout)

    def watch_exit(self, timeout=60):
        """The exit code of `diskferry watch` once the job has ended."""
        try:
            return self._watch.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"diskferry watch still runs after {timeout} s") from None

    def describe(self):
        """What `diskferry jobs` says of it."""
        return next((job for job in self.gateways.jobs(self.host) if job["id"] == self.name), None)

    def wait_end(self, timeout=END_SECONDS, status=None):
        """Waits for the end and returns the job's description; with `status` it must have ended so."""
        found = {}

        def has_ended():
            found.update(self.describe() or {})
            return found.get("status") in FINAL
        try:
            wait_until(has_ended, f"the end of {self.name}", timeout)
        except Failed as failure:
            raise Failed(f"{failure}: {found.get('status')} in phase {found.get('phase')}") from None
        if status is not None and found["status"] != status:
            raise Failed(f"the move is {found['status']} ({found.get('phase')}) instead of {status}: {found.get('error')}")
        return found

    def close(self):
        stop(self._watch)


def body(event):
    """What an event says, whether it is an object or the text of one."""
    said = event.get("body") or {}
    return json.loads(said) if isinstance(said, str) else said
