"""leftovers.py begin|end FOLDER [SECONDS]: the tests leave no process and no file behind.

ctest runs `begin` before the first test and `end` after the last (tests/support/CMakeLists.txt). Every test has
FOLDER as its TMPDIR, so a process that carries this name in its environment was started by a test, whatever
became of its parent. Some get an environment of their own (a confined qemu-nbd): these have FOLDER in their command
line, as their home, or are in it. `end` waits SECONDS at the most, for what follows a test process to its end does so just
after it; it fails where a process or a file is left, and takes them away.
"""

import os
import re
import shutil
import signal
import sys
import time


def content(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""  # ended meanwhile, or somebody else's


def place(path):
    try:
        return os.fsencode(os.readlink(path))
    except OSError:
        return b""


def ours():
    """This process and those it comes from: they name FOLDER and are no test."""
    number, found = os.getpid(), set()
    while number > 1 and number not in found:
        found.add(number)
        fields = content(f"/proc/{number}/stat").rpartition(b")")[2].split()
        number = int(fields[1]) if fields else 0
    return found


def processes(folder):
    """Number and command line of each process that a test started."""
    folder = os.fsencode(folder)
    inside = re.compile(re.escape(folder) + rb"(/|$)")
    named = re.compile(re.escape(folder) + rb"([/\0\s'\",;]|$)")
    found, passed_over = {}, ours()
    for number in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if number in passed_over:
            continue
        command = content(f"/proc/{number}/cmdline")
        environment = content(f"/proc/{number}/environ").split(b"\0")
        is_started = b"TMPDIR=" + folder in environment or any(one.startswith(b"HOME=" + folder + b"/") for one in environment)
        is_in_it = any(inside.match(place(f"/proc/{number}/{one}")) for one in ("cwd", "root"))
        if command and (is_started or is_in_it or named.search(command)):
            found[number] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def files(folder):
    return sorted(os.path.join(folder, name) for name in os.listdir(folder)) if os.path.isdir(folder) else []


def begin(folder, _):
    running = processes(folder)
    for number, command in running.items():
        print(f"another run of these tests is going on: process {number}: {command}")
    if running:
        return 1
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was broken off
    os.makedirs(folder, 0o700)
    return 0


def end(folder, seconds):
    give_up = time.monotonic() + seconds
    while (processes(folder) or files(folder)) and time.monotonic() < give_up:
        time.sleep(0.05)
    left = processes(folder)
    for number, command in left.items():
        print(f"left behind: process {number}: {command}")
        try:
            os.kill(number, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
    names = files(folder)
    for name in names:
        inside = [os.path.relpath(os.path.join(at, one), name) for at, _, files_in in os.walk(name) for one in files_in]
        print(f"left behind: {name}", *inside[:10])
    shutil.rmtree(folder, ignore_errors=True)
    return 1 if left or names else 0


if __name__ == "__main__":
    sys.exit({"begin": begin, "end": end}[sys.argv[1]](sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 60.0))
