"""Migrations by libvirt alone: what a test or a benchmark compares a migration through the gateway with."""

import dataclasses
import re
import time

from report import Failed


@dataclasses.dataclass(frozen=True)
class Migration:
    """How a migration went. `began` and `ended` are moments of time.monotonic; `downtime_ms` is libvirt's own figure."""

    began: float
    ended: float
    downtime_ms: int

    @property
    def seconds(self):
        return self.ended - self.began


def command(name, uri, options=(), copies_storage=True):
    """`virsh migrate` as an operator would type it. The target's disks must be there, as large as the source's."""
    copy = ["--copy-storage-all"] if copies_storage else []
    return ["virsh", "-c", "qemu:///system", "migrate", "--live", "--persistent", "--undefinesource", *copy, *options, name,
            uri]


def migrate(guest, source, target, options=(), copies_storage=True, timeout=180):
    """Migrates a guest of these two hosts. One that takes longer than `timeout` seconds is aborted, and the guest goes on
    where it was; that raises Failed like any other failure."""
    began = time.monotonic()
    running = source.start(*command(guest.name, target.uri, options, copies_storage),
                           log=guest.bed.folder / f"migrate-{guest.name}.log")
    try:
        running.check(timeout)
    except Failed:
        if running.poll() is None:
            source.virsh("domjobabort", guest.name)
            running.stop()
        raise
    return Migration(began, time.monotonic(), downtime_ms(target, guest.name))


def downtime_ms(host, name):
    """What libvirt on the target says of the migration that ended there."""
    text = host.virsh("domjobinfo", name, "--completed")
    if match := re.search(r"Total downtime:\s+(\d+)\s+ms", text):
        return int(match[1])
    raise Failed(f"libvirt tells no downtime of {name}:\n{text}")
