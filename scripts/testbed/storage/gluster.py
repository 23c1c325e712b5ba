"""A GlusterFS volume of one brick, `vol0`, on a loopback address of its own.

What tests must know: clients need `client_environment` or 10 s to end; a brick that is gone is ENOTCONN at once and is not
waited for; a brick that hangs is ENOTCONN after the volume's ping timeout (10 s here, 20 s seen).
"""

import os
import pathlib
import shutil

from processes import wait_until
from report import Failed
from storage import ports
from storage.server import Server

VOLUME = "vol0"
# Bricks are started with the host's name and no port: whatever glusterd.vol says, they look for glusterd here. Hence the
# address of one's own; the command line refuses 127.0.0.1 as a brick's host.
MANAGEMENT_PORT = 24007
BRICK_PORTS = 20
# Where a brick has its socket and log, whatever it is told.
HARD_WIRED = ("/var/run/gluster/", "/var/log/glusterfs/bricks/")

CONF = """\
volume management
    type mgmt/glusterd
    option working-directory {folder}/glusterd
    option run-directory {folder}/run
    option glusterd-sockfile {folder}/run/cli.sock
    option transport-type socket
    option transport.address-family inet
    option transport.socket.bind-address {address}
    option transport.socket.listen-port {port}
    option transport.socket.read-fail-log off
    option ping-timeout 0
    option event-threads 1
    option base-port {first}
    option max-port {last}
end-volume
"""


class Gluster(Server):
    """A volume in a folder. `uri(name)` names a file in it, and `file(name)` is where this machine finds it in the brick."""

    KIND = "gluster"
    DAEMONS = ("glusterd", "brick")
    PROGRAMS = {"glusterd": "glusterfs-server", "gluster": "glusterfs-cli", "gcc": "gcc"}
    OPTIONS = {"address": ("", "IP address of this host to serve on; '' for a loopback one"),
               "brick": ("", "folder for the brick instead of the server's own; the brick is the folder `b` in it"),
               "small": (0, "bytes of a tmpfs for the brick; 0 for none")}
    NEEDS_ROOT = True  # trusted.* attributes
    volume = VOLUME
    port = MANAGEMENT_PORT

    address = property(lambda self: self.settings["address"])

    @property
    def brick(self):
        return pathlib.Path(self.settings["store"]) / "b"

    def file(self, name):
        return self.brick / name

    def uri(self, name=""):
        return f"gluster://{self.address}/{VOLUME}" + (f"/{name}" if name else "")

    def client_environment(self):
        """For programs that use libgfapi: without it each takes 10 s to end."""
        return self.environment(LD_PRELOAD=str(self.build_shim("nofini")))

    def variables(self):
        return {"GLUSTER_URI": self.uri(), "GLUSTER_ADDRESS": self.address, "GLUSTER_PORT": MANAGEMENT_PORT,
                "GLUSTER_VOLUME": VOLUME, "GLUSTER_BRICK": self.brick, "GLUSTER_PRELOAD": self.build_shim("nofini")}

    def gluster(self, *words, timeout=120):
        """The command line, as the administrator."""
        return self.run("gluster", f"--glusterd-sock={self.folder}/run/cli.sock", f"--log-file={self.folder}/log/cli.log",
                        "--mode=script", *words, timeout=timeout)

    def set_option(self, name, value):
        """An option of the volume, like auth.allow; the brick hears of it a moment later."""
        self.gluster("volume", "set", VOLUME, name, value)

    def _initialise(self, options):
        address = options["address"] or ports.free_address(MANAGEMENT_PORT)
        first = ports.free_port(address, BRICK_PORTS)
        store = pathlib.Path(options["brick"] or self.folder / "brick")
        if (store / "b").exists():
            raise Failed(f"{store}/b is there already, and destroy would remove it")
        for place in (self.folder / "glusterd", store):
            place.mkdir(parents=True, exist_ok=True)
        (self.folder / "glusterd.vol").write_text(
            CONF.format(folder=self.folder, address=address, port=MANAGEMENT_PORT, first=first, last=first + BRICK_PORTS - 1),
            encoding="utf-8")
        return {"address": address, "store": str(store), "has_volume": False, "was_started": False, "outside": []}

    def _start(self):
        if not self.daemons["glusterd"].is_alive():
            socket = self.folder / "run" / "cli.sock"
            socket.unlink(missing_ok=True)
            if not self._find_bricks():
                # From before a crash; with one, glusterd takes the brick for running.
                for stale in (self.folder / "run" / "vols" / VOLUME).glob("*.pid"):
                    stale.unlink()
            self._spawn("glusterd", "glusterd", "-N", "-f", self.folder / "glusterd.vol", "-l",
                        self.folder / "log" / "glusterd.log", "-p", self.folder / "run" / "glusterd.own.pid",
                        LD_PRELOAD=str(self.build_shim("nogsyncd")))
            # A command that comes too early tries again only after 3 s.
            self._wait_ready(lambda: ports.answers_on_socket(socket) and ports.answers(self.address, MANAGEMENT_PORT), "glusterd")
        if not self.settings["has_volume"]:
            self._wait_ready(self._make_volume, "glusterd")
            self.set_option("network.ping-timeout", 10)
            self._save(has_volume=True)
        self._start_brick()
        self._wait_ready(self._is_online)

    def _make_volume(self):
        """False while glusterd is not ready for it yet."""
        try:
            if VOLUME in self.gluster("volume", "list").split():
                return True
            self.gluster("volume", "create", VOLUME, f"{self.address}:{self.brick}", "force")
        except Failed:
            return False
        return True

    def _start_brick(self):
        """glusterd starts the brick of a started volume by itself; "force" makes it do so when it does not."""
        if not self.settings["was_started"]:
            self.gluster("volume", "start", VOLUME)
            self._save(was_started=True)
        try:
            wait_until(self._adopt_brick, "the brick", 3)
        except Failed:
            self.gluster("volume", "start", VOLUME, "force")
            wait_until(self._adopt_brick, f"{self}: the brick's start", 20)

    def _adopt_brick(self):
        """The brick detaches itself from glusterd; we record it when we find it, and what it has outside the folder."""
        found = [(pid, argv) for pid, argv in self._find_bricks() if _leads_session(pid)]
        if not found:  # the process that glusterd started, which is about to make room for the brick
            return False
        pid, argv = found[0]
        self.daemons["brick"].adopt(pid)
        outside = [argv[argv.index(option) + 1] for option in ("-S", "-l") if option in argv]
        self._save(outside=[one for one in outside if one.startswith(HARD_WIRED)])
        return True

    def _find_bricks(self):
        """[(pid, arguments)] of every process of our brick; nobody else's has its folder."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                argv = os.fsdecode((entry / "cmdline").read_bytes()).split("\0") if entry.name.isdigit() else []
            except OSError:
                continue
            if "--brick-name" in argv and argv[argv.index("--brick-name") + 1] == str(self.brick):
                found.append((int(entry.name), argv))
        return found

    def _is_online(self):
        try:
            return "<status>1</status>" in self.gluster("--xml", "volume", "status", VOLUME)
        except Failed:  # another transaction is in progress
            return False

    def _stop(self):
        """The volume remains a started one for glusterd, and the next start brings the brick back."""
        self.daemons["glusterd"].stop(5)
        wait_until(self._stop_bricks, f"the end of {self}'s brick", 20)

    def _stop_bricks(self):
        """Also what glusterd was just starting when it was ended."""
        for pid, _ in self._find_bricks():
            self.daemons["brick"].adopt(pid)
            self.daemons["brick"].stop(5)
        return not self._find_bricks()

    def _remove_outside(self):
        for file in self.settings["outside"]:
            pathlib.Path(file).unlink(missing_ok=True)
        shutil.rmtree(self.brick, ignore_errors=True)


def _leads_session(pid):
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False
