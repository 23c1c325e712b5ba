#!/usr/bin/env python3
"""Sources on an SSH server: host keys, identities, and a server that goes away."""

import getpass
import os
import signal
import socket
import subprocess
import time
import unittest

from program_case import MIB, Copy, ProgramCase, knock, wait_until

SSHD = "/usr/sbin/sshd"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class SshServer:
    """sshd for one user, without the system's configuration."""

    def __init__(self, folder, authorized, port=None):
        self.folder, self.port = folder, port or free_port()
        config = folder / "sshd_config"
        config.write_text(f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\n"
                          f"AuthorizedKeysFile {authorized}\nStrictModes no\nPasswordAuthentication no\n"
                          "KbdInteractiveAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n")
        if os.geteuid() == 0:  # whose sshd wants this empty folder, which the package makes when the system starts
            os.makedirs("/run/sshd", exist_ok=True)
        with open(folder / "log", "ab") as log:
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=log, start_new_session=True)
        wait_until("sshd listens", self.listens)

    def listens(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def serving(self):
        pairs = [tuple(map(int, line.split())) for line in
                 subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout.splitlines()[1:]]
        found, grown = {self.process.pid}, True
        while grown:
            more = {pid for pid, parent in pairs if parent in found} - found
            found, grown = found | more, bool(more)
        return found

    def signal_all(self, number):
        for pid in self.serving:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        self.signal_all(signal.SIGKILL)
        self.process.wait()


class Ssh(ProgramCase):
    def setUp(self):
        super().setUp()
        self.assertTrue(os.path.exists(SSHD), "the package openssh-server is missing; scripts/setup installs it")
        self.raw = self.make_raw(self.images / "disk.raw")
        self.target = self.folder / "copy.raw"
        self.server_folder = self.folder / "server"
        self.server_folder.mkdir()
        self.key(self.server_folder / "host_key")
        self.identity = self.key(self.folder / "identity")
        self.authorized = self.server_folder / "authorized_keys"
        self.authorized.write_text((self.folder / "identity.pub").read_text())
        self.home = self.folder / "home"
        (self.home / ".ssh").mkdir(parents=True)
        self.env.update(HOME=str(self.home))
        self.env.pop("SSH_AUTH_SOCK", None)
        self.server = self.serve()
        self.known = self.folder / "known_hosts"
        self.trust(self.known)

    def key(self, path):
        self.tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
        return path

    def trust(self, path, key=None):
        words = (key or self.server_folder / "host_key.pub").read_text().split()
        path.write_text(f"[127.0.0.1]:{self.server.port} {words[0]} {words[1]}\n")

    def serve(self, port=None):
        server = SshServer(self.server_folder, self.authorized, port)
        self.addCleanup(lambda: server.process.poll() is None and server.kill())
        return server

    def uri(self, name="disk.raw", user=f"{getpass.getuser()}@", **keys):
        words = {"known-hosts": self.known, "identity": self.identity, **{key.replace("_", "-"): value for key, value in keys.items()}}
        query = "&".join(f"{key}={str(value).replace('+', '%2B')}" for key, value in words.items() if value is not None)
        return f"ssh://{user}127.0.0.1:{self.server.port}{self.images}/{name}{'?' if query else ''}{query}"

    def copies(self, source, *words, **options):
        self.target.unlink(missing_ok=True)
        self.diskferry("copy", *words, source, self.target, **options)
        self.same_bytes(self.target, self.raw)

    def test_formats(self):
        self.copies(self.uri())
        self.copies(self.uri(user=""))
        for name, ending in (("qcow2", "qcow2"), ("vmdk", "vmdk")):
            self.tool("qemu-img", "convert", "-f", "raw", "-O", name, self.raw, self.images / f"disk.{ending}")
            self.copies(self.uri(f"disk.{ending}"))
        self.refused("copy", self.uri("nothing"), self.target.with_name("x"), says="nothing")
        self.refused("copy", "-n", self.raw, self.uri(), says="read")

    def test_host_keys(self):
        nobody = self.folder / "nobody"
        nobody.write_text("")
        self.refused("copy", self.uri(known_hosts=nobody), self.target, says=["host key", "known_hosts"])
        self.trust(self.known, self.folder / "identity.pub")  # another key under this name
        self.refused("copy", self.uri(), self.target, says="host key")
        self.copies(self.uri(host_key_check="false"))
        shown = self.tool("ssh-keygen", "-l", "-f", self.server_folder / "host_key.pub").split()[1]
        self.copies(self.uri(host_key=shown))
        other = self.tool("ssh-keygen", "-l", "-f", self.folder / "identity.pub").split()[1]
        self.refused("copy", self.uri(host_key=other), self.target.with_name("x"), says="does not match")
        self.refused("copy", self.uri(host_key="MD5:00"), self.target.with_name("x"), code=2, says="host-key")

    def test_where_ssh_has_them(self):
        """Without keys in the URI: ~/.ssh, as ssh itself."""
        plain = self.uri(known_hosts=None, identity=None)
        self.refused("copy", plain, self.target, says="host key")
        self.trust(self.home / ".ssh" / "known_hosts")
        self.refused("copy", plain, self.target, says=["authenticat", "identity="])
        for name in ("identity", "identity.pub"):
            (self.home / ".ssh" / name.replace("identity", "id_ed25519")).write_bytes((self.folder / name).read_bytes())
        (self.home / ".ssh" / "id_ed25519").chmod(0o600)
        self.copies(plain)

    def test_the_agent(self):
        agent = self.folder / "agent"
        process = subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL)
        self.addCleanup(lambda: (process.kill(), process.wait()))
        wait_until("the agent listens", agent.exists)
        env = {"SSH_AUTH_SOCK": str(agent)}
        source = self.uri(identity=None, agent="true")
        self.refused("copy", source, self.target, says="authenticat", env=env)
        subprocess.run(["ssh-add", "-q", self.identity], env={**self.env, **env}, check=True)
        self.copies(source, env=env)
        # It is not asked unless that is said.
        self.refused("copy", self.uri(identity=None), self.target.with_name("x"), says="authenticat", env=env)
        self.refused("copy", source, self.target.with_name("x"), code=2, says="SSH_AUTH_SOCK")

    def test_a_stranger_is_refused(self):
        self.refused("copy", self.uri(identity=self.key(self.folder / "other")), self.target, says="authenticat")
        self.refused("copy", self.uri(identity=self.folder / "none"), self.target, says="none")
        self.server.kill()
        self.refused("copy", self.uri(), self.target, code=1, says="127.0.0.1")

    def copying(self, *words, rate="1M", until=MIB, **keys):
        copy = Copy("--rate", rate, "--request-size", "64K", *words, self.uri(**keys), str(self.target), env=self.env)
        self.addCleanup(lambda: copy.process.poll() is None and copy.kill())
        copy.wait_for_bytes(until)
        return copy

    def test_a_source_that_changes_is_noticed(self):
        copy = self.copying()
        with open(self.raw, "ab") as file:
            file.write(bytes(512))
        self.assertEqual(copy.wait(), 1)
        self.assertIn("was changed while it was copied", copy.errors)

    def test_a_server_that_comes_back(self):
        copy = self.copying()
        self.server.kill()
        done = copy.done_bytes
        knock(self.server.port)  # requests do fail meanwhile
        self.server = self.serve(self.server.port)
        copy.wait_for_bytes(done + MIB)
        self.assertEqual(copy.wait(), 0, copy.errors)
        self.same_bytes(self.target, self.raw)

    def test_a_server_that_hangs(self):
        copy = self.copying(stall_timeout=1)
        child = copy.child()
        serving = self.server
        serving.signal_all(signal.SIGSTOP)
        done = copy.done_bytes
        wait_until("a request was given up, and its child with it", lambda: copy.child() != child)
        serving.signal_all(signal.SIGCONT)
        copy.wait_for_bytes(done + MIB)
        self.assertEqual(copy.wait(), 0, copy.errors)
        self.same_bytes(self.target, self.raw)

    def test_a_server_that_hangs_for_good(self):
        copy = self.copying(stall_timeout=1, reconnect_timeout=2, connect_timeout=10)
        serving = self.server
        serving.signal_all(signal.SIGSTOP)
        self.addCleanup(serving.signal_all, signal.SIGCONT)
        begin = time.monotonic()
        self.assertEqual(copy.wait(), 1)
        self.assertLess(time.monotonic() - begin, 90)
        self.assertIn("127.0.0.1", copy.errors)
        self.assertNotIn("signal 9", copy.errors, "that was us")

    def test_a_server_that_is_away_after_an_idle_time(self):
        """Between two reads lies more than reconnect-timeout, which is no reason to end."""
        self.make_raw(self.raw, 192 << 10)
        copy = self.copying("--requests", "1", rate="8K", until=64 << 10, reconnect_timeout=6)
        done = copy.done_bytes
        self.server.kill()
        self.server = self.serve(self.server.port)
        copy.wait_for_bytes(done + (64 << 10))
        self.assertEqual(copy.wait(), 0, copy.errors)
        self.same_bytes(self.target, self.raw)

    def test_a_server_that_is_gone(self):
        keys = {"reconnect_timeout": 2, "stall_timeout": 2}
        copy = self.copying(**keys)
        self.server.kill()
        begin = time.monotonic()
        self.assertEqual(copy.wait(), 1)
        self.assertLess(time.monotonic() - begin, 60)
        port = self.server.port
        self.server = self.serve(port)
        self.diskferry("copy", "--resume", self.uri(**keys), self.target)
        self.same_bytes(self.target, self.raw)


if __name__ == "__main__":
    unittest.main()
