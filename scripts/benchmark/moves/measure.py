"""One move of one guest by one contender, on a testbed that is up: prepared, measured, checked, cleaned up after."""
import contextlib
import dataclasses
import pathlib
import shutil
import subprocess
import time

import migrate
from gateways import Gateways
from guest import Disk, Guest
from processes import wait_until
from report import Failed

IMAGES = "/var/lib/libvirt/images"
SOURCE = f"{IMAGES}/bench.qcow2"
RAW_TARGET = f"{IMAGES}/bench.raw"
SHARED_TARGET = "/run/testbed/bench-shared.raw"  # one file that both hosts see
STAND_IN_SOCKET = "/run/bench-stand-in.sock"
STOP_SECONDS = 120
BEFORE_SECONDS = 2  # how long the guest is watched before it moves, and after

# The ways of libvirt alone. Each copies to a qcow2 image that is there already.
LIBVIRT = {"virsh": (), "virsh, synchronous writes": ("--copy-storage-synchronous-writes",),
           "virsh, TLS": ("--tls", "--tls-destination", "host-b"),
           "virsh, parallel": ("--parallel", "--parallel-connections", "2")}
OURS, BOUND = "diskferry", "stand-in"


@dataclasses.dataclass
class Figures:
    """What one move came to. `outcome` is "moved", "never" (aborted after the limit) or what went wrong; the other figures
    count for "moved" only, except `during`. Rates are acknowledged writes of the guest a second."""

    outcome: str
    seconds: float = 0.0
    downtime_ms: int = 0
    gap_ms: float = 0.0
    before: float = 0.0
    during: float = 0.0
    wire_bytes: int = 0


class Measure:
    """`programs` is the folder of diskferry and diskferryd, `cache` where the guest's kernel is kept, `logs` gets the logs
    of our moves that failed."""

    def __init__(self, bed, cache, programs, disk_mib, limit_seconds, logs):
        self.bed, self.cache, self.programs, self.logs = bed, cache, programs, pathlib.Path(logs)
        self.disk_mib, self.limit = disk_mib, limit_seconds

    def warm_up(self):
        """A libvirtd asks its QEMU what it can do when that is needed first, which takes seconds: nobody's move pays for it."""
        for host in self.bed.hosts:
            host.run("virsh", "domcapabilities", "--virttype", "qemu")
            host.run("virsh", "capabilities")  # of every emulator

    def run(self, row, contender):
        """Figures of one move; raises nothing of Failed, since the next contender is to have its turn."""
        self.bed.link()
        try:
            self._make_disks()
            with Guest(self.bed, self.cache, name="bench", disks=[Disk("vda", SOURCE, "qcow2")], verify=4,
                       **row.writer) as guest, contextlib.ExitStack() as helpers:
                try:
                    return self._with_guest(guest, row, contender, helpers)
                finally:
                    self._stop(guest)
        except Failed as problem:
            # An emulated guest's memory may be damaged on the way by whoever moves it (scripts/testbed/hosts/README.md).
            first = "the guest's kernel panicked" if "Kernel panic" in str(problem) else str(problem).strip().splitlines()[0]
            return Figures(f"failed: {first[:160]}")
        finally:
            self.bed.link()

    def _make_disks(self):
        for host, path, kind in ((self.bed.a, SOURCE, "qcow2"), (self.bed.b, SOURCE, "qcow2"),
                                 (self.bed.a, SHARED_TARGET, "raw")):
            host.run("rm", "-f", path)
            host.run("qemu-img", "create", "-q", "-f", kind, path, f"{self.disk_mib}M")
        self.bed.b.run("rm", "-f", RAW_TARGET)

    def _with_guest(self, guest, row, contender, helpers):
        move, target, kind = self._contender(guest, contender, helpers)
        guest.start(self.bed.a)
        guest.wait_writing()
        self.bed.link(row.mbit, row.delay_ms)
        watched = time.monotonic()
        self._watch(guest, watched)
        sent, began = self.bed.wire_bytes(), time.monotonic()
        before = guest.writes_per_second(watched, began)
        outcome, downtime_ms = "moved", 0
        try:
            downtime_ms = move()
        except Failed:
            if time.monotonic() - began < self.limit:
                raise
            outcome = "never"
        ended = time.monotonic()
        figures = Figures(outcome, ended - began, 0, 0.0, before, guest.writes_per_second(began, ended),
                          self.bed.wire_bytes() - sent)
        if outcome == "moved":
            self._watch(guest, ended)
            figures.gap_ms = guest.gap_ms(began)
            figures.downtime_ms = downtime_ms
            guest.stop(self.bed.b)
            self._check(guest, target, kind)
        return figures

    def _check(self, guest, target, kind):
        """Looks for every acknowledged write. What is needed to find out why one is not there is kept."""
        try:
            guest.check(target, kind, host=self.bed.b)
        except Failed as problem:
            kept = self.logs / f"{time.strftime('%H%M%S')}-lost"
            kept.mkdir(parents=True)
            (kept / "problem").write_text(str(problem))
            shutil.copy(guest.console.log, kept)
            for host in self.bed.hosts:
                for log in (host.folder / "diskferryd.log", pathlib.Path(host.outside(f"/var/log/libvirt/qemu/{guest.name}.log"))):
                    if log.exists():
                        shutil.copy(log, kept / f"{host.short}-{log.name}")
            subprocess.run(["cp", "--sparse=always", self.bed.b.outside(target), kept], check=True)
            raise

    @staticmethod
    def _watch(guest, since):
        """Lets the guest write for a while. Its own lines are the clock: one that is silent fails here."""
        while guest.wait_writing(1) < since + BEFORE_SECONDS:
            pass

    def _contender(self, guest, contender, helpers):
        """What moves the guest and returns its downtime, and the image and its format that the guest ends on."""
        if contender == OURS:
            gateways = helpers.enter_context(Gateways(self.bed, self.programs))
            return (lambda: self._ours(guest, gateways)), RAW_TARGET, "raw"
        if contender == BOUND:
            self._start_stand_in(helpers)
            xml = guest.write_xml([Disk("vda", SHARED_TARGET)], "-bound")
            options = ("--xml", xml, "--persistent-xml", xml, "--disks-uri", f"unix://{STAND_IN_SOCKET}")
            return (lambda: self._libvirt(guest, options)), SHARED_TARGET, "raw"
        return (lambda: self._libvirt(guest, LIBVIRT[contender])), SOURCE, "qcow2"

    def _ours(self, guest, gateways):
        try:
            gateways.migrate(guest, {"vda": RAW_TARGET}, timeout=self.limit)
        except Failed:
            self.logs.mkdir(parents=True, exist_ok=True)
            for host in self.bed.hosts:
                shutil.copy(gateways.log_of(host), self.logs / f"{time.strftime('%H%M%S')}-{host.name}.log")
            raise
        return migrate.downtime_ms(self.bed.b, guest.name)

    def _libvirt(self, guest, options):
        # libvirt forgets its figures when they are read: they cannot be asked for again.
        return migrate.migrate(guest, self.bed.a, self.bed.b, options, timeout=self.limit).downtime_ms

    def _start_stand_in(self, helpers):
        """The best that interception can do: every write is acknowledged from local memory, and what the target's guest
        opens is the very same file, so that not a byte of the disk crosses the link."""
        self.bed.a.run("rm", "-f", STAND_IN_SOCKET)
        server = self.bed.a.start("nbdkit", "-f", "-U", STAND_IN_SOCKET, "-e", "drive-virtio-disk0", "file", SHARED_TARGET,
                                  log=self.bed.folder / "stand-in.log")
        helpers.callback(server.stop)

    def _stop(self, guest):
        """Pulls the guest's plug wherever it is: after a failure that may be either host, and libvirt may be busy for a while
        with a migration that was given up."""
        for host in self.bed.hosts:
            def is_gone(where=host):
                if guest.state(where) is not None:
                    guest.stop(where)
                return guest.state(where) is None
            wait_until(is_gone, f"the end of {guest.name} on {host}", STOP_SECONDS)
