"""The demo's course of events. Run by scripts/demo, which builds first."""

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time

import boot_demo
import gateway
import guest_disk
import live_move
import move_demo
import processes
import replace_demo
import report as reporting
from report import Failed, heading, say


def main():
    arguments = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    arguments.add_argument("--program", required=True, help="the diskferry to show")
    arguments.add_argument("--cache", required=True, help="where the kernel is kept between runs")
    arguments.add_argument("--keep", action="store_true", help="keep the folder with disks and logs")
    arguments.add_argument("--only", choices=("boot", "live", "move"), default="move",
                           help="move (default): diskferry migrate; boot: a copy that boots; live: QEMU's own migration")
    arguments.add_argument("--to", choices=("file", "nfs", "iscsi", "ceph", "gluster"), default="file",
                           help="where the guest moves: file (default), there and back again; or onto such a storage server")
    arguments.add_argument("--live", action="store_true",
                           help="the storage under a writing guest is replaced: file, NFS, Ceph, iSCSI, file")
    options = arguments.parse_args()
    if options.only != "move" and options.to != "file":
        arguments.error("--to is for the move")
    if options.only == "move" and not options.live and (reason := move_demo.why_not()):
        print(f"demo: {reason}", file=sys.stderr)
        return 1

    folder = tempfile.mkdtemp(prefix="diskferry-demo-")
    report = reporting.Report()
    began = time.monotonic()
    code = 0
    try:
        play(options, folder, report)
        report.add("whole demo, without building", f"{time.monotonic() - began:.0f} s on {os.cpu_count()} cores, guests emulated (TCG)")
        heading("Report")
        print(f"  {processes.run(options.program, '--version').strip()}, Linux {platform.release()}, "
              f"{processes.run('qemu-img', '--version').splitlines()[0]}")
        report.show()
    except (Failed, KeyboardInterrupt) as failure:
        print(f"\ndemo: FAILED: {failure or 'interrupted'}", file=sys.stderr)
        code = 1
    finally:
        processes.stop_all()
        if options.keep or code:
            print(f"  disks and logs are kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return code


def play(options, folder, report):
    if options.live:
        replace_demo.run_demo(os.path.dirname(os.path.abspath(options.program)), options.cache, folder, report)
    elif options.only == "move":
        move_demo.run_demo(os.path.dirname(os.path.abspath(options.program)), options.cache, folder, report,
                           options.to)
    else:
        play_chain(options, folder, report)


def play_chain(options, folder, report):
    """The parts with one command and no gateway: the copy that boots, and QEMU's migration into an export."""
    diskferry = gateway.Diskferry(os.path.abspath(options.program))
    heading("1. A small Linux disk that boots by itself, as a three-layer qcow2 chain with a compressed base")
    chain_folder = os.path.join(folder, "chain")
    os.makedirs(chain_folder)
    kernel, modules = guest_disk.fetch_kernel(os.path.join(options.cache, "kernel"))
    top, planted = guest_disk.build_chain(chain_folder, kernel, modules)
    for name in ("base.qcow2", "middle.qcow2"):
        say(f"{name}: {reporting.size(os.stat(os.path.join(chain_folder, name)).st_blocks * 512)} on disk")
    certificates = gateway.make_certificates(os.path.join(folder, "certificates"))
    expected = planted
    if options.only != "live":
        expected = boot_demo.run_demo(diskferry, top, planted, folder, certificates, report)
    if options.only != "boot":
        live_move.run_demo(diskferry, top, expected, folder, certificates, report, 6, "raw")
        live_move.run_demo(diskferry, top, expected, folder, certificates, report, 7, "qcow2")


if __name__ == "__main__":
    sys.exit(main())
