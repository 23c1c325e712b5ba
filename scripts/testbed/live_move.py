"""Second half of the demo: a guest that writes all the time moves to a host that shares no storage with the first.

The order is what makes it safe:
  1. the target host exports a new, empty disk, writable; QEMU on the source host mirrors its disk into it
  2. when the mirror is in step, QEMU migrates the guest's memory and pauses before switching over, guest stopped
  3. in that pause the mirror is ended: every write of the guest is in our export, flushed
  4. the rest of the memory goes over; the target QEMU is complete, stopped, and has not touched the disk yet
  5. our export is stopped: it drains, flushes, and lets go of the image and its lock
  6. only now the target QEMU opens the image and the guest goes on

Until step 6 the source can be resumed at any moment; it has everything.
After the check, the copy is booted once more and must hold every file of the chain.
"""

import os
import time

import boot_demo
import guest_disk
import qemu
import tagged_blocks
from processes import Host, run, wait_until
from report import Failed, heading, say

READY_LIMIT_S = 120
SECONDS_BEFORE = 4.0  # the guest writes undisturbed
SECONDS_AFTER = 5.0   # and goes on on the other host


class Move:
    def __init__(self, diskferry, chain_folder, folder, certificates, image_format):
        self.diskferry = diskferry
        self.format = image_format
        self.certificates = certificates
        self.link = os.path.join(folder, f"link-{image_format}")  # the only thing both hosts reach: the wire
        source_folder, target_folder = (os.path.join(folder, f"{name}-{image_format}") for name in ("source", "target"))
        for path in (self.link, source_folder, target_folder):
            os.makedirs(path)
        self.source = Host("source", source_folder, [target_folder])
        self.target = Host("target", target_folder, [source_folder])
        for name in ("base.qcow2", "middle.qcow2", "top.qcow2"):
            run("cp", "--sparse=always", os.path.join(chain_folder, name), self.source.path(name))
        self.copy = self.target.path("disk." + image_format)
        self.log = open(os.path.join(folder, f"move-{image_format}.log"), "w", encoding="utf-8")
        self.console = qemu.Console(os.path.join(self.link, "console"))
        self.times = {}

    def tls(self, endpoint):
        return ("-object", f"tls-creds-x509,id=tls0,endpoint={endpoint},dir={self.certificates},verify-peer=on")

    def start_guest(self):
        self.vm_source = qemu.Machine(self.source, "vm-source", qemu.chain(self.source.path("top.qcow2"), "qcow2"), "live",
                               os.path.join(self.link, "console"), self.tls("client"), self.log)
        self.console.wait_line("WRITER blocks=", 180)
        self.console.wait_line("ACKED", 60)
        time.sleep(SECONDS_BEFORE)

    def start_export(self):
        virtual_bytes = str(guest_disk.DISK_BYTES)
        self.target.run("qemu-img", "create", "-q", "-f", self.format, self.copy, virtual_bytes)
        self.export = self.diskferry.export(
            self.target, self.copy, "--source-format", self.format, "--writable", "--name", "disk", "--tls", "require",
            "--tls-certificates", self.certificates, "--tls-verify-peer",
            listen="unix:" + os.path.join(self.link, "nbd"), log=self.log)

    def mirror(self):
        monitor = self.vm_source.monitor
        began = time.monotonic()
        monitor.command("blockdev-add", driver="nbd", node_name="gateway", export="disk", tls_creds="tls0",
                        tls_hostname="localhost", discard="unmap",
                        server={"type": "unix", "path": os.path.join(self.link, "nbd")})
        monitor.command("blockdev-mirror", job_id="move", device="disk0", target="gateway", sync="full",
                        copy_mode="background", auto_dismiss=False, on_target_error="report")
        _, name, data = self.first_event(("BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_ERROR"), READY_LIMIT_S)
        if name != "BLOCK_JOB_READY":
            raise Failed(f"the mirror failed: {data}")
        self.times["mirror"] = (began, time.monotonic())

    def first_event(self, names, timeout):
        monitor = self.vm_source.monitor
        return wait_until(lambda: next((event for event in monitor.events if event[1] in names), None),
                          " or ".join(names), timeout)

    def start_target(self):
        # A placeholder of the same size: the image belongs to the export until the guest is told to go on here.
        placeholder = [{"driver": "null-co", "node-name": "nothing", "size": guest_disk.DISK_BYTES},
                       {"driver": "raw", "node-name": "disk0", "file": "nothing"}]
        self.vm_target = qemu.Machine(self.target, "vm-target", placeholder, "live", os.path.join(self.link, "console"),
                                      (*self.tls("server"), "-S", "-incoming", "defer"), self.log)
        self.capabilities(self.vm_target.monitor)
        self.vm_target.monitor.command("migrate-incoming", uri="unix:" + os.path.join(self.link, "memory"))

    @staticmethod
    def capabilities(monitor):
        names = ("events", "pause-before-switchover")
        monitor.command("migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in names])

    def switch_over(self):
        source, target = self.vm_source.monitor, self.vm_target.monitor
        self.capabilities(source)
        source.command("migrate-set-parameters", max_bandwidth=1 << 34, downtime_limit=300)
        began = time.monotonic()
        source.command("migrate", uri="unix:" + os.path.join(self.link, "memory"))
        _, _, data = source.wait_event("MIGRATION", 180, lambda data: data["status"] in ("pre-switchover", "failed"))
        if data["status"] == "failed":
            raise Failed(f"the migration failed: {source.command('query-migrate')}")
        stopped = source.wait_event("STOP", 10)[0]

        source.command("block-job-cancel", device="move")  # in step: this ends it with both sides equal
        source.wait_event("JOB_STATUS_CHANGE", 60, lambda data: data["id"] == "move" and data["status"] == "concluded")
        job = next(one for one in source.command("query-jobs") if one["id"] == "move")
        if "error" in job:
            raise Failed(f"the mirror ended with: {job['error']}; the guest is still whole on the source")
        source.command("job-dismiss", id="move")
        source.command("blockdev-del", node_name="gateway")
        mirrored = time.monotonic()

        source.command("migrate-continue", state="pre-switchover")
        for monitor in (source, target):
            monitor.wait_event("MIGRATION", 60, lambda data: data["status"] == "completed")
        moved = time.monotonic()
        self.export.stop()
        released = time.monotonic()
        for node in qemu.chain(self.copy, self.format, top_name="copy"):
            target.command("blockdev-add", **node)
        target.command("blockdev-reopen", options=[{"driver": "raw", "node-name": "disk0", "file": "copy"}])
        target.command("cont")
        resumed = target.wait_event("RESUME", 30)[0]
        self.times.update(memory=(began, stopped), end_mirror=(stopped, mirrored), device_state=(mirrored, moved),
                          export=(moved, released), resume=(released, resumed), stopped=(stopped, resumed))

    def finish(self):
        """Lets the guest go on for a while, ends everything, and checks the copy."""
        resumed = self.times["stopped"][1]

        def went_on():
            acks = [ack for ack in tagged_blocks.acknowledgements(list(self.console.lines)) if ack[0] > resumed]
            return acks and acks[-1][0] - resumed >= SECONDS_AFTER

        wait_until(went_on, "waiting for the guest to go on writing on the target host", 60)
        self.vm_source.quit()
        self.vm_target.quit()
        self.log.close()
        troubles = [text for text in self.console.texts() if text.startswith(("BADREAD", "WRITEERROR", "WRITER cannot"))]
        if troubles:
            raise Failed(f"the guest saw: {troubles[:5]}")

    def check_copy(self):
        acks = tagged_blocks.acknowledgements(self.console.lines)
        acked = acks[-1][2]
        image = self.copy
        if self.format != "raw":
            run("qemu-img", "check", "-q", self.copy)
            image = self.copy + ".raw"
            run("qemu-img", "convert", "-q", "-f", self.format, "-O", "raw", self.copy, image, timeout=300)
        blocks, problems = tagged_blocks.check(image, guest_disk.TAGGED_AT, guest_disk.TAGGED_BYTES, acked)
        if problems:
            raise Failed(f"{len(problems)} blocks are wrong, e.g. {problems[:5]}")
        on_target = acked - max(number for time_, _, number in acks if time_ < self.times["stopped"][1])
        return acked, on_target, blocks

    def ms(self, name):
        return (self.times[name][1] - self.times[name][0]) * 1000


def run_demo(diskferry, chain, expected, folder, certificates, report, number, image_format):
    heading(f"{number}. Live: a writing guest moves to another host, its disk through our writable {image_format} export")
    move = Move(diskferry, os.path.dirname(chain), folder, certificates, image_format)
    kept_apart = move.source.is_isolated and move.target.is_isolated
    say("two hosts, " + ("each in its own mount and network namespace: neither sees the other's disk" if kept_apart
                         else "separate folders (namespaces are not allowed here)"))
    move.start_guest()
    say("the guest boots from its three-layer chain and writes 300 numbered blocks a second")
    move.start_export()
    move.mirror()
    say(f"mirror over NBD with TLS: in step after {move.ms('mirror') / 1000:.2f} s")
    move.start_target()
    move.switch_over()
    say(f"switched over: guest stopped for {move.ms('stopped'):.0f} ms (end of mirror {move.ms('end_mirror'):.0f}, device state "
        f"{move.ms('device_state'):.0f}, our export drained and closed {move.ms('export'):.0f}, resume {move.ms('resume'):.0f})")
    move.finish()
    acked, on_target, blocks = move.check_copy()
    acks = tagged_blocks.acknowledgements(move.console.lines)
    gap = tagged_blocks.longest_gap_ms(acks, since=move.times["mirror"][0])
    say(f"checked: {acked} acknowledged writes ({on_target} of them after the move) in {blocks} blocks: none lost, none torn, "
        "none misplaced")
    boot_demo.boot(move.target, qemu.chain(move.copy, image_format), "check", move.target.folder, expected)
    report.add(f"live move into {image_format}", f"mirror {move.ms('mirror') / 1000:.2f} s, guest stopped {move.ms('stopped'):.0f} ms, "
               f"longest gap between its writes {gap:.0f} ms")
    report.add(f"  acknowledged writes checked ({image_format})", f"{acked}, {on_target} of them after the move; 0 lost, 0 torn, 0 misplaced")
