#!/usr/bin/env python3
"""Moves a guest that writes all the time from one QEMU to another that shares no storage with it, and checks every
write that the guest saw acknowledged.

    live_move.py --diskferry PROGRAM --guest FOLDER --folder WORK --target-format raw|qcow2 [--rate N]

QEMU mirrors the disk into a writable export of diskferry on the target, over TLS; the mirror is finished in the
`pre-switchover` pause of the memory migration; the target's QEMU opens our copy and the guest goes on. This script
stands where a coordinator will stand: it only sends QMP commands."""
import argparse
import json
import os
import signal
import subprocess
import sys
import time

from console import Console
from qmp import Error, Monitor

HERE = os.path.dirname(os.path.abspath(__file__))
DISK_BYTES = 512 << 20


def say(text):
    print(f"    {text}", flush=True)


class Host:
    """A place with a folder of its own, that the other one cannot see: programs run in a mount namespace where the
    other folder is covered. Without the right to do that, folders are merely separate, and it is said."""

    def __init__(self, name, work, hidden):
        self.folder, self.hidden = os.path.join(work, name), os.path.join(work, hidden)
        os.makedirs(self.folder)
        self.processes = []

    def can_hide(self):
        return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, *arguments, **options):
        command = list(arguments)
        if self.can_hide():
            command = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', self.hidden] + command
        with open(self.path("errors.log"), "ab") as errors:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors, **options)
        self.processes.append(process)
        return process

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def make_certificates(folder):
    """A certificate authority, a server certificate for 127.0.0.1 and a client certificate, valid for a day."""
    os.makedirs(folder)
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=diskferry demo CA", "-keyout",
            "ca-key.pem", "-out", "ca-cert.pem", "-addext", "keyUsage=critical,keyCertSign")
    for role in ("server", "client"):
        with open(os.path.join(folder, role + ".cnf"), "w", encoding="ascii") as extensions:
            extensions.write("subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=critical,CA:FALSE\n"
                             "keyUsage=critical,digitalSignature,keyEncipherment\n"
                             f"extendedKeyUsage={role}Auth\n")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={role}", "-keyout", role + "-key.pem", "-out",
                role + ".csr")
        openssl("x509", "-req", "-in", role + ".csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
                "-days", "1", "-extfile", role + ".cnf", "-out", role + "-cert.pem")


class Move:
    def __init__(self, chosen):
        self.chosen = chosen
        self.work = chosen.folder
        self.source, self.target = Host("source", self.work, "target"), Host("target", self.work, "source")
        self.tls = os.path.join(self.work, "tls")
        make_certificates(self.tls)
        self.console = Console(os.path.join(self.work, "console.sock"), os.path.join(self.work, "console.log"))

    def qemu(self, host, blockdevs, *options):
        monitor = host.path("monitor.sock")
        line = ("console=ttyS0,115200 quiet loglevel=3 panic=-1 mitigations=off random.trust_cpu=on demo.role=writer "
                f"writer.rate={self.chosen.rate}")
        arguments = ["qemu-system-x86_64", "-machine", "pc-i440fx-7.2,accel=tcg", "-cpu", "qemu64", "-m", "128",
                     "-nodefaults", "-display", "none", "-kernel", os.path.join(self.chosen.guest, "vmlinuz"), "-initrd",
                     os.path.join(self.chosen.guest, "initrd.gz"), "-append", line,
                     "-object", f"tls-creds-x509,id=tls,endpoint=client,dir={self.tls},verify-peer=on"]
        for blockdev in blockdevs:
            arguments += ["-blockdev", json.dumps(blockdev)]
        arguments += ["-device", "virtio-blk-pci,drive=disk,id=vda", "-chardev",
                      f"socket,id=console,path={self.work}/console.sock", "-serial", "chardev:console", "-qmp",
                      f"unix:{monitor},server=on,wait=off", *options]
        host.start(*arguments)
        return Monitor(monitor)

    def make_source(self):
        """The local chain: a base with content, and the overlay that the guest writes to."""
        base = self.source.path("base.raw")
        with open(base, "wb") as disk:
            disk.truncate(DISK_BYTES)
            for at in range(0, DISK_BYTES, 64 << 20):
                disk.seek(at)
                disk.write(os.urandom(16 << 20))
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", base, self.source.path("base.qcow2")], check=True)
        os.unlink(base)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2",
                        self.source.path("disk.qcow2")], check=True)
        return self.qemu(self.source, [
            {"driver": "file", "node-name": "file", "filename": self.source.path("disk.qcow2")},
            {"driver": "qcow2", "node-name": "disk", "file": "file"}])

    def export(self):
        """An empty image on the target and diskferry's writable export of it. Returns (process, port, image)."""
        kind = self.chosen.target_format
        image = self.target.path("disk." + kind)
        subprocess.run(["qemu-img", "create", "-q", "-f", kind, image, str(DISK_BYTES)], check=True)
        process = self.target.start(self.chosen.diskferry, "export", "--listen", "nbds://127.0.0.1:0", "--tls", "require",
                                    "--tls-certificates", self.tls, "--tls-verify-peer", "--writable", "-f", kind,
                                    "--name", "disk", image, stdout=subprocess.PIPE, text=True)
        ready = process.stdout.readline().split()
        if not ready or ready[0] != "READY":
            raise Error(f"the export did not start; see {self.target.path('errors.log')}")
        return process, ready[1].split("127.0.0.1:")[1].split("/")[0], image

    @staticmethod
    def end_export(process):
        process.send_signal(signal.SIGTERM)
        if process.wait(30) != 0:
            raise Error(f"the export ended with exit status {process.returncode}")

    def run(self):
        guest = self.make_source()
        self.console.wait_for_writes(300)
        say(f"the guest writes {self.chosen.rate} blocks a second on source/disk.qcow2 (over source/base.qcow2)")
        server, port, image = self.export()
        began = time.monotonic()
        guest.command("blockdev-add", driver="nbd", node_name="target", export="disk", tls_creds="tls", reconnect_delay=5,
                      server={"type": "inet", "host": "127.0.0.1", "port": port}, discard="unmap")
        guest.command("blockdev-mirror", job_id="mirror", device="disk", target="target", sync="full",
                      copy_mode="write-blocking", auto_dismiss=False)
        guest.wait("BLOCK_JOB_READY", limit_seconds=300)
        mirrored = time.monotonic() - began
        say(f"mirrored into diskferry's export in {mirrored:.1f} s")
        after = self.qemu(self.target, [{"driver": "null-co", "node-name": "nothing", "size": DISK_BYTES},
                                        {"driver": "raw", "node-name": "disk", "file": "nothing"}], "-S", "-incoming",
                          f"unix:{self.work}/memory.sock")
        # The memory goes through a socket that both can reach; everything else of the target stays hidden.
        self.switch_over(guest, after, server, image)
        self.console.wait_for_writes(3 * self.chosen.rate)
        resumed, stopped = after.wait("RESUME")["at"], guest.wait("STOP")["at"]
        after.command("quit")
        self.report(began, stopped, resumed, mirrored)
        return self.check(image)

    def switch_over(self, guest, after, server, image):
        for monitor in (guest, after):
            monitor.command("migrate-set-capabilities", capabilities=[
                {"capability": name, "state": True} for name in ("events", "pause-before-switchover")])
        since = len(guest.events)
        guest.command("migrate", uri=f"unix:{self.work}/memory.sock")
        guest.wait("MIGRATION", since, status="pre-switchover")
        guest.command("block-job-cancel", device="mirror")
        guest.wait("JOB_STATUS_CHANGE", since, id="mirror", status="concluded")
        for job in guest.command("query-jobs"):
            if "error" in job:
                raise Error(f"the mirror failed: {job['error']}")
        guest.command("job-dismiss", id="mirror")
        guest.command("blockdev-del", node_name="target")
        self.end_export(server)  # flushed and let go: now the target's QEMU may have the image
        guest.command("migrate-continue", state="pre-switchover")
        guest.wait("MIGRATION", since, status="completed")
        after.wait("MIGRATION", status="completed")
        after.command("blockdev-add", driver="file", node_name="copy-file", filename=image)
        after.command("blockdev-add", driver=self.chosen.target_format, node_name="copy", file="copy-file")
        after.command("blockdev-reopen", options=[{"driver": "raw", "node-name": "disk", "file": "copy"}])
        after.command("cont")

    def report(self, began, stopped, resumed, mirrored):
        gap = self.console.longest_gap(stopped - 0.5, resumed + 2)
        worst = max((entry[3] for entry in self.console.acknowledgements if began < entry[0] < stopped), default=0)
        say(f"guest stopped for {1000 * (resumed - stopped):.0f} ms; longest time without an acknowledged write "
            f"{1000 * gap:.0f} ms; slowest write during the mirror {worst / 1000:.0f} ms")

    def check(self, image):
        flat = os.path.join(self.work, "flat.raw")
        subprocess.run([self.chosen.diskferry, "copy", "--progress", "none", "-f", self.chosen.target_format, "-O", "raw",
                        image, flat], check=True, stdout=subprocess.DEVNULL)
        self.console.close()
        done = subprocess.run([os.path.join(self.chosen.guest, "check"), flat, os.path.join(self.work, "console.log")],
                              capture_output=True, text=True, check=False)
        say(done.stdout.strip() or done.stderr.strip())
        for problem in self.console.problems[:5]:
            say("guest: " + problem)
        return done.returncode

    def end(self):
        self.source.end()
        self.target.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--diskferry", required=True)
    parser.add_argument("--guest", required=True, help="the folder that guest/build filled")
    parser.add_argument("--folder", required=True, help="an empty folder to work in")
    parser.add_argument("--target-format", choices=("raw", "qcow2"), default="qcow2")
    parser.add_argument("--rate", type=int, default=300, help="writes a second (default 300)")
    chosen = parser.parse_args()
    chosen.diskferry, chosen.guest = os.path.abspath(chosen.diskferry), os.path.abspath(chosen.guest)
    chosen.folder = os.path.abspath(chosen.folder)
    os.makedirs(chosen.folder, exist_ok=True)
    move = Move(chosen)
    try:
        return move.run()
    except (Error, TimeoutError, OSError, subprocess.SubprocessError) as problem:
        print(f"live_move.py: {problem}", file=sys.stderr)
        for host in (move.source, move.target):
            log = host.path("errors.log")
            if os.path.exists(log):
                with open(log, encoding="utf-8", errors="replace") as errors:
                    sys.stderr.write(errors.read()[-1500:])
        return 1
    finally:
        move.end()


if __name__ == "__main__":
    sys.exit(main())
