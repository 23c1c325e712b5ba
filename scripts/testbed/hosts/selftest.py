#!/usr/bin/env python3
"""The testbed tests itself: two hosts, a guest that writes on a chain of three images, a migration by libvirt alone.

    selftest.py CACHE [FOLDER]

CACHE keeps the kernel and what is built; FOLDER is for the hosts (a temporary one by default).
"""

import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import console  # noqa: E402
import inhabitants  # noqa: E402
import migrate  # noqa: E402
from guest import Disk, Guest  # noqa: E402
from hosts import Testbed  # noqa: E402
from processes import run  # noqa: E402
from report import Failed, say  # noqa: E402

IMAGES = "/var/lib/libvirt/images"
DISK_MIB = 64
WRITES_PER_SECOND = 300


def make_chain(host):
    """Three layers, the base compressed: the disk of somebody who took two snapshots."""
    base, middle, top = (f"{IMAGES}/{name}.qcow2" for name in ("base", "middle", "g1"))
    raw = pathlib.Path(host.outside(f"{IMAGES}/base.raw"))
    with open(raw, "wb") as out:
        for number in range(DISK_MIB * 4):  # a kilobyte of text every 256 KiB: compresses well, and is not empty
            out.seek(number << 18)
            out.write(f"what was there before, piece {number}\n".encode() * 24)
        out.truncate(DISK_MIB << 20)
    host.run("qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", raw, base)
    host.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", middle)
    host.run("qemu-io", "-f", "qcow2", "-c", "write -q -P 0x5a 20M 3M", middle)
    host.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top)
    raw.unlink()
    return top


def expect(condition, what):
    if not condition:
        raise Failed(what)


def connect_ms(bed):
    """How long a TCP connection from host a to host b takes: the shortest of three."""
    program = """if True:
        import socket, time
        def once():
            begin = time.monotonic()
            socket.create_connection(("host-b", 22), 10).close()
            return time.monotonic() - begin
        once()
        print(min(once() for _ in range(3)) * 1000)"""
    return float(bed.a.run("python3", "-c", program))


def try_link(bed):
    bed.link(mbit=100, delay_ms=20)
    slow = connect_ms(bed)
    expect(40 <= slow < 1000, f"with 20 ms each way a connection takes {slow:.1f} ms")
    bed.link()
    fast = connect_ms(bed)
    expect(fast < 20, f"without a delay a connection takes {fast:.1f} ms")
    ping = ("ssh", "-o", "ConnectTimeout=2", "host-b", "hostname")
    expect(bed.a.run(*ping).strip() == "host-b", "host-b is somebody else")
    sent = bed.wire_bytes()
    bed.link_cut()
    try:
        bed.a.run(*ping)
    except Failed:
        pass
    else:
        raise Failed("a cut link carries ssh")
    bed.link_restore()
    bed.a.run(*ping)
    expect(bed.wire_bytes() > sent, "the wire carried ssh and counted nothing")
    say(f"link delayed ({slow:.0f} ms for a connection instead of {fast:.1f}), cut and restored")


def try_migration(bed, cache):
    top = make_chain(bed.a)
    bed.b.run("qemu-img", "create", "-q", "-f", "qcow2", top, f"{DISK_MIB}M")
    with Guest(bed, cache, disks=[Disk("vda", top, "qcow2")], rate=WRITES_PER_SECOND, verify=8) as guest:
        before = guest.snapshot(top, "qcow2", bed.a)
        say("a chain of three images is made")
        guest.start(bed.a)
        say("the guest is started")
        guest.wait_writing()
        say("the guest writes")
        guest.wait_writing(WRITES_PER_SECOND)
        expect(guest.state(bed.a) == "running", "the guest is not on host-a")
        done = migrate.migrate(guest, bed.a, bed.b, ["--copy-storage-synchronous-writes"], timeout=60)
        guest.wait_writing(WRITES_PER_SECOND)
        expect(guest.state(bed.b) == "running" and guest.state(bed.a) is None, "the guest is not on host-b alone")
        say(f"migrated in {done.seconds:.1f} s, stopped for {done.downtime_ms} ms, longest gap between two writes "
            f"{guest.gap_ms(done.began):.0f} ms, at the switch {guest.switch_gap_ms():.0f} ms, worst write "
            f"{guest.worst_write_ms(done.began):.0f} ms, "
            f"{console.writes_per_second(guest.acks, done.began, done.ended):.0f} writes/s meanwhile")
        guest.stop(bed.b)
        counted = guest.check(top, "qcow2", host=bed.b, before=before)
        expect(counted["blocks"] > WRITES_PER_SECOND, f"too little was written to say anything: {counted}")
        say(f"all there: {counted}")
        try:
            guest.check(top, "qcow2", host=bed.a, before=before)
        except Failed:
            say("and the abandoned source is seen not to have it all")
        else:
            raise Failed("the source's image passes although the guest went on elsewhere")


def try_crashes(bed):
    bed.b.kill_libvirtd()
    bed.b.start_libvirtd()
    sleeper = bed.b.start("sleep", "1000")
    expect(sleeper.poll() is None and sleeper.pid, "a program does not start")
    bed.b.crash()
    expect(sleeper.wait(10) != 0, "a program survived its host")
    bed.start_host(bed.b)
    expect(bed.a.run("ssh", "host-b", "hostname").strip() == "host-b", "host-b did not come back")
    say("libvirtd and a host came back after a crash")


def devices():
    """The network devices of this machine."""
    return sorted(line.split()[0] for line in run("ip", "-br", "link").splitlines())


def main():
    cache = sys.argv[1]
    devices_before = devices()
    with tempfile.TemporaryDirectory() as temporary:
        folder = sys.argv[2] if len(sys.argv) > 2 else temporary
        with Testbed(folder) as bed:
            say("two hosts are up")
            try_link(bed)
            try_migration(bed, cache)
            try_crashes(bed)
            mounts = pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8")
            expect(str(bed.folder) not in mounts, "the testbed is mounted on this machine")
            hosts = [host.folder for host in bed.hosts]
        expect(not any(inhabitants.keepers(host) for host in hosts), "a host is left")
        expect(devices() == devices_before, "the wire is left")
    say("nothing is left")


if __name__ == "__main__":
    started = time.monotonic()
    try:
        main()
    except Failed as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        sys.exit(1)
    say(f"passed in {time.monotonic() - started:.0f} s")
