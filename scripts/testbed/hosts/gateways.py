"""diskferryd on both hosts of a testbed, and moves between them: for tests, the demo and the benchmark.

    with Gateways(bed, programs) as gateways:
        move = gateways.migrate(guest, {"vda": "/var/lib/libvirt/images/g1.raw"})
"""

import json
import pathlib
import subprocess
import time

from processes import wait_until
from report import Failed

CONFIGURATION = """name = "{name}"
[control]
socket = "/run/diskferry/control.sock"
listen = "0.0.0.0:10810"
certificates = "/etc/pki/diskferry"
peers = ["host-a", "host-b"]
[nbd]
listen = ["nbd://0.0.0.0:10809"]
tls = "require"
certificates = "/etc/pki/diskferry"
[state]
folder = "/var/lib/diskferry"
[log]
level = "{log}"
[move]
qemu-user = "root"
{more}
"""
STOP_SECONDS = 60
# Leaves the memory 300 ms, as libvirt does by itself: emulated guests lose pages with less (README.md beside this file).
PAUSE = ("--max-pause", "500")


def with_pause(options):
    return options if "--max-pause" in options else (*PAUSE, *options)


class Move:
    """A move that has ended: its report and its times."""

    def __init__(self, began, ended, code, report, error):
        self.began = began
        self.ended = ended
        self.code = code
        self.report = report
        self.error = error

    @property
    def seconds(self):
        return self.ended - self.began


class Gateways:
    """`programs` is the folder of diskferry and diskferryd. Ends both gateways on exit."""

    def __init__(self, bed, programs, log="info", more=""):
        self.bed = bed
        self.programs = pathlib.Path(programs).resolve()
        self.running = {}
        for host in bed.hosts:
            text = CONFIGURATION.format(name=host.name, log=log, more=more)
            host.run("sh", "-c", 'mkdir -p /etc/diskferry && printf "%s" "$1" >/etc/diskferry/diskferryd.toml', "sh", text)

    def __enter__(self):
        for host in self.bed.hosts:
            self.start(host)
        return self

    def __exit__(self, *_):
        for host in self.bed.hosts:
            self.stop(host)

    def log_of(self, host):
        return host.folder / "diskferryd.log"

    def start(self, host, *environment):
        """Starts the gateway, with further variables (NAME=VALUE), and returns when it takes commands."""
        program = host.start("env", *environment, self.programs / "diskferryd", "--config", "/etc/diskferry/diskferryd.toml", log=self.log_of(host))
        self.running[host.short] = program

        def is_ready():
            if program.poll() is not None:
                raise Failed(f"diskferryd on {host} ended:\n" + self.log_of(host).read_text(errors="replace")[-2000:])
            return host._answers(self.programs / "diskferry", "status")

        wait_until(is_ready, f"diskferryd on {host}", 60)

    def stop(self, host):
        """SIGTERM; returns the exit code."""
        program = self.running.pop(host.short, None)
        return None if program is None else program.stop(timeout=STOP_SECONDS)

    def kill(self, host):
        """As a crash would."""
        program = self.running.pop(host.short)
        program.kill9()

    def command(self, host, *words):
        """What `diskferry WORDS` is, run on a host: the words of a subprocess."""
        return [*host.entry(), str(self.programs / "diskferry"), *[str(word) for word in words]]

    def jobs(self, host):
        done = subprocess.run(self.command(host, "jobs", "--all", "--json"), capture_output=True, text=True, check=False,
                              timeout=60)
        if done.returncode != 0:
            raise Failed(f"diskferry jobs on {host}: {done.stderr}")
        return json.loads(done.stdout)["jobs"]

    def begin(self, guest, disks, source=None, target=None, options=()):
        """Starts `diskferry migrate` and returns the process."""
        source, target = source or self.bed.a, target or self.bed.b
        words = ["migrate", guest.name, "--to", target.uri, "--json", "--progress", "none"]
        for name, place in disks.items():
            words += ["--disk", f"{name}={place}"]
        return subprocess.Popen(self.command(source, *words, *with_pause(options)), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, stdin=subprocess.DEVNULL)

    def migrate(self, guest, disks, source=None, target=None, options=(), timeout=180, expected=0):
        """Moves a guest and waits. `expected`: the exit code; None: any."""
        began = time.monotonic()
        process = self.begin(guest, disks, source, target, options)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise Failed(f"diskferry migrate still runs after {timeout} s; {err[-2000:]}") from None
        move = Move(began, time.monotonic(), process.returncode, parse_report(out), err.strip())
        if expected is not None and move.code != expected:
            raise Failed(f"diskferry migrate: exit {move.code} instead of {expected}: {err.strip()}\n{out}")
        return move


def parse_report(text):
    """The report is the JSON document that ends the output; phases are lines before it."""
    start = text.find("\n{")
    start = 0 if text.startswith("{") else start + 1
    try:
        return json.loads(text[start:])
    except ValueError:
        return {}
