"""An NFS server (nfs-ganesha, FSAL_VFS): NFSv3 and v4 over TCP on a loopback address of its own, without rpcbind or D-Bus.

What tests must know: libnfs 4.0 tells every failed NFSv3 write as EFAULT, whatever the server said (the reason is in the text),
and cannot write by v4; space of a file that is deleted behind the server's back stays in use while the server has it open; the write verifier is the second
in which the server was started, so that of two lives within one second no client can tell which one has its writes.
"""

import pathlib
import re
import signal
import sys

from processes import wait_until
from report import Failed
from storage import ports
from storage.server import HERE, Server

EXPORT = "/export"  # as clients name it, whatever folder it is
PORTMAPPER_PORT = 111

CONF = """\
NFS_CORE_PARAM {{
    NFS_Port = {nfs_port};
    MNT_Port = {mount_port};
    Bind_addr = {address};
    Protocols = 3, 4;
    Enable_NLM = false;
    Enable_RQUOTA = false;
    Enable_UDP = false;
    mount_path_pseudo = true;
    Plugins_Dir = "{plugins}";
}}
NFSv4 {{
    # No grace period: clients go on at once after a restart.
    Graceless = true;
    Lease_Lifetime = 10;
    Grace_Period = 5;
    RecoveryBackend = fs;
    RecoveryRoot = "{folder}/recovery";
    Only_Numeric_Owners = true;
}}
NFS_KRB5 {{ Active_krb5 = false; }}
# What tests do to the exported folder behind the server's back is seen.
MDCACHE {{ Dir_Chunk = 0; }}
EXPORT_DEFAULTS {{ Attr_Expiration_Time = 0; }}
EXPORT {{
    Export_Id = 1;
    Path = "{store}";
    Pseudo = "{export}";
    Access_Type = {access};
    Squash = {squash};
    SecType = sys;
    Protocols = 3, 4;
    Transports = TCP;
    MaxRead = 1048576; MaxWrite = 1048576; PrefRead = 1048576; PrefWrite = 1048576;
    FSAL {{ Name = VFS; }}
}}
LOG {{ Default_Log_Level = EVENT; }}
"""


class Nfs(Server):
    """A server in a folder, with one export. `uri(name)` names a file in it, and `file(name)` is the same for this machine."""

    KIND = "nfs"
    DAEMONS = ("ganesha", "portmapper")
    PROGRAMS = {"ganesha.nfsd": "nfs-ganesha", "nfs-ls": "libnfs-utils", "gcc": "gcc"}
    OPTIONS = {"address": ("", "IP address of this host to serve on; '' for a loopback one"),
               "path": ("", "folder to export instead of the server's own; its files stay"),
               "small": (0, "bytes of a tmpfs that is exported; 0 for none"),
               "access": ("RW", "Access_Type: RW, RO"),
               "squash": ("No_Root_Squash", "Squash: No_Root_Squash, Root_Squash, All_Squash"),
               "pmap": (False, "also answer on port 111, which QEMU's nfs driver asks for ports")}
    NEEDS_ROOT = True  # open_by_handle_at

    address = property(lambda self: self.settings["address"])
    nfs_port = property(lambda self: self.settings["nfs_port"])
    mount_port = property(lambda self: self.settings["mount_port"])

    @property
    def path(self):
        """The folder that is exported."""
        return pathlib.Path(self.settings["store"])

    @property
    def conf(self):
        return self.folder / "ganesha.conf"

    def daemon_names(self):
        return self.DAEMONS if self.is_initialised() and self.settings["pmap"] else self.DAEMONS[:1]

    def file(self, name):
        return self.path / name

    def uri(self, name="", version=3):
        """As libnfs reads it; v4 has no mount protocol. Without a name it is the export itself."""
        place = f"nfs://{self.address}{EXPORT}" + (f"/{name}" if name else "")
        mount = f"&mountport={self.mount_port}" if version == 3 else ""
        return f"{place}?nfsport={self.nfs_port}{mount}&version={version}"

    def qemu_uri(self, name):
        """QEMU's driver knows no ports and asks port 111, always for v3."""
        if not self.settings["pmap"]:
            raise Failed("QEMU needs a portmapper: Nfs(folder, pmap=True)")
        return f"nfs://{self.address}{EXPORT}/{name}"

    def variables(self):
        return {"NFS_URI": self.uri(), "NFS_ADDRESS": self.address, "NFS_PORT": self.nfs_port,
                "NFS_MOUNT_PORT": self.mount_port, "NFS_EXPORT": EXPORT, "NFS_PATH": self.path}

    def set_access(self, access):
        """RW or RO, from now on, for clients that are connected, too."""
        self.set_export(access=access)

    def set_export(self, **changed):
        """Changes `access` or `squash` of the live export; returns once the server has done so, and remembers it."""
        if unknown := set(changed) - {"access", "squash"}:
            raise TypeError(f"no such setting of an export: {', '.join(unknown)}")
        self._options.update(changed)
        self._save(**changed)
        self._write_conf(self.settings)
        if self.daemons["ganesha"].is_alive():
            before = self._rereads()
            self.daemons["ganesha"].signal(signal.SIGHUP)
            wait_until(lambda: self._rereads() > before, f"{self} reading its configuration again", 20)

    def _rereads(self):
        return self._log().count("Reread exports complete")

    def _log(self):
        try:
            return (self.folder / "log" / "ganesha.log").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def _initialise(self, options):
        store = pathlib.Path(options["path"] or self.folder / "export")
        for place in (store, self.folder / "recovery"):
            place.mkdir(parents=True, exist_ok=True)
        address = options["address"] or ports.free_address(PORTMAPPER_PORT if options["pmap"] else 0)
        first = ports.free_port(address, 2)
        made = {"address": address, "nfs_port": first, "mount_port": first + 1, "store": str(store)}
        self._write_conf({**options, **made})
        return made

    def _write_conf(self, settings):
        plugins = [one.parent for one in pathlib.Path("/usr/lib").glob("*/ganesha/libfsalvfs.so")]
        if not plugins:
            raise Failed("nfs needs Debian's package nfs-ganesha-vfs: scripts/setup installs it")
        self.conf.write_text(CONF.format(folder=self.folder, plugins=plugins[0], export=EXPORT, **settings), encoding="utf-8")

    def _start(self):
        ganesha, portmapper = (self.daemons[name] for name in self.DAEMONS)
        if not ganesha.is_alive():
            self._spawn("ganesha", "ganesha.nfsd", "-F", "-f", self.conf, "-L", self.folder / "log" / "ganesha.log",
                        "-p", self.folder / "run" / "ganesha.own.pid", "-N", "NIV_EVENT",
                        LD_PRELOAD=str(self.build_shim("norpcbind")))
        if self.settings["pmap"] and not portmapper.is_alive():
            self._spawn("portmapper", sys.executable, HERE / "portmapper.py", self.address, self.nfs_port, self.mount_port)
            self._wait_ready(lambda: ports.answers(self.address, PORTMAPPER_PORT), "portmapper")
        # The ports are open before the export is there.
        self._wait_ready(lambda: self.succeeds("nfs-ls", self.uri(), timeout=5))

    def _why(self, daemon):
        if daemon.name != "ganesha":
            return daemon.last_words()
        lines = [line for line in self._log().splitlines() if re.search("CRIT|FATAL|MAJ", line) and "DBUS" not in line]
        return "\n".join(lines[-3:]) or daemon.last_words()
