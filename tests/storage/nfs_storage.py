"""An NFS server as a storage of the fault cases; its files are read and written where it has them."""

import os
import shutil

from storage.nfs import Nfs
from storage_base import FileStorage


class NfsStorage(FileStorage):
    """Files on an NFS server. The driver finds out by the server's verifier what a restart has lost."""

    name = "nfs"
    creates = True

    def __init__(self, folder, small=0):
        self.server = Nfs(folder, small=small)

    @property
    def store(self):
        return self.server.path

    def write(self, volume, source):
        """The content of the file `source` as a volume, without diskferry."""
        shutil.copyfile(source, self.server.file(volume))

    def refusals(self):
        """What: (URI of a volume to write to, a text that the error must have), after what makes it so was done."""
        yield "no such export", self.server.uri("x").replace("/export/", "/none/"), "does not export /none"
        yield "version 4", self.server.uri("x", version=4), "use version=3"
        self.server.set_export(squash="All_Squash")
        self.server.path.chmod(0o755)
        yield "another user", self.uri("x"), "uid"
        self.server.set_export(squash="No_Root_Squash", access="RO")
        yield "read-only export", self.uri("x"), "read-only"
        self.server.set_access("RW")

    def second_name(self, volume):
        """Another URI of the same volume."""
        os.link(self.server.file(volume), self.server.file("link"))
        return self.uri("link")

    def missing(self):
        """Of a source that is not there."""
        return self.uri("none.raw"), "no such file"
