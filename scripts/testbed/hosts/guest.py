"""A guest of the two hosts: boots in a few seconds, writes numbered blocks, says which writes are done, and is checked.

    guest = Guest(bed, cache, name="g1", disks=[Disk("vda", "/var/lib/libvirt/images/g1.qcow2", "qcow2")], rate=300)
    guest.start(bed.a)
    guest.wait_writing()
    ...
    guest.stop(bed.b)
    guest.check("/var/lib/libvirt/images/g1.qcow2", "qcow2", host=bed.b)
"""

import pathlib
import subprocess
import time
import uuid

import console
import domain
import guest_image
from domain import Disk  # noqa: F401  (part of this module's interface)
from processes import run, wait_until
from report import Failed

BOOT_SECONDS = 90  # two processors shared by everything make a boot of 4 s a long one
OPTIONS = ("mode", "rate", "run", "sync", "seed", "start", "blocks", "prefill", "verify", "dirty", "ackms", "times")


class Guest:
    """A guest and its console. Options are those of the writer (guest/writer.c): mode, rate, run, sync, seed, start, blocks,
    prefill, verify, dirty, ackms, times; disks are in the order in which the kernel finds them (vda, vdb, ...)."""

    def __init__(self, bed, cache, name="g1", disks=(), memory_mib=128, **options):
        if unknown := set(options) - set(OPTIONS):
            raise Failed(f"the writer has no option {', '.join(sorted(unknown))}")
        self.bed = bed
        self.name = name
        self.disks = list(disks)
        self.image = guest_image.build(cache)
        self.options = {"mode": "rand", "rate": 300, **options}
        self.uuid = uuid.uuid4()
        self.memory_mib = memory_mib
        self.console = console.Console(bed.folder / f"console-{name}.sock", bed.folder / f"console-{name}.log")

    def xml(self, disks=None):
        """The domain XML, with other disks when given (the same guest where its disks are elsewhere)."""
        words = [f"wl.{key}={value}" for key, value in self.options.items()]
        words.append("wl.disk=" + ",".join(disk.target for disk in self.disks))
        return domain.domain_xml(self.name, self.uuid, self.image, " ".join(words), disks or self.disks,
                                 f"/run/testbed/{self.console.path.name}", self.memory_mib)

    def write_xml(self, disks=None, suffix=""):
        """Writes the XML where both hosts can read it and returns its path in them."""
        file = self.bed.folder / f"{self.name}{suffix}.xml"
        file.write_text(self.xml(disks), encoding="utf-8")
        return f"/run/testbed/{file.name}"

    def start(self, host):
        """Defines and starts the guest; returns when QEMU runs. `wait_writing` waits for the boot."""
        path = self.write_xml()
        host.virsh("define", path)
        host.virsh("start", self.name)

    def stop(self, host):
        """Pulls the guest's plug and forgets its definition. One that has ended by itself has no plug to pull."""
        for verb in ("destroy", "undefine"):
            subprocess.run([*host.entry(), "virsh", "-q", "-c", "qemu:///system", verb, self.name], check=False,
                           capture_output=True, timeout=60)

    def state(self, host):
        """libvirt's word for the guest's state on this host, or None when the host does not know it."""
        done = subprocess.run([*host.entry(), "virsh", "-q", "-c", "qemu:///system", "domstate", self.name], check=False,
                              capture_output=True, text=True, timeout=60)
        return done.stdout.strip() if done.returncode == 0 else None

    @property
    def acks(self):
        """Every acknowledgement so far (console.Ack). For an idle guest, its ticks."""
        return list(self.console.acks)

    def wait_writing(self, writes=1, timeout=BOOT_SECONDS):
        """Waits until so many more writes were acknowledged, and returns the time of the last one."""
        begin = self.console.acks[-1].last if self.console.acks else 0
        self._wait(lambda: self.console.acks and self.console.acks[-1].last >= begin + writes,
                   f"{writes} writes of guest {self.name}", timeout)
        return self.console.acks[-1].time

    def wait_line(self, start, timeout=BOOT_SECONDS):
        """Waits for a line of the console that begins so, and returns it."""
        return self._wait(lambda: next((text for _, _, text in self.console.lines if text.startswith(start)), None),
                          f"'{start}' from guest {self.name}", timeout)

    def wait_prefilled(self, timeout=BOOT_SECONDS):
        for number in range(len(self.disks)):
            self.wait_line(f"PREFILLED {number} ", timeout)

    def _wait(self, condition, what, timeout):
        try:
            return wait_until(condition, what, timeout)
        except Failed as failure:
            raise Failed(f"{failure}; {self._last_words()}") from None

    def _last_words(self):
        if self.console.trouble:
            return f"the guest is in trouble: {self.console.trouble[:5]}"
        return f"the console's last lines: {[line[2] for line in self.console.lines[-5:]]}"

    def gap_ms(self, since=0.0, until=None):
        """The longest time without an acknowledged write between two moments (time.monotonic), now by default."""
        return console.longest_gap_ms(self.acks, since, time.monotonic() if until is None else until)

    def switch_gap_ms(self):
        """The time from the last acknowledgement before the guest moved to the first after; Failed when it did not move."""
        gaps = console.switch_gaps_ms(self.acks)
        if not gaps:
            raise Failed(f"guest {self.name} was heard from one QEMU only")
        return max(gaps)

    def writes_per_second(self, since=0.0, until=float("inf")):
        return console.writes_per_second(self.acks, since, until)

    def worst_write_ms(self, since=0.0, until=float("inf")):
        return console.worst_write_ms(self.acks, since, until)

    def snapshot(self, image, image_format, host=None):
        """The content of an image as a raw file of the testbed's folder: what `check` takes as `before`."""
        raw = self.bed.folder / f"snapshot-{self.name}-{time.monotonic_ns()}.raw"
        words = ["qemu-img", "convert", "-U", "-f", image_format, "-O", "raw", image]
        if host is None:
            run(*words, raw)
        else:
            host.run(*words, f"/run/testbed/{raw.name}", timeout=300)
        return raw

    def check(self, image, image_format="raw", host=None, target=None, before=None):
        """Looks in an image for every acknowledged write; returns what was counted, raises Failed naming what is lost, torn,
        wrong or changed. `image` is a path of this machine or, with `host`, of that host. No guest should be writing it.
        `target` chooses the disk (the first by default); with `before` (see `snapshot`) also what the guest did not write
        must be as it was."""
        number = [disk.target for disk in self.disks].index(target) if target else 0
        is_raw_here = image_format == "raw" and host is None
        raw = pathlib.Path(image) if is_raw_here else self.snapshot(image, image_format, host)
        try:
            return check_image(self.image.check, raw, self.console.log, number, before)
        except Failed as failure:
            if self.console.trouble:
                raise Failed(f"{failure}\n{self._last_words()}") from None
            raise
        finally:
            if not is_raw_here:
                raw.unlink()

    def close(self):
        self.console.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def check_image(checker, raw, log, disk=0, before=None):
    """Runs the checker; returns {"acknowledged": ..., "blocks": ..., ...} or raises Failed with what it found."""
    words = [str(word) for word in (checker, disk, raw, log, *([before] if before else []))]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        raise Failed(f"{raw} is not what the guest wrote:\n{done.stdout}{done.stderr}")
    return {name: int(value) for name, value in (word.split("=") for word in done.stdout.split("\n")[-2].split())}
