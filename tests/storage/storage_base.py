"""What the storages of the fault cases share."""

import os
import shutil

MIB = 1 << 20
# A server that is killed is back within a second or two; who waits longer waits for one that stays away.
PATIENT = {"reconnect-timeout": 60, "stall-timeout": 60}
IMPATIENT = {"reconnect-timeout": 2, "stall-timeout": 2, "connect-timeout": 2}


def with_keys(uri, keys):
    return uri + "".join(("&" if "?" in uri or at else "?") + f"{key}={value}" for at, (key, value) in enumerate(keys.items()))


class FileStorage:
    """Volumes that are files of the server's own, in a store that has the folder `store`."""

    def file(self, volume):
        return self.server.file(volume)

    def uri(self, volume, keys=None):
        return with_keys(self.server.uri(volume), keys or {})

    def make_room(self, volume, size):
        """For a target that we cannot create."""

    def read(self, volume, into):
        """The content of a volume as a file, without diskferry."""
        shutil.copyfile(self.file(volume), into)

    def exists(self, volume):
        return self.file(volume).exists()

    def fill(self, leave_bytes):
        """Leaves so much of a small store free."""
        with open(self.store / "ballast", "wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, shutil.disk_usage(self.store).free - leave_bytes)

    def free(self):
        (self.store / "ballast").unlink()

    def lose(self, volume):
        """What a server may do that ends: everything that was not flushed is lost. Here: all that was written."""
        size = self.file(volume).stat().st_size
        os.truncate(self.file(volume), 0)
        os.truncate(self.file(volume), size)
