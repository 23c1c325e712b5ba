"""The domain XML of a test guest: one emulated processor, virtio disks, a serial console, nothing else."""

import dataclasses
import urllib.parse
from xml.sax.saxutils import quoteattr

# What Debian's kernel needs to boot quickly under emulation; nokaslr and the rest save about a second. A kernel that panics
# reboots at once (panic=-1), and the domain ends instead: a guest that began again would look like one that lost writes.
KERNEL_LINE = ("console=ttyS0,115200 quiet loglevel=3 panic=-1 nokaslr mitigations=off no_timer_check tsc=reliable "
               "random.trust_cpu=on audit=0")


@dataclasses.dataclass(frozen=True)
class Disk:
    """A disk of a guest. `source` is a file or a block device of the host, or an NBD URI: nbd://HOST:PORT/EXPORT,
    nbds://..., nbd+unix:///EXPORT?socket=PATH; or the <source> element of network storage (host_storage.py)."""

    target: str
    source: str
    format: str = "raw"
    cache: str = "none"


def _source(source):
    if str(source).startswith("<source"):
        return "network", str(source)
    uri = urllib.parse.urlsplit(str(source))
    if not uri.scheme.startswith("nbd"):
        kind, attribute = ("block", "dev") if str(source).startswith("/dev/") else ("file", "file")
        return kind, f"<source {attribute}={quoteattr(str(source))}/>"
    if uri.scheme == "nbd+unix":
        path = urllib.parse.parse_qs(uri.query)["socket"][0]
        host = f"<host transport='unix' socket={quoteattr(path)}/>"
    else:
        host = f"<host name={quoteattr(uri.hostname)} port='{uri.port or 10809}'/>"
    tls = "yes" if uri.scheme == "nbds" else "no"
    return "network", f"<source protocol='nbd' name={quoteattr(uri.path[1:])} tls='{tls}'>{host}</source>"


def disk_xml(disk):
    kind, source = _source(disk.source)
    # io='threads' is what cache modes other than none allow, and QEMU's default.
    return (f"<disk type='{kind}' device='disk'><driver name='qemu' type='{disk.format}' cache='{disk.cache}' discard='unmap'/>"
            f"{source}<target dev='{disk.target}' bus='virtio'/></disk>")


def domain_xml(name, uuid, image, workload, disks, console, memory_mib=128):  # pylint: disable=too-many-arguments
    """`image` has the paths `kernel` and `initrd`; `workload` is what of the kernel's command line is for the writer;
    `console` is the UNIX socket, as the host sees it, that the serial port connects to."""
    return f"""<domain type='qemu'>
  <name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
    <kernel>{image.kernel}</kernel><initrd>{image.initrd}</initrd><cmdline>{KERNEL_LINE} {workload}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact'><model>qemu64</model></cpu>
  <on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {"".join(disk_xml(disk) for disk in disks)}
    <controller type='usb' model='none'/><memballoon model='none'/><video><model type='none'/></video>
    <serial type='unix'><source mode='connect' path={quoteattr(console)}/><target port='0'/></serial>
    <console type='unix'><source mode='connect' path={quoteattr(console)}/><target type='serial' port='0'/></console>
  </devices>
</domain>
"""
