"""What selftest.py tries of the servers of files only: their clients, their ways of refusing and of being full."""

import subprocess

from processes import LineReader, wait_until
from report import say
from storage.gluster import Gluster
from storage.nfs import Nfs
from storage.selftest_common import (SMALL_BYTES, create_by_qemu, expect, expect_refused, expect_waiting, expect_written,
                                     write_by_qemu)


class OfNfs:
    """QEMU as a client needs the portmapper; libnfs's own tools do not."""

    name = "nfs"

    @staticmethod
    def server(folder):
        return Nfs(folder, pmap=True)

    @staticmethod
    def prepare(server):
        create_by_qemu(server.qemu_uri("disk"), server.environment())

    @staticmethod
    def target(server):
        return server.qemu_uri("disk")

    @staticmethod
    def client_environment(server):
        return server.environment()

    @staticmethod
    def outside(_):
        return []

    def try_own(self, server):
        self._try_versions(server)
        self._try_access(server)
        self._try_full(server.folder.with_name("small"))

    @staticmethod
    def _try_versions(server):
        server.run("nfs-cp", server.conf, server.uri("copy"))
        expect(server.file("copy").read_bytes() == server.conf.read_bytes(), "what was written is not in the file")
        for version in (3, 4):
            back = server.folder / f"back{version}"
            server.run("nfs-cp", server.uri("copy", version), back)
            expect(back.read_bytes() == server.conf.read_bytes(), f"v{version} reads something else")
        say("nfs: v3 and v4 read what was written")

    @staticmethod
    def _try_access(server):
        server.file("secret").write_text("for root", encoding="ascii")
        server.file("secret").chmod(0o600)
        server.run("nfs-cat", server.uri("secret"))
        expect_refused(lambda: server.run("nfs-cat", server.uri("secret") + "&uid=65534&gid=65534"), "ACCESS denied",
                       "a file is read by somebody else")
        server.set_access("RO")
        expect_refused(lambda: server.run("nfs-cp", server.conf, server.uri("more")), "NFS3ERR_ROFS",
                       "a read-only export is written")
        server.set_access("RW")
        server.run("nfs-cp", server.conf, server.uri("more"))
        server.set_export(squash="All_Squash")
        expect_refused(lambda: server.run("nfs-cat", server.uri("secret")), "ACCESS denied", "nobody is squashed")
        say("nfs: strangers and writers to a read-only export are refused")

    @staticmethod
    def _try_full(folder):
        with Nfs(folder, small=SMALL_BYTES, pmap=True) as small:
            create_by_qemu(small.qemu_uri("disk"), small.environment())
            expect_refused(lambda: write_by_qemu(small.qemu_uri("disk"), small.environment()), "NFS3ERR_NOSPC",
                           "a full disk writes")
        say("nfs: full is NFS3ERR_NOSPC")


class OfGluster:
    """Clients are told apart by their addresses only."""

    name = "gluster"

    @staticmethod
    def server(folder):
        return Gluster(folder)

    @staticmethod
    def prepare(server):
        create_by_qemu(server.uri("disk"), server.client_environment())

    @staticmethod
    def target(server):
        return server.uri("disk")

    @staticmethod
    def client_environment(server):
        return server.client_environment()

    @staticmethod
    def outside(server):
        return server.settings["outside"]

    def try_own(self, server):
        self._try_access(server)
        self._try_full(server.folder.with_name("small"))

    @staticmethod
    def _try_access(server):
        """libgfapi tells a refused client nothing: glfs_init never returns, and the reason is in the log."""
        client = server.client_environment()
        write_by_qemu(server.uri("disk"), client)
        expect_written(server.file("disk"))
        server.set_option("auth.reject", "127.*")
        with subprocess.Popen(["qemu-io", "-f", "raw", "-c", "write 0 512", server.uri("disk")], env=client, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as stranger:
            lines = LineReader(stranger.stdout)
            try:
                wait_until(lambda: any("Authentication failed" in line for line in lines.texts()), "a stranger being refused")
                expect_waiting(stranger, "a stranger")
                expect(not any("wrote" in line for line in lines.texts()), "a stranger writes")
            finally:
                stranger.kill()
        server.gluster("volume", "reset", server.volume, "auth.reject")
        write_by_qemu(server.uri("disk"), client)
        say("gluster: a stranger is refused")

    @staticmethod
    def _try_full(folder):
        with Gluster(folder, small=SMALL_BYTES) as small:
            client = small.client_environment()
            create_by_qemu(small.uri("disk"), client)
            expect_refused(lambda: write_by_qemu(small.uri("disk"), client), "No space left on device", "a full disk writes")
        say("gluster: full is ENOSPC")
