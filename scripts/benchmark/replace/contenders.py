"""Who replaces the storage under a guest: diskferry, behind an export; QEMU alone, by its blockdev-mirror. Both are asked for the same things."""
import http.client
import json
import os
import socket
import time

from live_guest import export_node
from processes import run, wait_until
from report import Failed

OURS, MIRROR, BLOCKING = "diskferry", "blockdev-mirror", "blockdev-mirror, write-blocking"
ALL = (OURS, MIRROR, BLOCKING)
START_SECONDS = 30
IN_STEP = ("synchronized",)
AFTER = ("retained", "released", "committed")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class Diskferry:
    """The guest's disks are exports of a gateway."""

    def __init__(self, bed, programs, sources, bytes_per_s=0):
        self.bed, self.sources, self.bytes_per_s = bed, sources, bytes_per_s
        self.program = os.path.join(programs, "diskferry")
        self.socket, self.control = bed.folder / "nbd.sock", bed.folder / "control.sock"
        self._job = None
        state = bed.folder / f"state-{time.monotonic_ns()}"
        exports = "".join(f'[[export]]\nname = "disk{number}"\nimage = "{source}"\nformat = "raw"\nwritable = true\n'
                          for number, source in enumerate(sources))
        config = bed.folder / "diskferryd.toml"
        config.write_text(f'[control]\nsocket = "{self.control}"\n[nbd]\nlisten = "unix:{self.socket}"\n[state]\nfolder = "{state}"\n'
                          f'[move]\nrun-folder = "{state}/run"\n{exports}', encoding="utf-8")
        self._daemon = bed.a.start(os.path.join(programs, "diskferryd"), "--config", config, log=bed.folder / "diskferryd.log")
        wait_until(lambda: "READY" in self._daemon.output() or self._daemon.poll() is not None, "the gateway", START_SECONDS)
        if self._daemon.poll() is not None:
            raise Failed(f"the gateway does not start: {self._daemon.output()[-1000:]}")

    def nodes(self):
        return [export_node(self.socket, f"disk{number}", f"disk{number}") for number in range(len(self.sources))]

    def begin(self, _, target, names):
        pairs = [word for number, name in enumerate(names) for word in (f"disk{number}", target.uri(name))]
        self._job = self._ask("replace", *pairs, "--detach", "--commit-by-hand", *target.options, "--rate", self.bytes_per_s).strip()

    def job(self):
        found = self._get(f"/v1/jobs/{self._job}")
        if found["status"] == "failed":
            raise Failed(f"the job failed: {found['error']}")
        if found["status"] == "paused" and found["error"]:
            raise Failed(f"the job is paused: {found['error']}")
        return found

    def is_ready(self):
        return self.job()["phase"] in IN_STEP

    def catch_up(self):
        """Copies what has come to differ while it rested, and changes places."""
        self._ask("resume", self._job)
        wait_until(lambda: self._get(f"/v1/jobs/{self._job}")["status"] == "running", "the job going on")
        self.switch()

    def switch(self):
        """Returns (seconds to the switch, seconds in which writes were held)."""
        began = time.monotonic()
        self._ask("commit", self._job)
        wait_until(lambda: self.job()["phase"] in AFTER, "the change of places")
        seconds = time.monotonic() - began
        wait_until(lambda: self.job()["phase"] == "released", "the release")
        return seconds, self._told("report")["hold"]["total-us"] / 1e6

    def moved_bytes(self):
        return sum(disk["copied-bytes"] + disk["mirrored-bytes"] + disk.get("resent-bytes", 0) for disk in self._progress()["disks"])

    def rewritten_bytes(self):
        """What the guest wrote where it was copied already."""
        return sum(disk["mirrored-bytes"] + disk["spilled-bytes"] for disk in self._progress()["disks"])

    def pause(self):
        self._ask("pause", self._job)
        wait_until(lambda: self._get(f"/v1/jobs/{self._job}")["status"] == "paused", "the job being paused")

    def cancel(self):
        self._ask("cancel", self._job)
        wait_until(lambda: self._get(f"/v1/jobs/{self._job}")["status"] not in ("running", "paused"), "the end of the job", 60)

    def stop(self):
        self._daemon.stop()

    def _progress(self):
        return self._told("progress")

    def _told(self, what):
        told = self.job()[what]
        return json.loads(told) if isinstance(told, str) else told

    def _ask(self, *words):
        return run(self.program, *words, "--gateway", f"unix:{self.control}", timeout=60)

    def _get(self, path):
        connection = _UnixConnection(str(self.control))
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer


class Mirror:
    """QEMU has the disks open itself, and mirrors each of them."""

    def __init__(self, bed, sources, copy_mode, bytes_per_s):
        self.bed, self.sources, self.copy_mode, self.bytes_per_s = bed, sources, copy_mode, bytes_per_s
        self.monitor, self._jobs, self._ready, self._round = None, [], set(), 0

    def nodes(self):
        return [{"driver": "raw", "node-name": f"disk{number}", "discard": "unmap", "file": {"driver": "file", "filename": str(source),
                                                                                              "discard": "unmap"}}
                for number, source in enumerate(self.sources)]

    def begin(self, machine, target, names):
        self.monitor = machine.monitor
        self._round += 1
        self._jobs = []
        for number, name in enumerate(names):
            node = f"target{number}-{self._round}"
            job = f"mirror{number}-{self._round}"
            self.monitor.command("blockdev-add", **{"node_name": node, "driver": "raw", "discard": "unmap", "file": target.node(name)})
            self.monitor.command("blockdev-mirror", job_id=job, device=self._node(number), target=node, sync="full",
                                 copy_mode=self.copy_mode, speed=self.bytes_per_s)
            self._jobs.append((job, node))

    def is_ready(self):
        return all(job["ready"] for job in self._look())

    def catch_up(self):
        for job, _ in self._jobs:
            self.monitor.command("job-resume", id=job)
        wait_until(lambda: all(job["len"] == job["offset"] for job in self._look()), "the difference being copied", 600)
        self.switch()

    def moved_bytes(self):
        return sum(job["offset"] for job in self._look())

    def switch(self):
        began = time.monotonic()
        for job, _ in self._jobs:
            self.monitor.command("job-complete", id=job)
        for job, _ in self._jobs:
            self.monitor.wait_event("BLOCK_JOB_COMPLETED", 60, lambda data, job=job: data["device"] == job)
        return time.monotonic() - began, None

    def pause(self):
        for job, _ in self._jobs:
            self.monitor.command("job-pause", id=job)

    def cancel(self):
        for job, _ in self._jobs:
            self.monitor.command("block-job-cancel", device=job, force=True)
        for job, _ in self._jobs:
            self.monitor.wait_event("BLOCK_JOB_CANCELLED", 60, lambda data, job=job: data["device"] == job)

    def stop(self):
        pass

    def _node(self, number):
        """The node that the disk's device uses now."""
        return f"disk{number}" if self._round == 1 else f"target{number}-{self._round - 1}"

    def _look(self):
        known = {job["device"]: job for job in self.monitor.command("query-block-jobs")}
        return [known[job] for job, _ in self._jobs]


def make_contender(name, bed, programs, sources, bytes_per_s=0):
    if name == OURS:
        return Diskferry(bed, programs, sources, bytes_per_s)
    return Mirror(bed, sources, "background" if name == MIRROR else "write-blocking", bytes_per_s)
