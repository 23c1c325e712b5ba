#!/usr/bin/env python3
"""Two hosts on one machine, for tests that migrate guests: host-a (10.77.0.1) and host-b (10.77.0.2), joined by one wire.

    hosts.py up DIR | down DIR | status DIR | exec DIR a|b COMMAND...
    hosts.py link DIR [--mbit N] [--delay MS] [--cut] [--restore]

Each has its own network, mounts, name, processes, libvirtd, sshd and certificates; see README.md beside this file.
Needs root, and nothing of systemd or D-Bus. Nothing is left on the machine but DIR once a testbed is down.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
for place in (HERE, HERE.parent):
    if str(place) not in sys.path:
        sys.path.append(str(place))

import host_files  # noqa: E402
import inhabitants  # noqa: E402
import link  # noqa: E402
from processes import run, wait_until  # noqa: E402
from program import Program  # noqa: E402
from report import Failed  # noqa: E402

NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What of the caller's environment would lead programs to this machine's own services.
HIDDEN_VARIABLES = ("DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK",
                    "LIBVIRT_DEFAULT_URI", "NOTIFY_SOCKET")
START_SECONDS = 60


class Host:
    """One host of a testbed. Files in it are named as the host sees them; `outside` translates."""

    def __init__(self, folder, short, number):
        self.short = short
        self.name = f"host-{short}"
        self.address = f"10.77.0.{number}"
        self.uri = f"qemu+tcp://{self.name}/system"
        self.folder = pathlib.Path(folder) / short
        self._first = None
        self._lifeline = None

    def __str__(self):
        return self.name

    @property
    def pid(self):
        """The pid, on this machine, of the host's first process."""
        if self._first is None or not os.path.exists(f"/proc/{self._first}"):
            self._first = inhabitants.first_process(self.folder)
        if self._first is None:
            raise Failed(f"{self.name} is not up")
        return self._first

    def is_up(self):
        return inhabitants.first_process(self.folder) is not None

    def entry(self):
        """The words that run what follows them inside the host."""
        hide = [word for name in HIDDEN_VARIABLES for word in ("-u", name)]
        return ["nsenter", "-t", str(self.pid), *NAMESPACES, "--wd=/", "--", "env", *hide, f"PATH={PATH}", "HOME=/root"]

    def run(self, *command, timeout=60, **options):
        """Runs a command to its end and returns what it printed; raises Failed with what it said on its standard error."""
        entry = self.entry()
        try:
            return run(*entry, *command, timeout=timeout, **options)
        except Failed as failure:
            raise Failed(str(failure).replace(" ".join(entry), f"{self.name}:", 1)) from None

    def virsh(self, *words, timeout=60):
        """`virsh` on this host's own libvirtd."""
        return self.run("virsh", "-q", "-c", "qemu:///system", *words, timeout=timeout)

    def start(self, *command, log=None, held=False):
        """Starts a program and returns its handle (program.Program). `log` is a file on this machine; `held`: its standard
        input stays open until it is let go."""
        words = [str(word) for word in command]
        return Program(self.entry(), words, log or self.folder / f"{os.path.basename(words[0])}.log", held)

    def outside(self, path):
        """Where a file of the host is for this machine. What lies in the host's own folders is reachable after it is down."""
        path = os.path.normpath(path)
        for place in host_files.PLACES:
            if path == place or path.startswith(place + "/"):
                return f"{self.folder}/files{path}"
        return f"/proc/{self.pid}/root{path}"

    def processes(self):
        return inhabitants.inhabitants(self.pid)

    def find_pid(self, program):
        """The pid on this machine of the first process of this name, or None."""
        return next((one.pid for one in self.processes() if os.path.basename(one.argv[0]) == program), None)

    def qemu_pid(self, guest):
        """The pid on this machine of the guest's QEMU, or None when it does not run here."""
        for one in self.processes():
            if "-name" in one.argv and one.argv[one.argv.index("-name") + 1].split(",")[0] in (guest, f"guest={guest}"):
                return one.pid
        return None

    def start_libvirtd(self):
        """Starts libvirtd and returns when it takes connections."""
        self.run("libvirtd", "--daemon", "--listen", "--config", "/etc/libvirt/libvirtd.conf", "--pid-file",
                 "/run/libvirtd.pid", timeout=START_SECONDS)
        wait_until(lambda: self._answers("virsh", "-q", "-c", "qemu:///system", "uri"), f"libvirtd on {self.name}",
                   START_SECONDS)

    def kill_libvirtd(self):
        """Kills libvirtd as a crash would; guests go on. Returns once it is gone."""
        pid = self.find_pid("libvirtd")
        if pid is None:
            raise Failed(f"{self.name} has no libvirtd to kill")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), f"the end of libvirtd on {self.name}")

    def start_sshd(self):
        self.run("/usr/sbin/sshd", "-f", self.folder / "sshd_config", "-E", self.folder / "sshd.log")

    def crash(self):
        """The host loses its power: every process and mount is gone at once. Testbed.start_host brings it back."""
        if not inhabitants.end_host(self.folder):
            raise Failed(f"{self.name} does not end")
        self._first = None
        self._drop_lifeline()

    def _answers(self, *command):
        return subprocess.run([*self.entry(), *command], capture_output=True, check=False, timeout=30,
                              stdin=subprocess.DEVNULL).returncode == 0

    def _drop_lifeline(self):
        if self._lifeline is not None:
            self._lifeline.stdin.close()
            self._lifeline.wait(20)
            self._lifeline = None

    def _boot(self, mode):
        """Starts the first process and waits until the host has its files."""
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        words = ["unshare", *NAMESPACES, "--fork", "--kill-child=KILL", "--mount-proc", "--propagation", "private",
                 inhabitants.INIT, self.folder, self.name, mode]
        with open(self.folder / "unshare.log", "wb") as log:
            first = subprocess.Popen([str(word) for word in words], stdin=subprocess.PIPE, stdout=log, stderr=log,
                                     start_new_session=True)
        self._lifeline = first
        wait_until(lambda: ready.exists() or first.poll() is not None, f"starting {self.name}", START_SECONDS)
        if first.poll() is not None:
            raise Failed(f"{self.name} does not start:\n" + "".join(
                (self.folder / file).read_text(encoding="utf-8") for file in ("unshare.log", "init.log")
                if (self.folder / file).exists()))


class Testbed:
    """Two hosts, `a` and `b`. As a context manager it is up inside and down after, whatever happened; if this process is
    killed, the hosts end by themselves. Several testbeds can be up at once: nothing of them has a name on the machine.
    """

    __test__ = False  # no test of pytest's

    def __init__(self, folder):
        self.folder = pathlib.Path(folder).resolve()
        for place in ("/run", "/proc", "/sys", *host_files.PLACES):
            if self.folder.is_relative_to(place):
                raise Failed(f"a testbed's folder cannot be in {place}, which is another one in each host")
        self.a = Host(self.folder, "a", 1)
        self.b = Host(self.folder, "b", 2)
        self.hosts = (self.a, self.b)
        self._link_file = self.folder / "link.json"
        self._stays = True

    def __enter__(self):
        self.up(stays=False)
        return self

    def __exit__(self, *_):
        self.down()

    def up(self, stays=True):
        """Brings both hosts up with libvirtd and sshd. With `stays` they outlive this process, until `down`."""
        if any(host.is_up() for host in self.hosts):
            raise Failed(f"{self.folder} is up already; hosts.py down {self.folder}")
        try:
            host_files.write(self.folder, [(host.short, host.name, host.address) for host in self.hosts])
            self._link_file.unlink(missing_ok=True)
            self._stays = stays
            for host in self.hosts:
                host._boot("stay" if stays else "lifeline")
            link.connect(self.hosts)
            with concurrent.futures.ThreadPoolExecutor() as pool:
                list(pool.map(self._start_services, self.hosts))
        except BaseException:
            self.down()
            raise

    def start_host(self, host):
        """Brings back a host that crashed, on a new wire with the old settings."""
        link.remove_line(self.hosts)
        host._boot("stay" if self._stays else "lifeline")
        link.connect(self.hosts)
        self._apply(self._link())
        self._start_services(host)

    @staticmethod
    def _start_services(host):
        host.start_sshd()
        host.start_libvirtd()

    def down(self):
        """Ends both hosts with everything in them. Says nothing when there is nothing to end."""
        left = []
        for host in self.hosts:
            try:
                host.crash()
            except Failed as failure:
                left.append(str(failure))
        if left:
            raise Failed("; ".join(left))

    def link(self, mbit=None, delay_ms=None, is_fast=False):
        """Sets the wire's rate (Mbit/s, each way) and delay (ms, each way); None is without a limit. Ends a cut. `is_fast`: see
        link.shape()."""
        self._apply({**self._link(), "mbit": mbit, "delay_ms": delay_ms, "is_fast": is_fast, "cut": False})

    def link_cut(self):
        """Drops every packet from now on, in both directions."""
        self._apply({**self._link(), "cut": True})

    def link_restore(self):
        """Ends a cut; rate and delay are what they were."""
        self._apply({**self._link(), "cut": False})

    def wire_bytes(self):
        """Bytes that host a has sent to host b since they were connected, headers included."""
        return self._link()["carried"] + link.sent_bytes(self.a)

    def _link(self):
        if self._link_file.exists():
            return json.loads(self._link_file.read_text(encoding="utf-8"))
        return {"mbit": None, "delay_ms": None, "is_fast": False, "cut": False, "carried": 0}

    def _apply(self, wanted):
        # A delay line takes its counter with it.
        wanted["carried"] += link.sent_bytes(self.a, (link.LINE,))
        if wanted["cut"]:
            link.cut(self.hosts)
        else:
            link.shape(self.hosts, wanted["mbit"], wanted["delay_ms"], wanted["is_fast"])
        self._link_file.write_text(json.dumps(wanted), encoding="utf-8")

    def status(self):
        lines = [f"link {self._link()}"]
        for host in self.hosts:
            if not host.is_up():
                lines.append(f"{host.name} is down")
                continue
            guests = host.virsh("list", "--all").strip() or "no guests"
            lines.append(f"{host.name} {host.address} first process {host.pid}\n  {guests}")
        return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("up", "down", "status"):
        verbs.add_parser(verb).add_argument("folder", metavar="DIR")
    execute = verbs.add_parser("exec")
    execute.add_argument("folder", metavar="DIR")
    execute.add_argument("host", choices=("a", "b"))
    execute.add_argument("command", nargs=argparse.REMAINDER)
    wire = verbs.add_parser("link")
    wire.add_argument("folder", metavar="DIR")
    wire.add_argument("--mbit", type=int, help="rate of each direction")
    wire.add_argument("--delay", type=int, metavar="MS", help="delay of each direction")
    wire.add_argument("--cut", action="store_true", help="drop every packet")
    wire.add_argument("--restore", action="store_true", help="end a cut")
    return parser.parse_args()


def main():
    given = arguments()
    bed = Testbed(given.folder)
    if given.verb == "up":
        began = time.monotonic()
        bed.up()
        print(f"up after {time.monotonic() - began:.1f} s")
    elif given.verb == "down":
        bed.down()
    elif given.verb == "exec":
        words = [*(bed.a if given.host == "a" else bed.b).entry(), *given.command]
        os.execvp(words[0], words)
    elif given.verb == "link":
        if given.cut:
            bed.link_cut()
        elif given.restore:
            bed.link_restore()
        else:
            bed.link(given.mbit, given.delay)
    if given.verb != "down":
        print(bed.status())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        print(f"hosts.py: {failure}", file=sys.stderr)
        sys.exit(1)
