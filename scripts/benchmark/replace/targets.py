"""Where disks go: each kind makes a place for a disk, names it for diskferry and for QEMU, and gives its content back as a raw file.

The servers are the real ones of scripts/testbed, on host b; who copies is on host a, and the wire between them may delay packets.
"""
import contextlib
import pathlib
import subprocess

from host_storage import make_storage
from processes import run, wait_until

NBD_PORT = 10820


class FileTarget:
    """A file on the same disk as the source."""

    options = ()

    def __init__(self, bed, size):
        self.folder, self.size = bed.folder, size

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def _file(self, name):
        return self.folder / f"target-{name}.raw"

    def make(self, name):
        """An empty place for a disk of that name."""
        self._file(name).unlink(missing_ok=True)

    def uri(self, name):
        return str(self._file(name))

    def node(self, name):
        """What QEMU opens, as blockdev-add has it; the place is made ready for it."""
        with open(self._file(name), "wb") as out:
            out.truncate(self.size)
        return {"driver": "file", "filename": str(self._file(name)), "discard": "unmap"}

    def content(self, name):
        return self._file(name)


class NbdTarget(FileTarget):
    """nbdkit on host b, with a file."""

    options = ("--overwrite",)

    def __init__(self, bed, size):
        super().__init__(bed, size)
        self.host, self._servers = bed.b, {}

    def __exit__(self, *_):
        for server in self._servers.values():
            server.stop()

    def make(self, name):
        if name in self._servers:
            self._servers.pop(name).stop()
        with open(self._file(name), "wb") as out:
            out.truncate(self.size)
        port = self._port(name)
        self._servers[name] = self.host.start("nbdkit", "-f", "-p", port, "-e", name, "file", self._file(name),
                                              log=self.folder / f"nbdkit-{name}.log")
        wait_until(lambda: f":{port} " in self.host.run("ss", "-ltnH"), "nbdkit")

    def uri(self, name):
        return f"nbd://{self.host.address}:{self._port(name)}/{name}"

    def node(self, name):
        return {"driver": "nbd", "server": {"type": "inet", "host": self.host.address, "port": str(self._port(name))}, "export": name,
                "discard": "unmap"}

    @staticmethod
    def _port(name):
        return NBD_PORT + int("".join(filter(str.isdigit, name)) or 0)


class ServerTarget:
    """A storage server of scripts/testbed/storage."""

    def __init__(self, bed, size, kind):
        self.size, self.bed = size, bed
        self.storage = make_storage(bed, bed.b, kind)
        self.server = None
        self.options = () if self.storage.creates else ("--overwrite",)
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        self._stack.enter_context(self.storage)
        self.server = self.storage.server
        return self

    def __exit__(self, *_):
        self._stack.close()

    def make(self, name):
        if not self.storage.creates and not self.storage.exists(name):
            self.storage.make(name, self.size)

    def uri(self, name):
        return self.storage.uri(name)

    def content(self, name):
        return self.storage.file(name)


class NfsTarget(ServerTarget):
    def make(self, name):
        self.server.file(name).unlink(missing_ok=True)

    def node(self, name):
        with open(self.server.file(name), "wb") as out:
            out.truncate(self.size)
        path = "/" + self.storage.uri(name).split("?")[0].split("://")[1].split("/", 1)[1]
        return {"driver": "nfs", "server": {"type": "inet", "host": self.server.address}, "path": path}


class IscsiTarget(ServerTarget):
    """A LUN that stays; it is not emptied, since both write all of it."""

    def node(self, name):
        _, _, portal, target, lun = self.storage.uri(name).split("?")[0].split("/")
        return {"driver": "iscsi", "transport": "tcp", "portal": portal, "target": target, "lun": int(lun)}


class CephTarget(ServerTarget):
    def make(self, name):
        self._rbd("rm", "--no-progress", f"rbd/{name}", check=False, capture_output=True)

    def node(self, name):
        self._rbd("create", "--size", f"{self.size >> 20}M", f"rbd/{name}", check=True)
        return {"driver": "rbd", "pool": "rbd", "image": name, "conf": str(self.server.conf), "discard": "unmap"}

    def content(self, name):
        path = pathlib.Path(self.bed.folder) / f"out-of-ceph-{name}.raw"
        path.unlink(missing_ok=True)
        run(*self.bed.a.entry(), "rbd", "-c", self.server.conf, "export", "--no-progress", f"rbd/{name}", path, timeout=300)
        return path

    def _rbd(self, *words, **options):
        subprocess.run([*self.bed.a.entry(), "rbd", "-c", str(self.server.conf), *words], **options)


def make_target(kind, bed, size):
    if kind in ("file", "nbd"):
        return {"file": FileTarget, "nbd": NbdTarget}[kind](bed, size)
    return {"nfs": NfsTarget, "iscsi": IscsiTarget, "ceph": CephTarget}[kind](bed, size, kind)
