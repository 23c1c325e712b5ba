"""A Ceph cluster as a storage of the fault cases: images of the pool rbd, read and written by Ceph's own tool."""

from storage.ceph import Ceph
from storage_base import with_keys

USER = "mover"  # may use the images of one pool, and no more


class RbdStorage:
    """The library sends again by itself what an OSD lost; only how long it tries is ours. Fullness has cases of its own in
    rbd_test.py: the cluster notices it a second or two late."""

    name = "rbd"
    creates = True

    def __init__(self, folder, small=0):
        self.server = Ceph(folder, **({"size": small} if small else {}))
        self._folder = folder
        self._has_user = False

    def needs_manager(self, is_needed):
        """Before the server is started."""
        if is_needed:
            self.server = Ceph(self._folder, mgr=True)

    def uri(self, volume, keys=None):
        if not self._has_user:
            self.server.add_user(USER)
            self._has_user = True
        known = {key: value for key, value in (keys or {}).items() if key != "stall-timeout"}
        return with_keys(self.server.uri(volume), {"id": USER, **known})

    def make_room(self, volume, size):
        """The driver creates images."""

    def write(self, volume, source):
        self.server.rbd("import", "--no-progress", source, f"{self.server.pool}/{volume}")

    def read(self, volume, into):
        into.unlink(missing_ok=True)
        self.server.rbd("export", "--no-progress", f"{self.server.pool}/{volume}", into)

    def exists(self, volume):
        return volume in self.server.rbd("ls", self.server.pool).split()

    def refusals(self):
        uri = self.uri("x")
        yield "no such pool", uri.replace("/rbd/", "/none/"), "no pool none"
        yield "no such namespace", uri.replace("/x?", "/space/x?"), "no namespace space"
        yield "no key", uri.replace(f"id={USER}", "id=nobody"), "no key of client.nobody"
        forged = self.server.folder / "forged.keyring"
        self.server.run("ceph-authtool", "-C", forged, "--gen-key", "-n", f"client.{USER}")
        yield "wrong key", uri + f"&keyring={forged}", f"does not let client.{USER} in"
        self.server.add_user("reader", read_only=True)
        yield "a user who may read only", uri.replace(f"id={USER}", "id=reader"), "profile rbd"
        self.server.create_image("old", 1 << 20)
        yield "an image that is there", self.uri("old"), "exists"
        yield "no configuration", uri.replace(".conf", ".none"), "configuration file is not there"

    def second_name(self, volume):
        """As QEMU calls it."""
        return self.server.qemu_uri(volume, user=USER)

    def missing(self):
        return self.uri("none"), "no such pool, namespace, image or snapshot"
