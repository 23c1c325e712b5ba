"""A guest without libvirt: two QEMUs that were started alike, one on each host, each with its monitor in /run/qemu.

The one on the target's host waits for the machine (-incoming defer). Each has a second monitor, for the tests: QEMU serves one
client on each, and the first is the gateway's.
"""

import json
import socket

from domain import KERNEL_LINE
from guest import Guest
from processes import wait_until
from report import Failed

SOCKETS = "/run/qemu"
MEMORY_PORT = 4444


class QmpGuest(Guest):
    """Where its disks are differs from host to host: {host: [Disk, ...]}, in the same order."""

    def __init__(self, bed, cache, places, **options):
        super().__init__(bed, cache, disks=places[bed.a], **options)
        self.places = places
        self.programs = {}

    def monitor(self, host, test=False):
        return f"{SOCKETS}/{self.name}{'-test' if test else ''}-{host.short}.qmp"

    def address(self, host):
        """As `diskferry migrate` names it from the other host."""
        return f"qmp://{host.name}{self.monitor(host)}"

    def words(self, host):
        workload = [f"wl.{key}={value}" for key, value in self.options.items()]
        workload.append("wl.disk=" + ",".join(disk.target for disk in self.disks))
        words = ["qemu-system-x86_64", "-name", self.name, "-nodefaults", "-display", "none", "-no-reboot", "-no-user-config",
                 "-machine", "pc-i440fx-7.2,accel=tcg", "-cpu", "qemu64", "-m", self.memory_mib, "-uuid", self.uuid,
                 "-kernel", self.image.kernel, "-initrd", self.image.initrd, "-append", " ".join([KERNEL_LINE, *workload]),
                 "-chardev", f"socket,id=console,path=/run/testbed/{self.console.path.name}", "-serial", "chardev:console"]
        for test in (False, True):
            words += ["-qmp", f"unix:{self.monitor(host, test)},server=on,wait=off"]
        for disk in self.places[host]:
            file = {"driver": "file", "filename": disk.source, "discard": "unmap"}
            node = {"driver": disk.format, "node-name": f"node-{disk.target}", "file": file, "discard": "unmap"}
            words += ["-blockdev", json.dumps(node), "-device", f"virtio-blk-pci,drive=node-{disk.target},id={disk.target}"]
        return words

    def start(self, host, *more):
        host.run("mkdir", "-p", SOCKETS)
        self.programs[host] = host.start(*self.words(host), *more, log=host.folder / f"qemu-{self.name}.log")
        try:
            wait_until(lambda: self.state(host) is not None, f"QEMU on {host}", 60)
        except Failed as failure:
            raise Failed(f"{failure}: {self.programs[host].output()[-1000:]}") from None

    def wait_for_it(self, host, *more):
        """Starts the QEMU that waits for the machine."""
        self.start(host, "-S", "-incoming", "defer", *more)

    def ask(self, host, command, **arguments):
        """One command on the test's monitor; what it returned, or None where no QEMU has it."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            try:
                connection.connect(host.outside(self.monitor(host, test=True)))
            except OSError:
                return None
            try:
                lines = connection.makefile("rw", encoding="utf-8")
                lines.readline()
                for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                    lines.write(json.dumps(request) + "\n")
                    lines.flush()
                    while True:
                        text = lines.readline()
                        if not text:
                            return None
                        answer = json.loads(text)
                        if "event" not in answer:
                            break
            except OSError:
                return None
        if "error" in answer:
            raise Failed(f"QEMU on {host}: {command}: {answer['error']['desc']}")
        return answer["return"]

    def state(self, host):
        """QEMU's word for the machine's state on this host, or None where it does not run."""
        said = self.ask(host, "query-status")
        return said and said["status"]

    def stop(self, host):
        """Pulls the guest's plug."""
        self.programs.pop(host).kill9()
