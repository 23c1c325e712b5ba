"""A GlusterFS volume as a storage of the fault cases; its files are read and written in the brick."""

import os
import shutil

from processes import run
from storage.gluster import Gluster
from storages import with_keys


class GlusterStorage:
    """Clients are told apart by their addresses only."""

    name = "gluster"
    creates = True

    def __init__(self, folder, small=0):
        self.server = Gluster(folder, small=small)

    def uri(self, volume, keys=None):
        return with_keys(self.server.uri(volume), keys or {})

    def make_room(self, volume, size):
        """The driver creates files."""

    def write(self, volume, source):
        """Through the volume by QEMU, for a file in a brick has attributes."""
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", source, self.server.uri(volume), env=self.server.client_environment())

    def read(self, volume, into):
        shutil.copyfile(self.server.file(volume), into)

    def exists(self, volume):
        return self.server.file(volume).exists()

    def fill(self, leave_bytes):
        store = self.server.brick.parent
        with open(store / "ballast", "wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, shutil.disk_usage(store).free - leave_bytes)

    def free(self):
        (self.server.brick.parent / "ballast").unlink()

    def refusals(self):
        yield "no such volume", self.server.uri("x").replace("/vol0/", "/none/"), "no such volume"
        yield "no such folder", self.server.uri("none/x"), "folder is not there"
        self.server.set_option("features.read-only", "on")
        yield "a volume that is read-only", self.server.uri("x"), "read-only"
        self.server.gluster("volume", "reset", self.server.volume, "features.read-only")
        self.server.set_option("auth.reject", "127.*")
        yield "a host that is not let in", self.server.uri("x"), "auth.reject"
        self.server.gluster("volume", "reset", self.server.volume, "auth.reject")

    def second_name(self, volume):
        return f"gluster+tcp://{self.server.address}:{self.server.port}/{self.server.volume}/{volume}?stall-timeout=7"

    def lose(self, volume):
        size = self.server.file(volume).stat().st_size
        os.truncate(self.server.file(volume), 0)
        os.truncate(self.server.file(volume), size)

    def missing(self):
        return self.uri("none.raw"), "no such file"
