"""The storage under a writing guest is replaced: file -> NFS -> Ceph -> iSCSI -> file, by `diskferry replace`.

One host, one gateway with one export, and a guest whose disk points at the export's socket once and for all. The guest writes numbered
blocks all the time and says on its console which are done; at the end every write that was acknowledged is looked for.
"""

import contextlib
import pathlib
import time

from live_guest import DISK_BYTES, Gateway, LocalGuest, make_disk
from report import heading, say
from storage.ceph import Ceph
from storage.iscsi import Iscsi
from storage.nfs import Nfs

WRITES_BETWEEN = 100


def targets_of(folder, stack):
    """(name, URI, further options) of the storages that the disk visits; their servers end with `stack`."""
    nfs = stack.enter_context(Nfs(folder / "nfs"))
    ceph = stack.enter_context(Ceph(folder / "ceph"))
    ceph.add_user("mover")
    iscsi = stack.enter_context(Iscsi(folder / "iscsi", size=0))
    iscsi.add_lun(1, DISK_BYTES)
    yield "NFS", nfs.uri("vm.raw"), ()
    yield "Ceph", ceph.uri("vm") + ("&" if "?" in ceph.uri("vm") else "?") + "id=mover", ()
    yield "iSCSI", iscsi.uri(1), ("--overwrite",)
    yield "file", str(folder / "last.raw"), ()


def run_demo(programs, cache, folder, report):
    """Raises Failed when any of it is not as it should be."""
    folder = pathlib.Path(folder)
    heading("1. A gateway with one export, and a guest that writes to it")
    first = folder / "first.raw"
    make_disk(first)
    gateway = Gateway(programs, folder, first)
    gateway.start()
    guest = LocalGuest(folder, cache, gateway)
    try:
        guest.wait_writing(WRITES_BETWEEN)
        say("the guest writes 300 numbered blocks a second")
        with contextlib.ExitStack() as stack:
            last = None
            for number, (name, uri, options) in enumerate(targets_of(folder, stack), 2):
                heading(f"{number}. Onto {name}, under the guest")
                move_onto(gateway, guest, (name, uri, options), report)
                last = uri
            guest.wait_writing(WRITES_BETWEEN)
            guest.stop()
            gateway.stop()
            found = guest.check(last)
            say(f"checked: {found['acknowledged']} acknowledged writes: none lost, none torn, none wrong")
            report.add("acknowledged writes checked", f"{found['acknowledged']}; 0 lost, 0 torn, 0 wrong")
    finally:
        guest.stop()
        gateway.stop()


def move_onto(gateway, guest, target, report):
    name, uri, options = target
    began = time.monotonic()
    told = gateway.replace(uri, *options)
    seconds = time.monotonic() - began
    guest.wait_writing(WRITES_BETWEEN)
    hold = told["hold"]
    gap = guest.gap_ms(began)
    say(f"{seconds:.1f} s; writes held {hold['total-us'] / 1000:.1f} ms (copied {hold['drain-us'] / 1000:.1f}, durable "
        f"{hold['flush-us'] / 1000:.1f}, recorded {hold['record-us'] / 1000:.1f}, switched {hold['switch-us'] / 1000:.1f}); longest time "
        f"without a finished write {gap:.0f} ms")
    report.add(f"onto {name}", f"{seconds:.1f} s, writes held {hold['total-us'] / 1000:.1f} ms, longest gap between writes {gap:.0f} ms")
