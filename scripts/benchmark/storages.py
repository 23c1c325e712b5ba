"""Copies to and from storage servers: each a real one of scripts/testbed/storage, and qemu-img with QEMU's own driver as the
peer. A new storage is a class here and a line in STORAGES.

A server is on loopback, or far away: on host b of scripts/testbed/hosts, with everybody who uses it in the network of host a, and
the wire between them delays every packet.
"""
import atexit
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

TESTBED = pathlib.Path(__file__).resolve().parents[1] / "testbed"
sys.path += [str(TESTBED), str(TESTBED / "hosts")]

import run  # noqa: E402
from host_storage import make_storage  # noqa: E402
from hosts import Testbed  # noqa: E402
from storage.ceph import Ceph  # noqa: E402
from storage.gluster import Gluster  # noqa: E402
from storage.iscsi import Iscsi  # noqa: E402
from storage.nfs import Nfs  # noqa: E402


class Storage:
    """What is like this with most."""

    environment = None
    qemu_creates = True

    def __init__(self, server, inside=()):
        """`inside`: the words in front of a command that is to reach the server."""
        self.server, self.inside = server, inside

    def ours(self, volume):
        return self.server.uri(volume)


class NfsStorage(Storage):
    """QEMU's driver knows no ports: it asks the portmapper."""

    title = "NFS"
    far_kind = "nfs"  # what hosts/host_storage.py calls it
    server_kind = Nfs

    @staticmethod
    def options(_):
        return {"pmap": True}

    def peer(self, volume):
        return self.server.qemu_uri(volume)

    def remove(self, volume):
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self.server.file(volume), 0)  # Ganesha keeps what it had open
            self.server.file(volume).unlink()

    def fill(self, volume, source):
        shutil.copyfile(source, self.server.file(volume))


class GlusterStorage(NfsStorage):
    """Its clients take ten seconds to end, ours too, unless what does that is left out: of both."""

    title = "GlusterFS"
    far_kind = "gluster"
    server_kind = Gluster

    def __init__(self, server, inside=()):
        super().__init__(server, inside)
        self.environment = server.client_environment()

    @staticmethod
    def options(_):
        return {}

    def peer(self, volume):
        return self.server.uri(volume)

    def fill(self, volume, source):
        subprocess.run([*self.inside, "qemu-img", "convert", "-f", "raw", "-O", "raw", source, self.peer(volume)], check=True,
                       env=self.environment)


class IscsiStorage(Storage):
    """One thin LUN, as large as the disk: it is emptied between runs, and nobody creates it."""

    title = "iSCSI"
    far_kind = "iscsi"
    server_kind = Iscsi
    qemu_creates = False

    def __init__(self, server, inside=()):
        super().__init__(server, inside)
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


class CephStorage(Storage):
    """An image that the copy creates, with Ceph's default features for both."""

    title = "Ceph RBD"
    far_kind = "ceph"
    server_kind = Ceph

    @staticmethod
    def options(size):
        return {"size": 4 * size}

    def peer(self, volume):
        return self.server.qemu_uri(volume)

    def remove(self, volume):
        self._rbd("rm", "--no-progress", f"rbd/{volume}", check=False, capture_output=True)

    def fill(self, volume, source):
        self.remove(volume)
        self._rbd("import", "--no-progress", source, f"rbd/{volume}", check=True)

    def _rbd(self, *words, **options):
        subprocess.run([*self.inside, "rbd", "-c", str(self.server.conf), *words], **options)


STORAGES = {"nfs": NfsStorage, "iscsi": IscsiStorage, "rbd": CephStorage, "gluster": GlusterStorage}


class StorageCopies:
    """The contenders of copies to and from one storage; its server runs from the first one on until this program ends."""

    def __init__(self, kind, inputs, ours, delay_ms=None):
        """`delay_ms`: of each packet, each way; None: on loopback."""
        self.kind, self.inputs, self.ours, self.delay_ms = STORAGES[kind], inputs, ours, delay_ms
        self._storage = None

    @property
    def storage(self):
        if self._storage is None:
            # Not in the work folder: UNIX sockets have short names.
            folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-"))
            stack = contextlib.ExitStack()
            atexit.register(stack.close)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            options = self.kind.options(os.path.getsize(self.inputs.sparse_raw()))
            start = self._start_near if self.delay_ms is None else self._start_far
            self._storage = start(folder, options, stack)
        return self._storage

    def _start_near(self, folder, options, stack):
        return self.kind(stack.enter_context(self.kind.server_kind(folder / "s", **options)))

    def _start_far(self, folder, options, stack):
        bed = stack.enter_context(Testbed(folder))
        far = make_storage(bed, bed.b, self.kind.far_kind)
        far.options = tuple(word for key, value in options.items() for word in (f"--{key}", "yes" if value is True else value))
        stack.enter_context(far)
        bed.link(delay_ms=self.delay_ms, is_fast=True)
        return self.kind(far.server, ("nsenter", "-t", str(bed.a.pid), "--net", "--"))

    def _command(self, words, before):
        storage = self.storage
        return run.command([str(word) for word in (*storage.inside, *words)], before=before, environment=storage.environment)

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
