"""What the storage servers of the testbed have in common: a folder that holds everything, settings that are chosen once, and
programs that are started, killed, hung, continued and ended. Ceph, Iscsi, Nfs and Gluster are built on it.

A server is up as long as its programs run, whoever started them: `Nfs(folder)` in one program and `Nfs(folder)` in another
mean the same server. As a context manager it is up inside and destroyed after, even when the test that uses it is killed.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

from processes import run, wait_until
from report import Failed
from storage.daemon import Daemon

HERE = pathlib.Path(__file__).resolve().parent
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The longest UNIX socket in a folder is FOLDER/run/osd.0.asok; sun_path of unix(7) has 108 bytes. The rest is for the names
# that programs give to sockets of their own.
FOLDER_LENGTH_MAX = 80
START_SECONDS = 60


class Server:
    """The parts that a kind of server fills in are the class attributes, _initialise, _start, _stop and `variables`.

    Options are given to the first start and kept in FOLDER/settings.json. The option `small` puts the server's store on a
    tmpfs of so many bytes: the way to a full disk without filling one.
    """

    KIND = ""  # also the name of the front end, scripts/testbed/KIND
    DAEMONS = ()  # in the order in which they start
    PROGRAMS = {}  # program: the Debian package that has it
    OPTIONS = {}  # name: (default, what it is)
    NEEDS_ROOT = False
    # What of the caller's environment would lead programs to other servers.
    HIDDEN_VARIABLES = ("CEPH_ARGS", "CEPH_CONF", "CEPH_KEYRING", "LD_PRELOAD", "LIBISCSI_CHAP_USERNAME",
                        "LIBISCSI_CHAP_PASSWORD", "LIBISCSI_CHAP_TARGET_USERNAME", "LIBISCSI_CHAP_TARGET_PASSWORD")

    def __init__(self, folder, **options):
        self.folder = pathlib.Path(folder).resolve()
        if len(os.fsencode(self.folder)) > FOLDER_LENGTH_MAX:
            raise Failed(f"{self.folder} is too long a name: a server's UNIX sockets need one of at most "
                         f"{FOLDER_LENGTH_MAX} bytes")
        if unknown := set(options) - set(self.OPTIONS):
            raise TypeError(f"{self.KIND} has no option {', '.join(sorted(unknown))}")
        self._mark = self.folder / "kind"  # says that everything in the folder is ours to remove
        self._settings_file = self.folder / "settings.json"
        self._options = options
        self._guard = None
        self.daemons = {name: Daemon(self.folder, name) for name in self.DAEMONS}

    def __str__(self):
        return f"{self.KIND} in {self.folder}"

    def __enter__(self):
        try:
            self._start_guard()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.destroy()
        self._end_guard()

    # Settings

    @property
    def settings(self):
        """Options and what was chosen at the first start (ports, addresses), by name. Read anew each time: another program may
        have changed them."""
        try:
            found = json.loads(self._settings_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Failed(f"{self} was never started") from None
        if found["kind"] != self.KIND:
            raise Failed(f"{self.folder} belongs to {found['kind']}")
        return found

    def _save(self, **changed):
        self._write_settings({**self.settings, **changed})

    def _write_settings(self, settings):
        """After a crash the old ones are there, or the new ones. Passwords may be among them."""
        draft = self._settings_file.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            json.dump(settings, out, indent=1)
        draft.replace(self._settings_file)

    def _check_options(self):
        settings = self.settings
        for name, value in self._options.items():
            if settings[name] != _plain(value):
                raise Failed(f"{self} was made with {name}={settings[name]}, not {value}; destroy it first")

    def is_initialised(self):
        return self._settings_file.exists()

    # Start and end

    def start(self):
        """Starts what does not run and returns when real I/O works; nothing happens when it is up."""
        self._check_machine()
        if not self.is_initialised():
            self._make_folder()
            options = {name: _plain(self._options.get(name, default)) for name, (default, _) in self.OPTIONS.items()}
            self._write_settings({"kind": self.KIND, **options, **self._initialise(options)})
        self._check_options()
        self._mount_small()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _make_folder(self):
        if self._is_ours():
            shutil.rmtree(self.folder)  # of a first start that was interrupted before any program ran
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise Failed(f"{self.folder} is neither empty nor a folder of {self.KIND}'s")
        for place in ("run", "log"):
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        self._mark.write_text(self.KIND, encoding="ascii")

    def _is_ours(self):
        return self._mark.exists() and self._mark.read_text(encoding="ascii") == self.KIND

    def stop(self):
        """Ends every program, hung or not; the data stay."""
        if self.is_initialised():
            self._stop()

    def restart(self):
        self.stop()
        self.start()

    def destroy(self):
        """Ends every program and removes the folder. Says nothing when there is nothing."""
        if self.is_initialised():
            self._stop()
            self._remove_outside()
            if self._is_mounted():
                run("umount", self.settings["store"])
        if self._is_ours():
            shutil.rmtree(self.folder)

    def kill9(self, *names):
        """Kills these programs, or all, as a crash would. Returns once they are gone."""
        for daemon in self._chosen(names):
            daemon.kill9()

    def hang(self, *names):
        """Stops these programs, or all, as a hanging server would: connections stay open and nobody answers."""
        for daemon in self._chosen(names):
            daemon.hang()

    def cont(self, *names):
        for daemon in self._chosen(names):
            daemon.cont()

    def is_alive(self, *names):
        """Whether these programs, or all that the server has, run."""
        return self.is_initialised() and all(daemon.is_alive() for daemon in self._chosen(names))

    def pids(self):
        """{name: pid} of what runs."""
        return {name: daemon.pid for name, daemon in self.daemons.items() if daemon.is_alive()}

    def _chosen(self, names):
        return [self.daemons[name] for name in names or self.daemon_names()]

    def daemon_names(self):
        """The programs that this server has with its options."""
        return self.DAEMONS

    # What a kind fills in

    def variables(self):
        """What the front end's `env` prints."""
        raise NotImplementedError

    def _initialise(self, options):
        """Writes configuration and chooses ports; returns settings to keep, `store` (a folder) among them. Runs again from
        the beginning if it was interrupted."""
        raise NotImplementedError

    def _start(self):
        raise NotImplementedError

    def _stop(self):
        for name in reversed(self.DAEMONS):
            self.daemons[name].stop()

    def _remove_outside(self):
        """Removes what programs of this server leave outside the folder."""

    # Programs

    def environment(self, **more):
        """The environment for the server's programs and for clients of it."""
        kept = {name: value for name, value in os.environ.items() if name not in self.HIDDEN_VARIABLES}
        return {**kept, "PATH": PATH, "LC_ALL": "C", **more}

    def run(self, *words, timeout=60):
        """Runs a command to its end and returns what it printed; raises Failed."""
        return run(*words, timeout=timeout, env=self.environment())

    def succeeds(self, *words, timeout=10):
        try:
            self.run(*words, timeout=timeout)
        except Failed:
            return False
        return True

    def _spawn(self, name, *words, **variables):
        self.daemons[name].start(*words, environment=self.environment(**variables))

    def _wait_ready(self, condition, *names, timeout=START_SECONDS):
        """Waits until the server works, or until one of these programs is gone, which is a failure with its last words."""
        def ready():
            for daemon in self._chosen(names):
                if not daemon.is_alive():
                    raise Failed(f"{self}: {daemon} ended: {self._why(daemon)}")
            return condition()
        wait_until(ready, f"{self} working", timeout)

    def _why(self, daemon):
        """The last words of a program that ended when it should not; a kind may look into its log."""
        return daemon.last_words()

    def build_shim(self, name):
        """Compiles NAME.c of this folder into the server's, once, and returns the library for LD_PRELOAD."""
        library = self.folder / f"{name}.so"
        if not library.exists():
            draft = library.with_suffix(".draft")
            self.run("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", draft, HERE / f"{name}.c")
            draft.replace(library)
        return library

    def _check_machine(self):
        if self.NEEDS_ROOT and os.geteuid() != 0:
            raise Failed(f"{self.KIND} needs root")
        missing = sorted({package for program, package in self.PROGRAMS.items() if shutil.which(program, path=PATH) is None})
        if missing:
            raise Failed(f"{self.KIND} needs Debian's packages {', '.join(missing)}: scripts/setup installs them")

    # The small store

    def _is_mounted(self):
        return self.settings.get("small", 0) > 0 and os.path.ismount(self.settings["store"])

    def _mount_small(self):
        """tmpfs keeps its data over stop and kill -9, and loses them in destroy."""
        if (size := self.settings.get("small", 0)) and not self._is_mounted():
            run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "diskferry-testbed", self.settings["store"])

    # The guard

    def _start_guard(self):
        """A process that destroys the server when this one ends without doing so: it reads a pipe that only we can write to."""
        front = HERE.parent / self.KIND
        words = ["sh", "-c", 'read -r done || exec "$@"', "guard", sys.executable, front, "destroy", self.folder]
        self._guard = subprocess.Popen([str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, start_new_session=True)

    def _end_guard(self):
        if self._guard is not None:
            self._guard.communicate(b"done\n", timeout=START_SECONDS)
            self._guard = None


def _plain(value):
    """An option as it is kept in JSON; paths are made absolute, for whoever reads them may be elsewhere."""
    return str(value.resolve()) if isinstance(value, pathlib.Path) else value
