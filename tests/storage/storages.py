"""The storages of the fault cases: each a real server of the testbed with what the cases need of it. A new storage is a class
here and a line in STORAGES.

`prepare(size)` makes a source volume, or room for a target; URIs are diskferry's own. What is in a volume is read with a
program that is not ours, or from the server's own files.
"""

import os
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "scripts" / "testbed")]

from storage.nfs import Nfs  # noqa: E402

MIB = 1 << 20
# A server that is killed is back within a second or two; who waits longer waits for one that stays away.
PATIENT = {"reconnect-timeout": 60, "stall-timeout": 60}
IMPATIENT = {"reconnect-timeout": 2, "stall-timeout": 2, "connect-timeout": 2}


def with_keys(uri, keys):
    return uri + "".join(("&" if "?" in uri or at else "?") + f"{key}={value}" for at, (key, value) in enumerate(keys.items()))


class NfsStorage:
    """Files on an NFS server. The driver finds out by the server's verifier what a restart has lost."""

    name = "nfs"
    creates = True

    def __init__(self, folder, small=0):
        self.server = Nfs(folder, small=small)

    def uri(self, volume, keys=None):
        return with_keys(self.server.uri(volume), keys or {})

    def make_room(self, volume, size):
        """For a target that we cannot create."""

    def write(self, volume, source):
        """The content of the file `source` as a volume, without diskferry."""
        shutil.copyfile(source, self.server.file(volume))

    def read(self, volume, into):
        """The content of a volume as a file, without diskferry."""
        shutil.copyfile(self.server.file(volume), into)

    def exists(self, volume):
        return self.server.file(volume).exists()

    def fill(self, leave_bytes):
        """Leaves so much of a small store free."""
        free = shutil.disk_usage(self.server.path).free
        with open(self.server.file("ballast"), "wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, free - leave_bytes)

    def free(self):
        self.server.file("ballast").unlink()

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

    def lose(self, volume):
        """What a server may do that ends: everything that was not flushed is lost. Here: all that was written."""
        size = self.server.file(volume).stat().st_size
        os.truncate(self.server.file(volume), 0)
        os.truncate(self.server.file(volume), size)

    def missing(self):
        """Of a source that is not there."""
        return self.uri("none.raw"), "no such file"


from iscsi_storage import IscsiStorage  # noqa: E402

STORAGES = {one.name: one for one in (NfsStorage, IscsiStorage)}
