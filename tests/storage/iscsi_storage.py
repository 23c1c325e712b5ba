"""LUNs of an iSCSI target as a storage of the fault cases: made at the target, read and written in the files that they lie in."""

import os
import shutil

from processes import run
from storage.iscsi import Iscsi
from storages import with_keys

USER, PASSWORD = "alice", "secret of alice"
MIB = 1 << 20


class IscsiStorage:
    """The driver finds out by the key that it registered what a restart may have lost."""

    name = "iscsi"
    creates = False

    def __init__(self, folder, small=0):
        self.server = Iscsi(folder, size=0, small=small, user=USER, password=PASSWORD)
        self._numbers = {}

    def number(self, volume):
        """The LUN of that name; whether it is there is another question."""
        return self._numbers.setdefault(volume, len(self._numbers) + 1)

    def file(self, volume):
        return self.server.image(self.number(volume))

    def uri(self, volume, keys=None):
        return self.uri_of(self.number(volume), keys)

    def uri_of(self, lun, keys=None, user=USER):
        uri = self.server.uri(lun).replace("iscsi://", f"iscsi://{user}@")
        return with_keys(uri, {"password-file": self.server.password_file, **(keys or {})})

    def make_room(self, volume, size, **options):
        self.server.add_lun(self.number(volume), size, **options)

    def write(self, volume, source, **options):
        run("cp", "--sparse=always", source, self.file(volume))
        self.make_room(volume, os.stat(source).st_size, **options)

    def read(self, volume, into):
        shutil.copyfile(self.file(volume), into)

    def exists(self, volume):
        return self.file(volume).exists()

    def fill(self, leave_bytes):
        free = shutil.disk_usage(self.server.images).free
        with open(self.server.images / "ballast", "wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, free - leave_bytes)

    def free(self):
        (self.server.images / "ballast").unlink()

    def refusals(self):
        self.make_room("x", 64 * MIB)
        yield "no such target", self.uri("x").replace(":disk/", ":none/"), "no such target"
        yield "no such LUN", self.uri_of(77), "no lun of this number"
        yield "the controller", self.uri_of(0), "this lun is no disk"
        yield "another user", self.uri_of(self.number("x"), user="bob"), "refuses the user or the password"
        forged = self.server.folder / "forged"
        forged.write_text("another secret\n", encoding="ascii")
        wrong = self.uri("x").replace(str(self.server.password_file), str(forged))
        yield "wrong password", wrong, "refuses the user or the password"
        yield "no user", self.server.uri(self.number("x")), "refuses the user or the password"
        self.server.set_lun(self.number("x"), readonly=True)
        yield "write protected", self.uri("x"), "write protected"
        self.server.set_lun(self.number("x"), readonly=False)

    def second_name(self, volume):
        return self.uri(volume).replace("127.0.0.1", "LocalHost")

    def lose(self, volume):
        size = self.file(volume).stat().st_size
        os.truncate(self.file(volume), 0)
        os.truncate(self.file(volume), size)

    def missing(self):
        return self.uri_of(77), "no lun of this number"
