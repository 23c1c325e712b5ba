"""leftovers.py begin|end FOLDER [SECONDS]: the tests leave no process and no file behind.

ctest runs `begin` before the first test and `end` after the last (tests/support/CMakeLists.txt). Every test has
FOLDER as its TMPDIR, so a process that carries this name in its environment was started by a test, whatever
became of its parent. `end` waits SECONDS at the most, for what follows a test process to its end does so just
after it; it fails where a process or a file is left, and takes them away.
"""

import os
import shutil
import signal
import sys
import time


def processes(folder):
    """Number and command line of each process that a test started."""
    mark = b"TMPDIR=" + os.fsencode(folder)
    found = {}
    for number in filter(str.isdigit, os.listdir("/proc")):
        if int(number) == os.getpid():
            continue
        try:
            with open(f"/proc/{number}/environ", "rb") as environment:
                if mark not in environment.read().split(b"\0"):
                    continue
            with open(f"/proc/{number}/cmdline", "rb") as command:
                found[int(number)] = command.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            pass  # ended meanwhile, or somebody else's
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
        except ProcessLookupError:
            pass
    names = files(folder)
    for name in names:
        inside = [os.path.relpath(os.path.join(at, one), name) for at, _, files_in in os.walk(name) for one in files_in]
        print(f"left behind: {name}", *inside[:10])
    shutil.rmtree(folder, ignore_errors=True)
    return 1 if left or names else 0


if __name__ == "__main__":
    sys.exit({"begin": begin, "end": end}[sys.argv[1]](sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 60.0))
