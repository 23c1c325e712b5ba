"""Copies to and from storage servers: each a real one of scripts/testbed/storage, and qemu-img with QEMU's own driver as the
peer. A new storage is a class here and a line in STORAGES."""
import atexit
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "testbed"))

import run  # noqa: E402
from storage.ceph import Ceph  # noqa: E402
from storage.gluster import Gluster  # noqa: E402
from storage.iscsi import Iscsi  # noqa: E402
from storage.nfs import Nfs  # noqa: E402


class NfsStorage:
    """QEMU's driver knows no ports: it asks the portmapper."""

    title = "NFS"
    server_kind = Nfs
    environment = None
    qemu_creates = True

    def __init__(self, server):
        self.server = server

    @staticmethod
    def options(_):
        return {"pmap": True}

    def ours(self, volume):
        return self.server.uri(volume)

    def peer(self, volume):
        return self.server.qemu_uri(volume)

    def remove(self, volume):
        with contextlib.suppress(FileNotFoundError):
            self.server.file(volume).unlink()

    def fill(self, volume, source):
        shutil.copyfile(source, self.server.file(volume))


class GlusterStorage(NfsStorage):
    """Its clients take ten seconds to end, ours too, unless what does that is left out: of both."""

    title = "GlusterFS"
    server_kind = Gluster

    def __init__(self, server):
        super().__init__(server)
        self.environment = server.client_environment()

    @staticmethod
    def options(_):
        return {}

    def peer(self, volume):
        return self.server.uri(volume)

    def remove(self, volume):
        with contextlib.suppress(FileNotFoundError):
            self.server.file(volume).unlink()

    def fill(self, volume, source):
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "raw", source, self.peer(volume)], check=True,
                       env=self.environment)


class IscsiStorage:
    """One thin LUN, as large as the disk: it is emptied between runs, and nobody creates it."""

    title = "iSCSI"
    server_kind = Iscsi
    environment = None
    qemu_creates = False

    def __init__(self, server):
        self.server = server
        self._size = os.path.getsize(server.image(1))

    @staticmethod
    def options(size):
        return {"size": size}

    def ours(self, _):
        return self.server.uri()

    def peer(self, _):
        return self.server.uri()

    def remove(self, _):
        os.truncate(self.server.image(1), 0)
        os.truncate(self.server.image(1), self._size)

    def fill(self, _, source):
        subprocess.run(["cp", "--sparse=always", source, self.server.image(1)], check=True)


class CephStorage:
    """An image that the copy creates, with Ceph's default features for both."""

    title = "Ceph RBD"
    server_kind = Ceph
    environment = None
    qemu_creates = True

    def __init__(self, server):
        self.server = server

    @staticmethod
    def options(size):
        return {"size": 4 * size}

    def ours(self, volume):
        return f"rbd://rbd/{volume}?conf={self.server.conf}"

    def peer(self, volume):
        return self.server.qemu_uri(volume)

    def remove(self, volume):
        subprocess.run(["rbd", "-c", str(self.server.conf), "rm", "--no-progress", f"rbd/{volume}"], check=False,
                       capture_output=True)

    def fill(self, volume, source):
        self.remove(volume)
        subprocess.run(["rbd", "-c", str(self.server.conf), "import", "--no-progress", source, f"rbd/{volume}"], check=True)


STORAGES = {"nfs": NfsStorage, "iscsi": IscsiStorage, "rbd": CephStorage, "gluster": GlusterStorage}


class StorageCopies:
    """The contenders of copies to and from one storage; its server runs from the first one on until this program ends."""

    def __init__(self, kind, inputs, ours):
        self.kind, self.inputs, self.ours = STORAGES[kind], inputs, ours
        self._storage = None

    @property
    def storage(self):
        if self._storage is None:
            # Not in the work folder: UNIX sockets have short names.
            folder = tempfile.mkdtemp(prefix="bench-")
            size = os.path.getsize(self.inputs.sparse_raw())
            server = self.kind.server_kind(pathlib.Path(folder) / "s", **self.kind.options(size))
            stack = contextlib.ExitStack()
            atexit.register(stack.close)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(server)
            self._storage = self.kind(server)
        return self._storage

    def _command(self, words, before):
        environment = self.storage.environment
        return run.command([str(word) for word in words], before=before, environment=environment)

    def _empty(self, volume):
        self.storage.remove(volume)
        run.settle()

    def onto_ours(self, source, source_format, target_format="raw", options=()):
        def work():
            exists = [] if self.kind.qemu_creates else ["-n" if target_format == "raw" else "--overwrite"]
            return self._command([self.ours, "copy", "--progress", "none", *exists, *options, "-f", source_format, "-O",
                                  target_format, source(), self.storage.ours("disk")], lambda: self._empty("disk"))
        return work

    def onto_peer(self, source, source_format, target_format="raw", options=()):
        def work():
            exists = [] if self.kind.qemu_creates or target_format != "raw" else ["-n"]
            return self._command(["qemu-img", "convert", "-m", "16", "-W", *exists, *options, "-f", source_format, "-O",
                                  target_format, source(), self.storage.peer("disk")], lambda: self._empty("disk"))
        return work

    def _from(self, words):
        target = self.inputs.path("target.raw")
        def before():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target)
            run.settle()
        return self._command([*words, target], before)

    def _fill(self):
        if not getattr(self, "_is_filled", False):
            self.storage.fill("source", self.inputs.sparse_raw())
            self._is_filled = True

    def from_ours(self, options=()):
        def work():
            self._fill()
            return self._from([self.ours, "copy", "--progress", "none", *options, "-f", "raw", "-O", "raw",
                               self.storage.ours("source")])
        return work

    def from_peer(self, options=()):
        def work():
            self._fill()
            return self._from(["qemu-img", "convert", "-m", "16", "-W", *options, "-f", "raw", "-O", "raw",
                               self.storage.peer("source")])
        return work
