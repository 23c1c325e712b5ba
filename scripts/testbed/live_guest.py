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


class LocalGuest:
    """A guest of this machine whose disk is the export of a gateway. `words`: options of the writer (hosts/guest/writer.c)."""

    def __init__(self, folder, cache, gateway, **words):
        self.image = guest_image.build(cache)
        self.console = console.Console(pathlib.Path(folder) / "console.sock", pathlib.Path(folder) / "console.log")
        options = {"mode": "rand", "rate": 300, "seed": 1, "disk": "vda", **words}
        line = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check random.trust_cpu=on " + " ".join(
            f"wl.{key}={value}" for key, value in options.items())
        # A gateway that is started again is a wait for the guest, and no error.
        disk = {"driver": "nbd", "node-name": "disk0", "export": "vm", "reconnect-delay": RECONNECT_SECONDS, "discard": "unmap",
                "server": {"type": "unix", "path": str(gateway.nbd)}}
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-no-user-config", "-machine",
             "pc-i440fx-7.2,accel=tcg", "-cpu", "qemu64", "-m", "128", "-kernel", self.image.kernel, "-initrd", self.image.initrd,
             "-append", line, "-chardev", f"socket,id=console,path={self.console.path}", "-serial", "chardev:console",
             "-blockdev", json.dumps(disk), "-device", "virtio-blk-pci,drive=disk0,serial=df-demo"],
            stdin=subprocess.DEVNULL)

    def wait_writing(self, writes=1, timeout=BOOT_SECONDS):
        begin = self.console.acks[-1].last if self.console.acks else 0

        def wrote():
            if self.console.trouble:
                raise Failed(f"the guest is in trouble: {self.console.trouble[:3]}")
            return self.console.acks and self.console.acks[-1].last >= begin + writes

        wait_until(wrote, f"{writes} writes of the guest", timeout)

    def gap_ms(self, since):
        """The longest time without an acknowledged write since then (time.monotonic())."""
        return console.longest_gap_ms(self.console.acks, since, time.monotonic())

    def stop(self):
        self.process.kill()
        self.process.wait()

    def check(self, image):
        if self.console.trouble:
            raise Failed(f"the guest is in trouble: {self.console.trouble[:3]}")
        return check_image(self.image.check, image, self.console.log)


def make_disk(path):
    with open(path, "wb") as out:
        for at in range(0, DATA_BYTES, 1 << 20):
            out.seek(at * 2)
            out.write(f"what was there before, piece {at >> 20}\n".encode() * 30000)
        out.truncate(DISK_BYTES)
