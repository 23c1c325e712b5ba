"""QEMU as the demo drives it: one process, its monitor (QMP), its serial console."""

import json
import os
import queue
import socket
import subprocess
import threading
import time

from processes import stop, wait_until
from report import Failed


class Monitor:
    """A QMP connection: commands are answered in order, events are kept with the time they came."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(None)

        def connect():
            try:
                self.socket.connect(path)
                return True
            except OSError:
                return False

        wait_until(connect, f"connecting to QEMU's monitor {path}")
        self.events = []
        self.arrived = threading.Condition()
        self.answers = queue.Queue()
        self.is_closed = False
        threading.Thread(target=self._read, daemon=True).start()
        self.answers.get(timeout=20)  # the greeting
        self.command("qmp_capabilities")

    def _read(self):
        try:
            for line in self.socket.makefile("r", encoding="utf-8"):
                message = json.loads(line)
                if "event" in message:
                    with self.arrived:
                        self.events.append((time.monotonic(), message["event"], message.get("data", {})))
                        self.arrived.notify_all()
                else:
                    self.answers.put(message)
        except OSError:
            pass
        with self.arrived:
            self.is_closed = True
            self.arrived.notify_all()

    def command(self, name, timeout=60, **arguments):
        request = {"execute": name}
        if arguments:
            request["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        try:
            answer = self.answers.get(timeout=timeout)
        except queue.Empty:
            raise Failed(f"QEMU did not answer {name} in {timeout} s") from None
        if "error" in answer:
            raise Failed(f"QEMU: {name}: {answer['error']['desc']}")
        return answer.get("return")

    def wait_event(self, name, timeout=60, accept=lambda data: True):
        """The first event of that name that `accept` takes; events from before count too."""
        def found():
            return next((event for event in self.events if event[1] == name and accept(event[2])), None)

        with self.arrived:
            self.arrived.wait_for(lambda: found() or self.is_closed, timeout)
            event = found()
        if event is None:
            raise Failed(f"QEMU sent no {name} in {timeout} s; events: {[one[1:] for one in self.events][-8:]}")
        return event


class Console(threading.Thread):
    """Listens on a UNIX socket for serial consoles and keeps every line with the time it came.

    A guest that moves connects twice, once from each QEMU; one listener sees both ends on one clock.
    """

    def __init__(self, path):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(4)
        self.lines = []  # (time, number of the connection, text)
        self.start()

    def run(self):
        number = 0
        while True:
            connection, _ = self.listener.accept()
            number += 1
            threading.Thread(target=self._read, args=(connection, number), daemon=True).start()

    def _read(self, connection, number):
        rest = b""
        while True:
            try:
                data = connection.recv(65536)
            except OSError:
                return
            if not data:
                return
            now = time.monotonic()
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.lines.append((now, number, line.rstrip(b"\r").decode("utf-8", "replace")))

    def texts(self):
        return [text for _, _, text in list(self.lines)]

    def wait_line(self, start, timeout):
        def found():
            for line in list(self.lines):
                if line[2].startswith("GUEST cannot"):
                    raise Failed(f"the guest says: {line[2]}")
                if line[2].startswith(start):
                    return line
            return None

        try:
            return wait_until(found, f"waiting for '{start}' from the guest", timeout)
        except Failed as failure:
            raise Failed(f"{failure}; the console's last lines: {self.texts()[-5:]}") from None


class Machine:
    """A virtual machine under TCG: BIOS, one virtio disk, a serial console, no other devices."""

    def __init__(self, host, name, disk, task, console_path, extra=(), log=None):
        self.monitor_path = os.path.join(host.folder, name + ".qmp")
        command = [
            "qemu-system-x86_64", "-name", name, "-nodefaults", "-display", "none", "-no-reboot", "-no-user-config",
            "-machine", "pc-i440fx-7.2,accel=tcg", "-cpu", "qemu64", "-m", "192", "-smbios", f"type=1,product={task}",
            "-chardev", f"socket,id=console,path={console_path}", "-serial", "chardev:console",
            "-qmp", f"unix:{self.monitor_path},server=on,wait=off",
        ]
        for node in disk:
            command += ["-blockdev", json.dumps(node)]
        # bootindex: SeaBIOS boots the disk itself, there is no -kernel.
        command += ["-device", f"virtio-blk-pci,drive={disk[-1]['node-name']},id=disk,bootindex=1", *extra]
        self.process = host.start(*command, stdout=subprocess.DEVNULL, stderr=log)
        self.monitor = Monitor(self.monitor_path)

    def quit(self):
        try:
            self.monitor.command("quit", timeout=10)
        except (Failed, OSError):
            pass
        self.wait_end(20)

    def wait_end(self, timeout):
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            stop(self.process)
            raise Failed("the guest did not power off in time") from None
        finally:
            stop(self.process)


def chain(path, image_format, writable=True, top_name="disk0"):
    """The nodes of a local image file, topmost last; QEMU opens backing images by itself."""
    return [
        {"driver": "file", "node-name": "storage", "filename": path, "read-only": not writable, "discard": "unmap"},
        {"driver": image_format, "node-name": top_name, "file": "storage", "read-only": not writable},
    ]
