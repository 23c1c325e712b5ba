"""First half of the demo: the chain is copied to a raw file and to a compressed qcow2 and exported over NBD with TLS; a
guest boots from each and must read the same files."""

import os
import urllib.parse

import qemu
from processes import Host, run
from report import Failed, heading, say, size

BOOT_LIMIT_S = 180  # emulated, on a machine that may be busy
_counter = iter(range(1000))


def boot(host, disk, task, folder, expected=None, extra=()):
    """Boots the disk until the guest powers off; returns the checksums it printed."""
    console_path = os.path.join(folder, f"console-{next(_counter)}")
    console = qemu.Console(console_path)
    with open(os.path.join(folder, "qemu.log"), "a", encoding="utf-8") as log:
        machine = qemu.Machine(host, f"boot-{next(_counter)}", disk, task, console_path, extra, log)
    began, _, text = console.wait_line("GUEST up", BOOT_LIMIT_S)
    ended, _, _ = console.wait_line("GUEST done", BOOT_LIMIT_S)
    machine.wait_end(30)
    sums = {}
    for line in console.texts():
        if line.startswith("SUM "):
            _, checksum, path = line.split(" ", 2)
            sums[path] = checksum
    if not sums:
        raise Failed("the guest printed no checksums")
    if expected is not None and sums != expected:
        wrong = sorted(path for path in sums.keys() | expected.keys() if sums.get(path) != expected.get(path))
        raise Failed(f"the guest reads other files than it should: {', '.join(wrong)}")
    say(f"{text.removeprefix('GUEST ')}; {len(sums)} files read in {ended - began:.1f} s"
        + ("" if expected is None else ", all as expected"))
    return sums


def first_boot(host, top, planted, folder):
    """The guest's first boot writes the top layer. Returns what later boots must print."""
    sums = boot(host, qemu.chain(top, "qcow2"), "first-boot", folder)
    written = sums.get("/files/written-by-the-guest")
    expected = {path: checksum for path, checksum in planted.items() if path != "/files/2"}
    if written is None or written == planted["/files/1"]:
        raise Failed("the guest did not write its file")
    if {path: checksum for path, checksum in sums.items() if path != "/files/written-by-the-guest"} != expected:
        raise Failed("the guest's files are not what was put on its disk")
    return sums


def tls_nbd(export_uri, certificates):
    """QEMU's nodes for an export that requires TLS with a client certificate; read-only, as exports are by default."""
    uri = urllib.parse.urlsplit(export_uri)
    credentials = ("-object", f"tls-creds-x509,id=tls0,endpoint=client,dir={certificates},verify-peer=on")
    nodes = [
        {"driver": "nbd", "node-name": "storage", "read-only": True, "export": urllib.parse.unquote(uri.path.lstrip("/")),
         "server": {"type": "inet", "host": uri.hostname, "port": str(uri.port)}, "tls-creds": "tls0",
         "tls-hostname": "localhost"},
        {"driver": "raw", "node-name": "disk0", "file": "storage", "read-only": True},
    ]
    return nodes, credentials


def run_demo(diskferry, top, planted, folder, certificates, report):
    host = Host("one", os.path.join(folder, "boot"), [])
    host.prefix = []  # one host: nothing to keep apart, and the export is reached over loopback TCP

    heading("2. A first boot, which makes the top layer")
    expected = first_boot(host, top, planted, host.folder)

    heading("3. Copied flat: to a raw file and to a compressed qcow2, both verified")
    raw, packed = host.path("flat.raw"), host.path("flat.qcow2")
    for target, options, name in ((raw, (), "raw"), (packed, ("--compress=zstd",), "compressed qcow2")):
        seconds, text = diskferry.copy(top, target, *options)
        for line in text.splitlines():
            print(f"      {line}")
        used = os.stat(target).st_blocks * 512
        say(f"{name}: {seconds:.2f} s, {size(used)} on disk")
        report.add(f"copy of the chain to {name}", f"{seconds:.2f} s, verified, {size(used)} on disk")
    # A program that is not ours is the judge of the copies.
    run("qemu-img", "compare", "-q", top, raw, timeout=300)
    run("qemu-img", "compare", "-q", top, packed, timeout=300)
    run("qemu-img", "check", "-q", packed)
    say("qemu-img compare: both copies read as the chain does; qemu-img check: no errors")

    heading("4. Booted from both copies")
    boot(host, qemu.chain(raw, "raw"), "check", host.folder, expected)
    boot(host, qemu.chain(packed, "qcow2"), "check", host.folder, expected)
    report.add("guest booted from the raw and the qcow2 copy", f"yes, {len(expected)} files have the right checksums")

    heading("5. The chain exported over NBD with TLS, booted from the export")
    with open(host.path("export.log"), "w", encoding="utf-8") as log:
        export = diskferry.export(host, top, "--name", "vm", "--tls", "require", "--tls-certificates", certificates,
                                  "--tls-verify-peer", listen="nbd://127.0.0.1:0", log=log)
    say(f"export: {export.uri}")
    nodes, credentials = tls_nbd(export.uri, certificates)
    boot(host, nodes, "check", host.folder, expected, credentials)
    export.stop()
    report.add("guest booted from the export", f"yes, over TLS, {len(expected)} files have the right checksums")
    return expected
