"""What the parts of selftest.py share: expectations, and programs that must fail for the right reason."""

import os
import pathlib
import subprocess

from processes import run
from report import Failed

DISK_BYTES = 32 << 20
SMALL_BYTES = 8 << 20  # of a store that is to be full
WRITTEN_BYTES = 16 << 20
WATCHED_SECONDS = 0.5  # how long somebody who must wait is watched waiting


def expect(condition, what):
    if not condition:
        raise Failed(what)


def expect_refused(attempt, text, what):
    """`attempt` must raise Failed, and for the reason that `text` names."""
    try:
        attempt()
    except Failed as failure:
        expect(text in str(failure), f"refused for another reason than {text!r}: {failure}")
    else:
        raise Failed(what)


def expect_waiting(process, what):
    """A program that has nothing to do but wait must do so, as long as we look."""
    try:
        code = process.wait(WATCHED_SECONDS)
    except subprocess.TimeoutExpired:
        return
    raise Failed(f"{what} ended with {code}")


def expect_ends_well(process, what, timeout=30):
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"{what} does not end within {timeout} s") from None
    expect(code == 0, f"{what} ended with {code}")


def write_by_qemu(target, environment):
    """qemu-io says on its standard output what went wrong."""
    done = subprocess.run(["qemu-io", "-f", "raw", "-c", f"write -P 7 0 {WRITTEN_BYTES}", target], env=environment, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    if done.returncode != 0:
        raise Failed(f"writing {target}: {done.stdout}")


def expect_written(file):
    """The file has what write_by_qemu wrote."""
    with open(file, "rb") as stored:
        expect(stored.read(WRITTEN_BYTES) == b"\7" * WRITTEN_BYTES, f"what was written is not in {file}")


def create_by_qemu(target, environment):
    run("qemu-img", "create", "-f", "raw", target, DISK_BYTES, env=environment)


def processes_of(folder):
    """Command lines of processes that name the folder in it or in their environment, without the guard's, which ends with its
    user."""
    mark, found = os.fsencode(folder), []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line, environment = ((entry / file).read_bytes() for file in ("cmdline", "environ"))
        except OSError:
            continue
        if mark in line + environment and b"\0guard\0" not in line:
            found.append(os.fsdecode(line.replace(b"\0", b" ")))
    return found
