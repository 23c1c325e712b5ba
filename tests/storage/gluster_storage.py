"""A GlusterFS volume as a storage of the fault cases; its files are read and written in the brick."""

from processes import run
from storage.gluster import Gluster
from storage_base import FileStorage


class GlusterStorage(FileStorage):
    """Clients are told apart by their addresses only."""

    name = "gluster"
    creates = True

    def __init__(self, folder, small=0):
        self.server = Gluster(folder, small=small)

    @property
    def store(self):
        return self.server.brick.parent

    def write(self, volume, source):
        """Through the volume by QEMU, for a file in a brick has attributes."""
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", source, self.server.uri(volume), env=self.server.client_environment())

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

    def missing(self):
        return self.uri("none.raw"), "no such file"
