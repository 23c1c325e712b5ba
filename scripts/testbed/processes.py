"""Programs the demo runs: each is ended again, whatever happens, and only those that were started here."""

import os
import signal
import subprocess
import threading
import time

from report import Failed

running = []


def run(*command, timeout=120, **options):
    """Runs to the end and returns what it printed; a failure names the command and what it said."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout,
                              check=False, **options)
    except subprocess.TimeoutExpired as expired:
        raise Failed(f"{' '.join(words)}: still running after {timeout} s") from expired
    if done.returncode != 0:
        raise Failed(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def start(*command, **options):
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, **options)
    running.append(process)
    return process


def stop(process, with_signal=signal.SIGTERM, timeout=20):
    """Ends a program of ours and returns its exit code."""
    if process.poll() is None:
        process.send_signal(with_signal)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
    if process in running:
        running.remove(process)
    return process.returncode


def stop_all():
    for process in list(reversed(running)):
        stop(process, signal.SIGTERM, 5)


def wait_until(condition, what, timeout=30.0):
    """Polls until `condition` gives something true, and returns it."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise Failed(f"{what}: not after {timeout:.0f} s")


class LineReader(threading.Thread):
    """Keeps the lines that a program prints, with the time each arrived."""

    def __init__(self, stream):
        super().__init__(daemon=True)
        self.stream = stream
        self.lines = []
        self.start()

    def run(self):
        for line in self.stream:
            self.lines.append((time.monotonic(), line.rstrip("\r\n")))

    def texts(self):
        return [text for _, text in list(self.lines)]


class Host:
    """A machine of the demo: a folder, and programs that see neither the other host's folder nor a network.

    Where the system allows no namespaces (an unprivileged container), hosts are separate folders only, and the
    report says so.
    """

    def __init__(self, name, folder, hidden_folders):
        self.name = name
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        hide = "".join(f'mount -t tmpfs -o ro none "{other}" && ' for other in hidden_folders)
        self.prefix = ["unshare", "--mount", "--net", "--", "sh", "-c", hide + 'exec "$@"', "sh"]
        probe = subprocess.run([*self.prefix, "true"], capture_output=True, check=False)
        self.is_isolated = probe.returncode == 0
        if not self.is_isolated:
            self.prefix = []

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, *command, **options):
        return start(*self.prefix, *command, **options)

    def run(self, *command, **options):
        return run(*self.prefix, *command, **options)
