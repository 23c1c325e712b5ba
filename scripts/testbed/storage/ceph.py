"""A Ceph cluster of one monitor and one OSD (bluestore on a sparse file), cephx on, with the pool `rbd`.

What tests must know: a full cluster makes a client wait for ever, unless it asked for errors with rados_set_pool_full_try;
an OSD that hangs or is gone makes it wait, too; a new client of a hung monitor waits client_mount_timeout (300 s).
"""

import itertools
import re
import subprocess
import uuid

from processes import wait_until
from report import Failed
from storage import ceph_conf
from storage.daemon import Daemon
from storage.ports import free_port
from storage.server import Server

POOL = "rbd"
LOOPBACK = "127.0.0.1"
PORTS = 40  # the monitor's and what OSD and mgr may choose from
KEYS = (("mon.", "mon.keyring", {"mon": "allow *"}),
        ("client.admin", "ceph.client.admin.keyring", {"mon": "allow *", "osd": "allow *", "mds": "allow *", "mgr": "allow *"}),
        ("osd.0", "ceph.osd.0.keyring", {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"}),
        ("mgr.x", "ceph.mgr.x.keyring", {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"}))


class Ceph(Server):
    """A cluster in a folder. `uri` and `pool` name images, `conf` and `keyring` say how to reach them.

    For a cluster that fills up, either start it with `size` and `full_ratio`, or call set_full_ratio with less than is used.
    """

    KIND = "ceph"
    DAEMONS = ("mon", "osd", "mgr")
    PROGRAMS = {"ceph-mon": "ceph-mon", "ceph-osd": "ceph-osd", "ceph-mgr": "ceph-mgr", "ceph": "ceph-common"}
    OPTIONS = {"address": ("", "IP address of this host to serve on; '' for a loopback one"),
               "size": (10 << 30, "bytes of the OSD's sparse file"),
               "full_ratio": (0.95, "share of them in use at which the cluster takes no more writes"),
               "mgr": (False, "with a manager, which pool quotas and `ceph df` need")}
    pool = POOL

    @property
    def address(self):
        return self.settings["address"] or LOOPBACK

    @property
    def conf(self):
        return self.folder / "ceph.conf"

    @property
    def keyring(self):
        """The administrator's."""
        return self.keyring_of("admin")

    def keyring_of(self, user):
        return self.folder / f"ceph.client.{user}.keyring"

    @property
    def monitor(self):
        return f"{self.address}:{self.settings['port']}"

    def daemon_names(self):
        return self.DAEMONS if self.is_initialised() and self.settings["mgr"] else self.DAEMONS[:2]

    def uri(self, image, pool=POOL):
        """As diskferry wants it."""
        return f"rbd://{pool}/{image}?conf={self.conf}"

    def qemu_uri(self, image, pool=POOL, user="admin"):
        """As qemu-img wants it; the keyring is found by way of the conf."""
        return f"rbd:{pool}/{image}:id={user}:conf={self.conf}"

    def variables(self):
        return {"CEPH_CONF": self.conf, "CEPH_KEYRING": self.keyring, "CEPH_MON": self.monitor, "CEPH_POOL": POOL,
                "CEPH_USER": "admin"}

    def ceph(self, *words, timeout=60):
        """`ceph` as the administrator; an argument like `osd dump`."""
        return self.run("ceph", "-c", self.conf, "--connect-timeout", 20, *words, timeout=timeout)

    def ceph_all(self, *commands, timeout=60):
        """Commands one after the other by one client: starting `ceph` is what takes time, up to half a second."""
        try:
            done = subprocess.run(["ceph", "-c", self.conf, "--connect-timeout", "20"], input="\n".join([*commands, ""]),
                                  capture_output=True, text=True, env=self.environment(), timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self}: {commands}: still running after {timeout} s") from None
        # It goes on after an error and says at the end that all was well.
        if done.returncode != 0 or "Error " in done.stderr:
            raise Failed(f"{self}: {commands}: {done.stderr}")

    def rbd(self, *words, timeout=60):
        return self.run("rbd", "-c", self.conf, *words, timeout=timeout)

    def create_image(self, image, size, pool=POOL, features="layering"):
        """`size` is bytes, a multiple of 512."""
        self.rbd("create", "--size", f"{size}B", "--image-feature", features, f"{pool}/{image}")

    def create_pool(self, pool):
        self.ceph_all(*self._new_pool(pool))

    @staticmethod
    def _new_pool(pool):
        return [f"osd pool create {pool} 8 8", f"osd pool application enable {pool} rbd"]

    def add_user(self, name, pool=POOL, read_only=False):
        """A client that may use images of one pool and nothing else; returns its keyring."""
        profile = "profile rbd-read-only" if read_only else "profile rbd"
        keyring = self.keyring_of(name)
        self.ceph("auth", "get-or-create", f"client.{name}", "mon", "profile rbd", "osd", f"{profile} pool={pool}",
                  "mgr", f"{profile} pool={pool}", "-o", keyring)
        keyring.chmod(0o600)
        return keyring

    def remove_user(self, name):
        """Connections that are open go on until their ticket ends; new ones are refused."""
        self.ceph("auth", "rm", f"client.{name}")

    def set_full_ratio(self, ratio):
        """Raised, waiting writers go on; set below what is in use, the cluster is full (wait_full)."""
        self.ceph_all(*(f"osd set-{name}-ratio {ratio - less:.4f}"
                        for name, less in (("nearfull", 0.002), ("backfillfull", 0.001), ("full", 0))))

    def is_full(self):
        return bool(re.search(r"^osd\.0 .*\bfull\b", self.ceph("osd", "dump"), re.MULTILINE))

    def wait_full(self, is_full=True):
        """The flag comes one or two seconds after the fact."""
        wait_until(lambda: self.is_full() == is_full, f"{self} {'full' if is_full else 'not full'}")

    def set_quota(self, size, pool=POOL):
        """At most `size` bytes in the pool, 0 for no quota. Takes effect a second or two late."""
        if not self.settings["mgr"]:
            raise Failed("quotas need a mgr: Ceph(folder, mgr=True)")
        self.ceph("osd", "pool", "set-quota", pool, "max_bytes", size)

    def is_quota_reached(self, pool=POOL):
        return bool(re.search(rf"^pool \d+ '{re.escape(pool)}' .*\bfull_quota\b", self.ceph("osd", "dump"), re.MULTILINE))

    def clients(self, image, pool=POOL):
        """The addresses of those that have the image open."""
        return re.findall(r"watcher=(\S+)", self.rbd("status", f"{pool}/{image}"))

    def blocklist(self, image, pool=POOL):
        """Fences every client that has the image open, and returns their addresses."""
        found = self.clients(image, pool)
        for address in found:
            self.ceph("osd", "blocklist", "add", address)
        return found

    def clear_blocklist(self):
        self.ceph("osd", "blocklist", "clear")

    def _initialise(self, options):
        address = options["address"] or LOOPBACK
        port, fsid = free_port(address, 3), str(uuid.uuid4())
        for place in ("mon", "osd", "mgr", "crash"):
            (self.folder / place).mkdir()
        ceph_conf.write(self.conf, self.folder, address, port, PORTS, fsid, options["size"], options["full_ratio"])
        # All keys are made first and given to the monitor with its file system, so that nobody waits for `ceph auth add`.
        keyrings = [self.folder / file for _, file, _ in KEYS]
        for (name, _, caps), keyring in zip(KEYS, keyrings):
            rights = [word for service, right in caps.items() for word in ("--cap", service, right)]
            self.run("ceph-authtool", "-C", keyring, "--gen-key", "-n", name, *rights)
            keyring.chmod(0o600)
        for keyring in keyrings[1:]:
            self.run("ceph-authtool", keyrings[0], "--import-keyring", keyring)
        monmap = self.folder / "monmap"
        self.run("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", f"[v2:{address}:{port}]", monmap)
        self.run("ceph-mon", "-c", self.conf, "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", keyrings[0])
        return {"port": port, "fsid": fsid, "osd_uuid": str(uuid.uuid4()), "has_pool": False}

    def _start(self):
        mon, osd, mgr = (self.daemons[name] for name in self.DAEMONS)
        if not mon.is_alive():
            self._spawn("mon", "ceph-mon", "-c", self.conf, "-i", "a", "-f")
        making = None
        if not (self.folder / "osd" / "ready").exists():
            making = Daemon(self.folder, "osd_mkfs")  # beside the monitor: it does not need it
            making.start("ceph-osd", "-f", "-c", self.conf, "-i", 0, "--mkfs", "--osd-uuid", self.settings["osd_uuid"],
                         "--no-mon-config", environment=self.environment())
        if not self.settings["has_pool"]:
            self.ceph_all(f"osd new {self.settings['osd_uuid']} 0", *self._new_pool(POOL))
            self._save(has_pool=True)
        if making is not None:
            making.wait_gone(60)
            if not (self.folder / "osd" / "ready").exists():
                raise Failed(f"{self}: no OSD was made: {making.last_words()}")
        if not osd.is_alive():
            self._spawn("osd", "ceph-osd", "-c", self.conf, "-i", 0, "-f")
        if self.settings["mgr"] and not mgr.is_alive():
            self._spawn("mgr", "ceph-mgr", "-c", self.conf, "-i", "x", "-f")
        # What was sent before the OSD was up is sent again only after 5 s: ask anew soon, and later not so soon.
        patience = (min(2.0, 0.3 * 1.3 ** attempt) for attempt in itertools.count())
        self._wait_ready(lambda: self._does_io(next(patience)))

    def _does_io(self, seconds):
        """Asking for an object that is not there goes all the way to the OSD."""
        try:
            self.run("timeout", f"{seconds:.2f}", "rados", "-c", self.conf, "-p", POOL, "stat", "no-such-object")
        except Failed as failure:
            return "No such file" in str(failure)
        return True

    def _stop(self):
        # The OSD first: it tells the monitor that it goes. A hung monitor would let it wait.
        self.cont()
        Daemon(self.folder, "osd_mkfs").stop()
        for name in ("osd", "mgr", "mon"):
            self.daemons[name].stop()
