"""A guest of host a as both contenders have it: QEMU, its monitor, the writer's console. Its disks are what the contender says."""
import json
import time

import console
import guest_image
from guest import check_image
from processes import wait_until
from qemu import Monitor
from report import Failed

BOOT_SECONDS = 120


class Machine:
    """`nodes` are the disks' nodes as -blockdev has them, with node-name disk0, disk1, ...; `writer` options of the writer."""

    def __init__(self, bed, cache, nodes, writer):
        self.image = guest_image.build(cache)
        self.console = console.Console(bed.folder / "console.sock", bed.folder / "console.log")
        disks = ",".join(f"vd{chr(ord('a') + number)}" for number in range(len(nodes)))
        options = {"mode": "rand", "seed": 1, "times": 1, "disk": disks, **writer}
        line = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check random.trust_cpu=on " + " ".join(
            f"wl.{key}={value}" for key, value in options.items())
        monitor = bed.folder / "qmp.sock"
        monitor.unlink(missing_ok=True)
        words = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-no-user-config", "-machine",
                 "pc-i440fx-7.2,accel=tcg", "-cpu", "qemu64", "-m", "128", "-kernel", self.image.kernel, "-initrd", self.image.initrd,
                 "-append", line, "-chardev", f"socket,id=console,path={self.console.path}", "-serial", "chardev:console",
                 "-qmp", f"unix:{monitor},server=on,wait=off"]
        for number, node in enumerate(nodes):
            words += ["-blockdev", json.dumps(node), "-device", f"virtio-blk-pci,drive=disk{number},serial=bench-{number}"]
        self.process = bed.a.start(*words, log=bed.folder / "qemu.log")
        self.monitor = Monitor(str(monitor))

    def wait_writing(self, writes=1, timeout=BOOT_SECONDS):
        """Until so many more writes were acknowledged. Returns when that was (time.monotonic())."""
        begin = self.console.acks[-1].last if self.console.acks else 0

        def wrote():
            if self.console.trouble:
                raise Failed(f"the guest is in trouble: {self.console.trouble[:3]}")
            return self.console.acks and self.console.acks[-1].last >= begin + writes

        wait_until(wrote, f"{writes} writes of the guest", timeout)
        return self.console.acks[-1].time

    def watch(self, seconds):
        """Lets it write for a while. Its own words are the clock: one that is silent fails here. Returns when it began."""
        began = time.monotonic()
        while self.wait_writing() < began + seconds:
            pass
        return began

    def written(self):
        """Writes acknowledged so far."""
        return self.console.acks[-1].last if self.console.acks else 0

    def stop(self):
        self.process.kill9()
        self.console.close()

    def check(self, image, disk=0):
        """Looks for every acknowledged write. Raises Failed."""
        if self.console.trouble:
            raise Failed(f"the guest is in trouble: {self.console.trouble[:3]}")
        return check_image(self.image.check, image, self.console.log, disk)
