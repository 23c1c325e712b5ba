"""A small client for QEMU's monitor (QMP): commands with their replies, and waiting for events. Every wait has a
deadline; a monitor that goes away ends all waits with an Error."""
import json
import socket
import threading
import time


class Error(Exception):
    """A command failed, a wait ran out, or the monitor is gone."""


class Monitor:
    def __init__(self, path, limit_seconds=30):
        deadline = time.monotonic() + limit_seconds
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(path)
                break
            except OSError:
                self._socket.close()
                if time.monotonic() > deadline:
                    raise Error(f"no monitor at {path}") from None
                time.sleep(0.02)
        self.events = []
        self._replies, self._changed, self._is_gone, self._greeted = {}, threading.Condition(), False, False
        self._number = 0
        threading.Thread(target=self._read, daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._greeted or self._is_gone, limit_seconds)
        self.command("qmp_capabilities")

    def _read(self):
        pending = b""
        try:
            while chunk := self._socket.recv(65536):
                *lines, pending = (pending + chunk).split(b"\n")
                for line in filter(bytes.strip, lines):
                    self._take(json.loads(line))
        except OSError:
            pass
        with self._changed:
            self._is_gone = True
            self._changed.notify_all()

    def _take(self, message):
        with self._changed:
            if "QMP" in message:
                self._greeted = True
            elif "event" in message:
                message["at"] = time.monotonic()
                self.events.append(message)
            else:
                self._replies[message.get("id")] = message
            self._changed.notify_all()

    def command(self, name, limit_seconds=60, **arguments):
        """Sends one command (underscores in keys become dashes) and returns its reply."""
        self._number += 1
        number = self._number
        message = {"execute": name, "id": number,
                   "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as problem:
            raise Error(f"{name}: {problem}") from None
        with self._changed:
            if not self._changed.wait_for(lambda: number in self._replies or self._is_gone, limit_seconds):
                raise Error(f"{name}: no reply in {limit_seconds} s")
            if number not in self._replies:
                raise Error(f"{name}: the monitor is gone")
            reply = self._replies.pop(number)
        if "error" in reply:
            raise Error(f"{name}: {reply['error']['desc']}")
        return reply["return"]

    def wait(self, name, since=0, limit_seconds=120, **data):
        """The first event `name` at or after index `since` whose data has these values."""
        def found():
            return next((event for event in self.events[since:] if event["event"] == name and
                         all(event.get("data", {}).get(key) == value for key, value in data.items())), None)
        with self._changed:
            if not self._changed.wait_for(lambda: found() or self._is_gone, limit_seconds):
                raise Error(f"no event {name} {data} in {limit_seconds} s")
            event = found()
        if event is None:
            raise Error(f"the monitor went away before {name} {data}")
        return event
