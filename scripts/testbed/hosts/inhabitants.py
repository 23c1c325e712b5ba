"""Who lives in a host of the testbed, read from /proc: the first process of a host is found by its command line, the
others by their PID namespace. There are no pid files, so nothing is stale after a crash and no reused pid is killed.
"""

import dataclasses
import os
import pathlib
import signal
import time

INIT = str(pathlib.Path(__file__).resolve().parent / "host_init.sh")


@dataclasses.dataclass(frozen=True)
class Process:
    """A process as this machine sees it (`pid`), and as its host does (`inner_pid`)."""

    pid: int
    inner_pid: int
    argv: tuple


def _argv(pid):
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in words)


def _inner_pid(pid):
    """The pid in the innermost namespace, or 0 when the process is gone."""
    try:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    except OSError:
        pass
    return 0


def _is_zombie(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def keepers(folder):
    """Every process that keeps the host of this folder up: its first process, and the `unshare` that waits for it."""
    found = []
    for pid in _all_pids():
        argv = _argv(pid)
        if INIT in argv and argv[argv.index(INIT) + 1:][:1] == (str(folder),) and not _is_zombie(pid):
            found.append(pid)
    return found


def first_process(folder):
    """The pid of the host's first process, or None when the host is down."""
    for pid in keepers(folder):
        if _argv(pid)[0] != "unshare" and _inner_pid(pid) == 1:
            return pid
    return None


def inhabitants(first):
    """All processes of the host whose first process is `first`."""
    try:
        space = os.readlink(f"/proc/{first}/ns/pid")
    except OSError:
        return []
    found = []
    for pid in _all_pids():
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") != space or _is_zombie(pid):
                continue
        except OSError:
            continue
        if argv := _argv(pid):
            found.append(Process(pid, _inner_pid(pid), argv))
    return found


def end_host(folder, timeout=20.0):
    """Kills the host at once, as a power failure would, and waits until no process of it is left. True when it is gone."""
    begin = time.monotonic()
    while pids := keepers(folder):
        elapsed = time.monotonic() - begin
        if elapsed > timeout:
            return False
        for pid in pids:
            # `unshare` ends by itself once the last process of the host is gone, which is what we wait for; it is killed
            # only when there is no first process yet or it does not go.
            if _argv(pid)[:1] != ("unshare",) or elapsed > timeout / 4:
                _kill(pid)
        time.sleep(0.02)
    return True


def _kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
