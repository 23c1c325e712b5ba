"""Where a case of these tests happens: two hosts with gateways, a guest with a chain of three images, and the checks.

    with Place(programs, cache) as place:
        guest = place.guest(place.chain(), rate=200)
        job = place.begin({"vda": f"{IMAGES}/new.raw"})
        job.wait_phase("bulk")
        ...
        job.wait_end()
        place.expect_on(place.bed.b)
        place.expect_nothing_left()
        place.check("vda", f"{IMAGES}/new.raw", "raw", place.bed.b)
"""

import contextlib
import json
import pathlib
import shutil
import subprocess
import tempfile

from gateways import Gateways, with_pause
from guest import Disk, Guest
from host_storage import make_storage
from hosts import Testbed
from job import Job
from processes import wait_until
from report import Failed, say

IMAGES = "/var/lib/libvirt/images"
MOVES = "/run/diskferry/moves"
RECORDS = "/var/lib/diskferry/targets"
SMALL = "/var/lib/libvirt/small"  # a file system of its own on host b
SHARED = "/var/lib/libvirt/shared"  # one folder of both hosts, where a case asks for it
STORE_FAILS = f"{IMAGES}/store-fails"  # while it is there, the store of that case answers with errors
DISK_MIB = 96
SETTLE_SECONDS = 90
BOOT_SECONDS = 180  # an emulated guest on a machine that does other things, too


def expect(condition, what):
    if not condition:
        raise Failed(what)


class Panicked(Failed):
    """The guest's kernel panicked: under emulation a migrated guest loses memory now and then, with any tool."""


class Place:
    """A fresh testbed for one case. Ends everything in it; a case that failed leaves the logs in `keep`, when given."""

    def __init__(self, programs, cache, keep=None, more=""):
        self.programs = programs
        self.cache = cache
        self.keep = keep
        self.more = more  # lines of the gateways' configuration, in [move]
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="moves-"))
        self.bed = Testbed(self.folder)
        self.gateways = None
        self.vm = None
        self.jobs = []
        self.helpers = []
        self.storages = contextlib.ExitStack()

    def __enter__(self):
        try:
            self.bed.up(stays=False)
            self.gateways = Gateways(self.bed, self.programs, log="debug", more=self.more)
            for host in self.bed.hosts:
                self.gateways.start(host)
        except BaseException as failure:
            self.__exit__(type(failure), failure, None)
            raise
        return self

    def __exit__(self, kind, failure, _):
        for job in self.jobs:
            job.close()
        if self.vm is not None:
            if kind is not None and self.keep:
                self._keep_guest()
            self.vm.close()
        try:
            self.storages.close()  # they leave something outside of their folders when they are only killed
        finally:
            self.bed.down()
        if kind is not None and self.keep:
            self._keep_logs()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _keep_guest(self):
        """What a guest that is silent does: whether its processor moves, and what its disks wait for."""
        questions = (("--hmp", "info registers"), ("--hmp", "info registers"), ("--hmp", "info status"), ("--hmp", "info block"),
                     ("--hmp", "info block-jobs"), ("--pretty", '{"execute": "query-blockstats"}'))
        pathlib.Path(self.keep).mkdir(parents=True, exist_ok=True)
        for host in self.bed.hosts:
            if not host.qemu_pid(self.vm.name):
                continue
            with open(pathlib.Path(self.keep) / f"{host.short}-guest.txt", "w", encoding="utf-8") as said:
                for words in questions:
                    print(*words, file=said, flush=True)
                    # What came until then is all there is of one that does not answer.
                    subprocess.run(["timeout", "20", *host.entry(), "virsh", "-q", "-c", "qemu:///system", "qemu-monitor-command",
                                    self.vm.name, *words], check=False, stdout=said, stderr=said, stdin=subprocess.DEVNULL)

    def _keep_logs(self):
        pathlib.Path(self.keep).mkdir(parents=True, exist_ok=True)
        for host in self.bed.hosts:
            logs = pathlib.Path(host.outside("/var/log/libvirt"))
            for log in (host.folder / "diskferryd.log", logs / "libvirtd.log", *logs.glob("qemu/*.log"),
                        *host.folder.glob("storage-*.log")):
                if log.exists():
                    shutil.copy(log, pathlib.Path(self.keep) / f"{host.short}-{log.name}")
        for log in self.folder.glob("console-*.log"):
            shutil.copy(log, self.keep)

    # -- what is there before a move

    def chain(self, name="g1", mib=DISK_MIB, data_mib=2, folder=IMAGES):
        """Three layers on host a, as somebody has who took two snapshots; the disk on top. `data_mib` is in the base."""
        host = self.bed.a
        base, middle, top = (f"{folder}/{name}{suffix}.qcow2" for suffix in ("-base", "-middle", ""))
        host.run("qemu-img", "create", "-q", "-f", "qcow2", base, f"{mib}M")
        host.run("qemu-io", "-f", "qcow2", "-c", f"write -q -P 0x21 32M {data_mib}M", base)
        host.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", middle)
        host.run("qemu-io", "-f", "qcow2", "-c", "write -q -P 0x5a 20M 3M", middle)
        host.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top)
        return top

    def guest(self, *sources, **options):
        """Starts a guest on host a that writes to these qcow2 images (vda, vdb, ...) or Disks, and waits until it does."""
        disks = [source if isinstance(source, Disk) else Disk(f"vd{letter}", source, "qcow2")
                 for letter, source in zip("abcd", sources)]
        self.vm = Guest(self.bed, self.cache, disks=disks, **{"rate": 150, "verify": 8, **options})
        self.vm.start(self.bed.a)
        self.vm.wait_writing(100, timeout=BOOT_SECONDS)
        return self.vm

    def store(self, host, name, mib=DISK_MIB, filters=(), more=()):
        """An NBD server with one empty disk beside the gateway of a host; its URI, which both hosts know."""
        port = 10900 + len(self.helpers)
        image = f"{IMAGES}/{name}.store"
        host.run("truncate", "-s", f"{mib}M", image)
        words = ["nbdkit", "-f", "-p", port, *[f"--filter={one}" for one in filters], "file", image, *more]
        self.helpers.append(host.start(*words, log=host.folder / f"{name}.log"))
        wait_until(lambda: host._answers("nbdinfo", "--size", f"nbd://{host.name}:{port}"), f"the store {name}", 30)
        return f"nbd://{host.name}:{port}", image

    def storage(self, kind, host=None):
        """A storage server of host_storage.py on a host, b by default; until the end of the case."""
        return self.storages.enter_context(make_storage(self.bed, host or self.bed.b, kind))

    def small(self, mib=160):
        """A file system of its own for targets on host b: large enough, until somebody fills it."""
        self.bed.b.run("mkdir", "-p", SMALL)
        self.bed.b.run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "small", SMALL)

    def share(self):
        """A folder that both hosts have mounted, as they would an NFS export."""
        (self.bed.folder / "shared").mkdir()
        for host in self.bed.hosts:
            host.run("mkdir", "-p", SHARED)
            host.run("mount", "--bind", "/run/testbed/shared", SHARED)

    # -- a move

    def begin(self, disks, source=None, target=None, options=()):
        """Starts a move and follows it; the command line that asked for it is not waited for."""
        source = source or self.bed.a
        words = ["migrate", self.vm.name, "--to", (target or self.bed.b).uri, "--detach", "--progress", "none"]
        for name, place in disks.items():
            words += ["--disk", f"{name}={place}"]
        done = subprocess.run(self.gateways.command(source, *words, *with_pause(options)), capture_output=True, text=True,
                              check=False, timeout=120, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise Failed(f"diskferry migrate: exit {done.returncode}: {done.stderr.strip()} {done.stdout.strip()}")
        return self.follow(done.stdout.split()[-1], source)

    def plan(self, disks, code=0, options=()):
        """What `diskferry plan migrate` says, as JSON; Failed when it exits otherwise."""
        words = ["plan", "migrate", self.vm.name, "--to", self.bed.b.uri, "--json", *options]
        for name, place in disks.items():
            words += ["--disk", f"{name}={place}"]
        done = subprocess.run(self.gateways.command(self.bed.a, *words), capture_output=True, text=True, check=False,
                              timeout=120, stdin=subprocess.DEVNULL)
        expect(done.returncode == code, f"diskferry plan migrate: exit {done.returncode}: {done.stderr} {done.stdout}")
        return json.loads(done.stdout)

    def follow(self, name, host=None):
        self.jobs.append(Job(self.gateways, host or self.bed.a, name))
        return self.jobs[-1]

    # -- what must hold after a move

    def states(self):
        return {host.short: self.vm.state(host) for host in self.bed.hosts}

    def where(self, timeout=SETTLE_SECONDS):
        """The one host on which the guest runs; raises Failed when that does not settle."""
        def one():
            if any("Kernel panic" in text for text in self.vm.console.trouble):
                raise Panicked(f"the guest's kernel panicked: {self.states()}")
            states = self.states()
            runs = [host for host in self.bed.hosts if states[host.short] == "running"]
            others = [state for state in states.values() if state not in ("running", None, "shut off")]
            return runs[0] if len(runs) == 1 and not others else None
        try:
            return wait_until(one, "one host that runs the guest", timeout)
        except Failed as failure:
            raise Failed(f"{failure}: {self.states()}") from None

    def ending(self):
        """What the states say when they say anything: the name of the one host that runs it, "nowhere", or nothing yet."""
        states = self.states()
        runs = [host.name for host in self.bed.hosts if states[host.short] == "running"]
        if len(runs) == 1:
            return runs[0]
        return None if set(states.values()) & {"running", "paused"} else "nowhere"

    def expect_on(self, host, defined_elsewhere=False):
        """The guest runs and writes on this host, stays there, and is gone from the other one."""
        found = self.where()
        expect(found is host, f"the guest runs on {found}: {self.states()}")
        self.vm.wait_writing(100)
        other = self.bed.b if host is self.bed.a else self.bed.a
        if not defined_elsewhere:
            expect(self.vm.state(other) is None, f"{other} still has a definition: {self.states()}")
        persistent = host.virsh("dominfo", self.vm.name)
        expect("Persistent:     yes" in persistent, f"the guest on {host} is not persistent:\n{persistent}")

    def left(self):
        """What a move left on both hosts: sockets, records and exports."""
        found = []
        for host in self.bed.hosts:
            for folder in (MOVES, RECORDS):
                path = pathlib.Path(host.outside(folder))
                found += [f"{host}: {folder}/{one.name}" for one in (path.iterdir() if path.exists() else ())]
            done = subprocess.run(self.gateways.command(host, "exports"), capture_output=True, text=True, check=False,
                                  timeout=60)
            found += [f"{host}: export {line}" for line in done.stdout.splitlines() if "-vd" in line]
        return found

    def expect_nothing_left(self, *gone):
        """No sockets, exports, records; and none of these files on host b."""
        def is_clean():
            return not self.left()
        try:
            wait_until(is_clean, "a clean end", 15)
        except Failed:
            raise Failed("left over: " + ", ".join(self.left())) from None
        for path in gone:
            expect(not pathlib.Path(self.bed.b.outside(path)).exists(), f"host-b still has {path}")

    def check(self, image, image_format, host, target="vda"):
        """Pulls the plug, when the guest runs, and looks for every acknowledged write."""
        if self.vm.state(host) == "running":
            self.vm.stop(host)
        counted = self.vm.check(image, image_format, host=host, target=target)
        expect(not self.vm.console.trouble, f"the guest is in trouble: {self.vm.console.trouble[:5]}")
        expect(counted["blocks"] > 50, f"too little was written to say anything: {counted}")
        say(f"{target}: all there: {counted}")
