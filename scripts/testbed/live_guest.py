"""A gateway with one export, and a guest of this machine whose disk that is: for what happens to storage under a guest."""

import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE / "hosts"))

import console  # noqa: E402
import guest_image  # noqa: E402
from guest import check_image  # noqa: E402
from processes import run, wait_until  # noqa: E402
from report import Failed  # noqa: E402

DISK_BYTES = 256 << 20
DATA_BYTES = 96 << 20
BOOT_SECONDS = 120
REPLACE_SECONDS = 180
RECONNECT_SECONDS = 60  # so long the guest's requests wait for a gateway that is started again


class Gateway:
    """diskferryd with one export, vm."""

    def __init__(self, programs, folder, image):
        self.folder = pathlib.Path(folder)
        self.program = os.path.join(programs, "diskferry")
        self._daemon = os.path.join(programs, "diskferryd")
        self.nbd = self.folder / "nbd.sock"
        self.control = self.folder / "control.sock"
        self.config = self.folder / "diskferryd.toml"
        self.config.write_text(f'[control]\nsocket = "{self.control}"\n[nbd]\nlisten = "unix:{self.nbd}"\n'
                               f'[state]\nfolder = "{self.folder}/state"\n[move]\nrun-folder = "{self.folder}/run"\n'
                               f'[[export]]\nname = "vm"\nimage = "{image}"\nformat = "raw"\nwritable = true\n', encoding="utf-8")
        self._log = open(self.folder / "diskferryd.log", "ab")  # pylint: disable=consider-using-with
        self.process = None

    def start(self):
        self.process = subprocess.Popen([self._daemon, "--config", self.config], stdout=subprocess.PIPE, stderr=self._log)
        line = self.process.stdout.readline().decode()
        if not line.startswith("READY"):
            raise Failed(f"the gateway does not start; see {self._log.name}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise Failed("the gateway does not end") from None

    def ask(self, *words, timeout=REPLACE_SECONDS):
        return run(self.program, *words, "--gateway", f"unix:{self.control}", timeout=timeout)

    def replace(self, target, *options):
        """Returns the report."""
        return json.loads(self.ask("replace", "vm", target, "--progress", "none", "--json", *options))


class WritingGuest:
    """A guest that boots Debian's kernel with the writer (hosts/guest/writer.c) and tells on its console what it has written.
    What `start` returns is its process; `nodes` are the nodes of its disks, named disk0, disk1, ...; `words`: options of the writer."""

    def __init__(self, folder, cache, nodes, words, start, options=()):
        self.image = guest_image.build(cache)
        self.console = console.Console(pathlib.Path(folder) / "console.sock", pathlib.Path(folder) / "console.log")
        disks = ",".join(f"vd{chr(ord('a') + number)}" for number in range(len(nodes)))
        told = {"mode": "rand", "seed": 1, "disk": disks, **words}
        line = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check random.trust_cpu=on " + " ".join(
            f"wl.{key}={value}" for key, value in told.items())
        command = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-no-user-config", "-machine",
                   "pc-i440fx-7.2,accel=tcg", "-cpu", "qemu64", "-m", "128", "-kernel", self.image.kernel, "-initrd", self.image.initrd,
                   "-append", line, "-chardev", f"socket,id=console,path={self.console.path}", "-serial", "chardev:console", *options]
        for number, node in enumerate(nodes):
            command += ["-blockdev", json.dumps(node), "-device", f"virtio-blk-pci,drive=disk{number},serial=df-{number}"]
        self.process = start(command)

    def wait_writing(self, writes=1, timeout=BOOT_SECONDS):
        """Until so many more writes were acknowledged. Returns when that was (time.monotonic())."""
        begin = self.console.acks[-1].last if self.console.acks else 0

        def wrote():
            self._expect_well()
            return self.console.acks and self.console.acks[-1].last >= begin + writes

        wait_until(wrote, f"{writes} writes of the guest", timeout)
        return self.console.acks[-1].time

    def check(self, image):
        """Looks for every acknowledged write. Raises Failed."""
        self._expect_well()
        return check_image(self.image.check, image, self.console.log)

    def _expect_well(self):
        if self.console.trouble:
            raise Failed(f"the guest is in trouble: {self.console.trouble[:3]}")


def export_node(socket, name, node_name):
    """A disk that is an export. A gateway that is started again is a wait for the guest, and no error."""
    return {"driver": "nbd", "node-name": node_name, "export": name, "reconnect-delay": RECONNECT_SECONDS, "discard": "unmap",
            "server": {"type": "unix", "path": str(socket)}}


class LocalGuest(WritingGuest):
    """A guest of this machine whose disk is the export of a gateway."""

    def __init__(self, folder, cache, gateway, **words):
        super().__init__(folder, cache, [export_node(gateway.nbd, "vm", "disk0")], {"rate": 300, **words},
                         lambda command: subprocess.Popen(command, stdin=subprocess.DEVNULL))

    def gap_ms(self, since):
        """The longest time without an acknowledged write since then (time.monotonic())."""
        return console.longest_gap_ms(self.console.acks, since, time.monotonic())

    def stop(self):
        self.process.kill()
        self.process.wait()


def make_disk(path):
    with open(path, "wb") as out:
        for at in range(0, DATA_BYTES, 1 << 20):
            out.seek(at * 2)
            out.write(f"what was there before, piece {at >> 20}\n".encode() * 30000)
        out.truncate(DISK_BYTES)
