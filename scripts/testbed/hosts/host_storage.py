"""A storage server (scripts/testbed/storage) in a host of the testbed, on the host's address: both hosts reach it over the wire,
the gateways with our drivers and the QEMUs with their own.

    with make_storage(bed, bed.b, "ceph") as storage:
        if not storage.creates:
            storage.make("vm.raw", size)
        gateways.migrate(guest, {"vda": storage.uri("vm.raw")}, options=storage.migrate_options("vda"))
        guest.check(storage.file("vm.raw"), host=storage.host)

Kinds: nfs, iscsi, iscsi-chap, ceph, ceph-user, gluster. Those with a user (iscsi-chap, ceph-user) make a secret in the libvirt
of both hosts. Several servers of one kind need a host each.
"""

import pathlib
import sys
import uuid
from xml.sax.saxutils import escape

HERE = pathlib.Path(__file__).resolve().parent
FRONTS = HERE.parent
if str(FRONTS) not in sys.path:
    sys.path.append(str(FRONTS))

from processes import wait_until  # noqa: E402
from report import Failed  # noqa: E402
from storage.ceph import POOL, Ceph  # noqa: E402
from storage.gluster import VOLUME, Gluster  # noqa: E402
from storage.iscsi import Iscsi  # noqa: E402
from storage.nfs import EXPORT, Nfs  # noqa: E402

START_SECONDS = 120  # Ceph needs 3 on a machine with nothing else to do
USER, PASSWORD = "mover", "only-for-this-test"


class HostStorage:
    """A server that runs inside and is gone after. It is started by its front end in the host; `server` reads the settings of
    its folder from this machine, which is enough for names, not for starting and stopping."""

    kind = ""
    server_class = None
    creates = True  # a volume that a move goes to is made by the move
    protocol = ""  # libvirt's word
    secret_type = ""  # libvirt's word, where there is a user
    options = ()

    def __init__(self, bed, host):
        self.bed = bed
        self.host = host
        # Both hosts have the testbed's folder where this machine has it.
        self.folder = bed.folder / f"storage-{self.kind}"
        self.secret = None
        self._program = None
        self._server = None

    @property
    def server(self):
        if self._server is None:
            self._server = self.server_class(self.folder)
        return self._server

    def __enter__(self):
        front = FRONTS / self.server_class.KIND
        self._program = self.host.start(front, "hold", self.folder, "--address", self.host.address, *self.options,
                                        log=self.host.folder / f"storage-{self.kind}.log", held=True)
        try:
            wait_until(self._is_ready, f"{self.kind} on {self.host}", START_SECONDS)
            self._prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self._program is not None:
            program, self._program = self._program, None
            if program.poll() is None:
                program.let_go()

    def _is_ready(self):
        if self._program.poll() is not None:
            raise Failed(f"{self.kind} on {self.host} ended: {self._program.output()[-1000:].strip()}")
        return "READY" in self._program.output().splitlines()

    def _prepare(self):
        """What is to be done once the server runs."""

    def name(self, volume):
        """What libvirt's XML has as the name of the source."""
        raise NotImplementedError

    def uri(self, volume):
        """diskferry's."""
        return self.server.uri(volume)

    def make(self, volume, size):
        """An empty volume of `size` bytes."""
        with open(self.server.file(volume), "xb") as out:
            out.truncate(size)

    def exists(self, volume):
        return self.server.file(volume).exists()

    def file(self, volume):
        """A raw file with the volume's content, on the server's host and on this machine. Nobody should be writing to it."""
        return self.server.file(volume)

    def source_xml(self, volume):
        """The <source> of a disk of a guest."""
        inside = self._place_xml() + self._auth_xml()
        return f"<source protocol='{self.protocol}' name='{escape(self.name(volume))}'>{inside}</source>"

    def _place_xml(self):
        return f"<host name='{self.server.address}'/>"

    def _auth_xml(self):
        if not self.secret:
            return ""
        return f"<auth username='{USER}'><secret type='{self.secret_type}' uuid='{self.secret}'/></auth>"

    def migrate_options(self, disk):
        """What `diskferry migrate` needs to be told beside the URI."""
        return ("--secret", f"{disk}={self.secret}") if self.secret else ()

    def _define_secret(self, usage, key, is_base64):
        self.secret = str(uuid.uuid4())
        file = self.bed.folder / f"secret-{self.kind}.xml"
        file.write_text(f"<secret ephemeral='no' private='yes'><uuid>{self.secret}</uuid>{usage}</secret>", encoding="utf-8")
        value = self.bed.folder / f"secret-{self.kind}"
        value.touch(mode=0o600)
        value.write_text(key, encoding="utf-8")
        for host in self.bed.hosts:
            host.virsh("secret-define", file)
            host.virsh("secret-set-value", self.secret, "--file", value, *(() if is_base64 else ("--plain",)))


class NfsOnHost(HostStorage):
    """With a portmapper: QEMU's driver asks for ports and cannot be told."""

    kind = "nfs"
    protocol = "nfs"
    server_class = Nfs
    options = ("--pmap", "yes")

    def name(self, volume):
        return f"{EXPORT}/{volume}"

    def uri(self, volume):
        return self.server.qemu_uri(volume)


class IscsiOnHost(HostStorage):
    """One LUN, made by the administrator and exactly as large as the disk."""

    kind = "iscsi"
    server_class = Iscsi
    protocol = "iscsi"
    secret_type = "iscsi"
    creates = False
    options = ("--size", 0)
    volume = None

    def _place_xml(self):
        return f"<host name='{self.server.address}' port='{self.server.settings['port']}'/>"

    def _lun(self, volume):
        if volume != self.volume:
            raise Failed(f"{self.kind} has no {volume}: make it first")
        return 1

    def name(self, volume):
        return f"{self.server.iqn}/{self._lun(volume)}"

    def uri(self, volume):
        return self.server.uri(self._lun(volume))

    def make(self, volume, size):
        # By tgtd's socket, which is in the folder and not in the host's network.
        self.server.add_lun(1, size)
        self.volume = volume

    def exists(self, volume):
        return volume == self.volume

    def file(self, volume):
        return self.server.image(self._lun(volume))


class IscsiChapOnHost(IscsiOnHost):
    """The same behind CHAP."""

    kind = "iscsi-chap"
    options = (*IscsiOnHost.options, "--user", USER, "--password", PASSWORD)

    def _prepare(self):
        self._define_secret("<usage type='iscsi'><target>diskferry-testbed</target></usage>", PASSWORD, False)

    def uri(self, volume):
        plain = super().uri(volume)
        return f"{plain.replace('://', f'://{USER}@', 1)}?password-file={self.server.password_file}"


class CephOnHost(HostStorage):
    """The administrator's key is found by way of the configuration file, which both hosts have."""

    kind = "ceph"
    protocol = "rbd"
    secret_type = "ceph"
    server_class = Ceph

    def name(self, volume):
        return f"{POOL}/{volume}"

    def make(self, volume, size):
        self._rbd("create", "--size", f"{size}B", "--image-feature", "layering,exclusive-lock", self.name(volume))

    def exists(self, volume):
        return volume in self._rbd("ls", POOL).split()

    def file(self, volume):
        copy = self.bed.folder / f"{self.kind}-{volume}.export"
        copy.unlink(missing_ok=True)
        self._rbd("export", "--no-progress", self.name(volume), copy)
        return copy

    def _place_xml(self):
        return f"<config file='{self.server.conf}'/>"

    def _rbd(self, *words):
        return self.host.run("rbd", "-c", self.server.conf, *words, timeout=120)


class CephUserOnHost(CephOnHost):
    """A user who may use the images of the pool; QEMU has the key from libvirt."""

    kind = "ceph-user"

    def _prepare(self):
        ceph = ("ceph", "-c", self.server.conf, "auth")
        self.host.run(*ceph, "get-or-create", f"client.{USER}", "mon", "profile rbd", "osd", f"profile rbd pool={POOL}",
                      "-o", self.server.keyring_of(USER), timeout=120)
        key = self.host.run(*ceph, "get-key", f"client.{USER}", timeout=120).strip()
        self._define_secret("<usage type='ceph'><name>diskferry-testbed</name></usage>", key, True)

    def uri(self, volume):
        return f"{super().uri(volume)}&id={USER}&keyring={self.server.keyring_of(USER)}"


class GlusterOnHost(HostStorage):
    """A volume of one brick. QEMU, too, takes ten seconds to end when it has had a file of it open."""

    kind = "gluster"
    protocol = "gluster"
    server_class = Gluster

    def name(self, volume):
        return f"{VOLUME}/{volume}"


KINDS = {one.kind: one for one in (NfsOnHost, IscsiOnHost, IscsiChapOnHost, CephOnHost, CephUserOnHost, GlusterOnHost)}


def make_storage(bed, host, kind):
    return KINDS[kind](bed, host)
