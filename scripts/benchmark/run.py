"""Starting programs and measuring them: wall time, processor time and peak memory of a command; the rate that fio
sees at a server. Nothing here knows what is compared."""
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import tempfile
import time


@dataclasses.dataclass
class Sample:
    """One run. `seconds` for commands; `rate` (requests or bytes a second) for servers."""
    seconds: float = 0.0
    rate: float = 0.0
    cpu_seconds: float = 0.0
    peak_kib: int = 0
    note: str = ""


class Failed(Exception):
    """A contender did not do its work; the text says which and what it printed."""


def command(arguments, before=None, environment=None):
    """Runs one command and returns its Sample. `before` is called first, outside the measurement."""
    if before:
        before()
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                   env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            text = output.read().decode(errors="replace")[-2000:]
            raise Failed(f"{' '.join(arguments)}\nexit {process.returncode}\n{text}")
    return Sample(seconds=seconds, cpu_seconds=usage.ru_utime + usage.ru_stime, peak_kib=usage.ru_maxrss)


def settle(quiet_seconds=0.3, limit_seconds=15):
    """Waits until the disks have nothing to do: what one contender left unwritten, and the discards of the file that was
    removed, are not to be paid by the next."""
    os.sync()
    deadline = time.monotonic() + limit_seconds
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < quiet_seconds and time.monotonic() < deadline:
        with open("/proc/diskstats", encoding="ascii") as disks:
            if any(int(line.split()[11]) for line in disks):
                quiet_since = time.monotonic()
        time.sleep(0.02)


def peak_kib(pid):
    """Peak resident memory of a running process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


@contextlib.contextmanager
def server(arguments, socket_path, limit_seconds=20):
    """A server on a UNIX socket, ready when the socket is there; ended by SIGTERM."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(socket_path)
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + limit_seconds
            while not os.path.exists(socket_path):
                if process.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    raise Failed(f"{' '.join(arguments)}\n{output.read().decode(errors='replace')[-2000:]}")
                time.sleep(0.02)
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(socket_path)


def fio(uri, work, seconds):
    """Runs fio's nbd engine. `work` holds fio's settings (rw, bs, iodepth, numjobs). Returns (IOPS, bytes/s)."""
    settings = {"name": "bench", "ioengine": "nbd", "uri": uri, "time_based": 1, "runtime": seconds,
                "ramp_time": 0.5, "group_reporting": 1, "thread": 1, "randrepeat": 0, "norandommap": 1, **work}
    arguments = ["fio", "--output-format=json"] + [f"--{key}={value}" for key, value in settings.items()]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(arguments)}\n{done.stdout[-500:]}{done.stderr[-1500:]}")
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    side = job["write"] if "write" in work["rw"] else job["read"]
    return side["iops"], side["bw_bytes"]
