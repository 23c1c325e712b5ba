"""An iSCSI target (tgtd) on 127.0.0.1 with LUNs in files, CHAP one-way or mutual.

What tests must know: tgtd has no COMPARE AND WRITE; a full file system becomes MEDIUM ERROR and not "space allocation failed"
(the errno is in its log only); after a restart the first command of each client gets UNIT ATTENTION.
"""

import os
import pathlib
import zlib

from processes import wait_until
from report import Failed
from storage import ports
from storage.server import Server

ADDRESS = "127.0.0.1"
IQN = "iqn.2026-01.test.diskferry:disk"
TARGET_ID = 1
ANSWER_SECONDS = 10


class Iscsi(Server):
    """A target in a folder, with LUN 1 and what add_lun adds; LUNs, with what set_lun said of them, come back at every start.

    `uri` has no password in it: `user` and `password` are beside it, and `password_file` is for programs.
    """

    KIND = "iscsi"
    DAEMONS = ("tgtd",)
    PROGRAMS = {"tgtd": "tgt", "tgtadm": "tgt"}
    OPTIONS = {"size": (1 << 30, "bytes of LUN 1, which is thin; 0 for no LUN"),
               "user": ("", "CHAP: whom the target lets in; everybody when empty"),
               "password": ("", "and by which password"),
               "target_user": ("", "mutual CHAP: by what name the target answers"),
               "target_password": ("", "and by which password"),
               "images": ("", "folder for the LUNs' files instead of the server's own"),
               "small": (0, "bytes of a tmpfs that the LUNs' files share; 0 for none")}
    iqn = IQN

    user = property(lambda self: self.settings["user"])
    password = property(lambda self: self.settings["password"])
    target_user = property(lambda self: self.settings["target_user"])
    target_password = property(lambda self: self.settings["target_password"])

    @property
    def portal(self):
        return f"{ADDRESS}:{self.settings['port']}"

    @property
    def password_file(self):
        """Mode 0600, the password and nothing else; there only with CHAP."""
        return self.folder / "password"

    @property
    def target_password_file(self):
        return self.folder / "target-password"

    @property
    def images(self):
        """The folder of the LUNs' files."""
        return pathlib.Path(self.settings["store"])

    def uri(self, lun=1):
        return f"iscsi://{self.portal}/{IQN}/{lun}"

    def client_environment(self):
        """For programs that use libiscsi: what they need to log in, out of sight of `ps`."""
        values = {"LIBISCSI_CHAP_USERNAME": self.user, "LIBISCSI_CHAP_PASSWORD": self.password,
                  "LIBISCSI_CHAP_TARGET_USERNAME": self.target_user, "LIBISCSI_CHAP_TARGET_PASSWORD": self.target_password}
        return self.environment(**{name: value for name, value in values.items() if value})

    def variables(self):
        found = {"ISCSI_URI": self.uri(), "ISCSI_PORTAL": self.portal, "ISCSI_IQN": IQN, "ISCSI_IMAGES": self.images}
        if self.user:
            found |= {"ISCSI_USER": self.user, "ISCSI_PASSWORD_FILE": self.password_file}
        if self.target_user:
            found |= {"ISCSI_TARGET_USER": self.target_user, "ISCSI_TARGET_PASSWORD_FILE": self.target_password_file}
        return found

    # LUNs

    def image(self, lun):
        """The file of a LUN."""
        return self.images / f"lun{lun}.img"

    def add_lun(self, lun, size, thin=True, block_size=512):
        """A new LUN of `size` bytes, which read as zeros; returns its file. A thin one can UNMAP. A file that is there
        already is taken as it is."""
        if str(lun) in self._luns():
            raise Failed(f"{self} has a LUN {lun} already")
        file = self.image(lun)
        if is_ours := not file.exists():
            with open(file, "xb") as out:
                out.truncate(size)
        one = {"thin": thin, "block_size": block_size, "readonly": False, "online": True, "is_ours": is_ours,
               "serial": f"df{zlib.crc32(os.fsencode(self.folder)):08x}{lun}"}
        self._make_lun(lun, one)
        self._save(luns={**self._luns(), str(lun): one})
        return file

    def del_lun(self, lun):
        """Takes a LUN away; its file stays."""
        self.tgtadm("--mode", "logicalunit", "--op", "delete", "--tid", TARGET_ID, "--lun", lun)
        self._save(luns={number: one for number, one in self._luns().items() if number != str(lun)})

    def set_lun(self, lun, readonly=None, online=None, serial=None):
        """Changes a live LUN, and remembers it over restarts."""
        luns = self._luns()
        if serial is not None:
            self._update(lun, scsi_sn=serial, scsi_id=serial)
            luns[str(lun)]["serial"] = serial
        for name, value in (("readonly", readonly), ("online", online)):
            if value is not None:
                self._update(lun, **{name: int(value)})
                luns[str(lun)][name] = value
        self._save(luns=luns)

    def sessions(self):
        """What tgtd says of its target: sessions, LUNs, accounts."""
        return self.tgtadm("--mode", "target", "--op", "show")

    def tgtadm(self, *words, timeout=ANSWER_SECONDS):
        return self.run("tgtadm", "-C", 1, "--lld", "iscsi", *words, timeout=timeout)

    def environment(self, **more):
        # The control socket is this name and the control port (-C): private to the folder.
        return super().environment(TGT_IPC_SOCKET=str(self.folder / "run" / "ctl"), **more)

    def _luns(self):
        return self.settings["luns"]

    def _make_lun(self, lun, one):
        self.tgtadm("--mode", "logicalunit", "--op", "new", "--tid", TARGET_ID, "--lun", lun, "--bstype", "rdwr",
                    "--blocksize", one["block_size"], "--backing-store", self.image(lun))
        # Two servers must not say that they have the same disk.
        self._update(lun, vendor_id="TESTBED", product_id="thin" if one["thin"] else "thick", scsi_sn=one["serial"],
                     scsi_id=one["serial"],
                     thin_provisioning=int(one["thin"]), readonly=int(one["readonly"]), online=int(one["online"]))

    def _update(self, lun, **values):
        self.tgtadm("--mode", "logicalunit", "--op", "update", "--tid", TARGET_ID, "--lun", lun, "--params",
                    ",".join(f"{name}={value}" for name, value in values.items()))

    # Start and end

    def _initialise(self, options):
        for user, password, file in (("user", "password", self.password_file),
                                     ("target_user", "target_password", self.target_password_file)):
            if bool(options[user]) != bool(options[password]):
                raise Failed(f"iscsi: {user} and {password} go together")
            if options[password]:
                with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as out:
                    out.write(options[password])
        if options["target_user"] and not options["user"]:
            raise Failed("iscsi: mutual CHAP comes on top of the one-way kind")
        store = pathlib.Path(options["images"] or self.folder / "luns")
        store.mkdir(parents=True, exist_ok=True)
        return {"port": ports.free_port(ADDRESS), "store": str(store), "luns": {}, "has_first": False}

    def _start(self):
        if not (self.daemons["tgtd"].is_alive() and self._is_configured()):
            self.kill9()
            # Right after a crash the port may still be in use by what was cut off.
            wait_until(self._start_on_portal, f"{self} listening", 20)
            self._configure()
        if self.settings["size"] and not self.settings["has_first"]:
            self.add_lun(1, self.settings["size"])
            self._save(has_first=True)
        if not ports.answers(ADDRESS, self.settings["port"]):
            raise Failed(f"{self}: {self.portal} does not answer")

    def _start_on_portal(self):
        """tgtd goes on without a portal when it cannot bind it, and clients then talk to whoever has the port: ask it."""
        self._spawn("tgtd", "tgtd", "-f", "-C", 1, "-t", 4, "--iscsi", f"portal={self.portal}")
        self._wait_ready(lambda: self.succeeds("tgtadm", "-C", 1, "--mode", "system", "--op", "show"), timeout=ANSWER_SECONDS)
        if self.portal in self.tgtadm("--mode", "portal", "--op", "show"):
            return True
        self.daemons["tgtd"].kill9()
        return False

    def _is_configured(self):
        return f"ACL information:\n        {ADDRESS}\n" in self.sessions()

    def _configure(self):
        """tgtd has everything in memory. Who may log in comes last, so that nobody does before all is there."""
        self.tgtadm("--mode", "target", "--op", "new", "--tid", TARGET_ID, "--targetname", IQN)
        for lun, one in self._luns().items():
            self._make_lun(int(lun), one)
        for user, password, way in ((self.user, self.password, []), (self.target_user, self.target_password, ["--outgoing"])):
            if user:
                self.tgtadm("--mode", "account", "--op", "new", "--user", user, "--password", password)
                self.tgtadm("--mode", "account", "--op", "bind", "--tid", TARGET_ID, "--user", user, *way)
        self.tgtadm("--mode", "target", "--op", "bind", "--tid", TARGET_ID, "--initiator-address", ADDRESS)

    def _stop(self):
        """tgtd ignores SIGTERM; it has no cache of its own, so SIGKILL loses nothing."""
        self.kill9()

    def _remove_outside(self):
        for lun, one in self._luns().items():
            if one["is_ours"]:
                self.image(lun).unlink(missing_ok=True)
