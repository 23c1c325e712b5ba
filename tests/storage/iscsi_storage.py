"""LUNs of an iSCSI target as a storage of the fault cases: made at the target, read and written in the files that they lie in."""

import os

from processes import run
from storage.iscsi import Iscsi
from storage_base import MIB, FileStorage, with_keys

USER, PASSWORD = "alice", "secret of alice"


class IscsiStorage(FileStorage):
    """The driver finds out by the key that it registered what a restart may have lost."""

    name = "iscsi"
    creates = False

    def __init__(self, folder, small=0):
        self.server = Iscsi(folder, size=0, small=small, user=USER, password=PASSWORD)
        self._numbers = {}

    @property
    def store(self):
        return self.server.images

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

    def refusals(self):
        self.make_room("x", 64 * MIB)
        yield "no such target", self.uri("x").replace(":disk/", ":none/"), "no such target"
        yield "no such LUN", self.uri_of(77), "no lun of this number"
        yield "the controller", self.uri_of(0), "this lun is no disk"
        yield "another user", self.uri_of(self.number("x"), user="bob"), "refuses the user or the password"
        forged = self.server.folder / "forged"
        forged.write_text("another secret\n", encoding="ascii")
        yield "wrong password", with_keys(self.uri("x").split("?", maxsplit=1)[0], {"password-file": forged}), "refuses the user or the password"
        yield "no user", self.server.uri(self.number("x")), "refuses the user or the password"
        self.server.set_lun(self.number("x"), readonly=True)
        yield "write protected", self.uri("x"), "write protected"
        self.server.set_lun(self.number("x"), readonly=False)

    def second_name(self, volume):
        return self.uri(volume).replace("127.0.0.1", "LocalHost")

    def missing(self):
        return self.uri_of(77), "no lun of this number"
