"""What selftest.py tries of the servers of block devices only: their clients, their ways of refusing and of being full."""

import errno
import os
import pathlib
import subprocess
import sys

from processes import run, wait_until
from report import say
from storage.ceph import Ceph
from storage.iscsi import Iscsi
from storage.selftest_common import (DISK_BYTES, SMALL_BYTES, expect, expect_ends_well, expect_refused, expect_waiting,
                                     expect_written, write_by_qemu)

HERE = pathlib.Path(__file__).resolve().parent
NO_LUN = "LOGICAL_UNIT_NOT_SUPPORTED"


class OfCeph:
    """A manager is there for the quotas only."""

    name = "ceph"

    @staticmethod
    def server(folder):
        return Ceph(folder, mgr=True)

    @staticmethod
    def prepare(server):
        server.create_image("disk", DISK_BYTES)
        server.add_user("mover")
        server.add_user("reader", read_only=True)

    @staticmethod
    def target(server):
        return server.qemu_uri("disk", user="mover")

    @staticmethod
    def client_environment(server):
        return server.environment()

    @staticmethod
    def outside(_):
        return []

    def try_own(self, server):
        self._try_users(server)
        self._try_fencing(server)
        self._try_full(server)
        self._try_quota(server)

    @staticmethod
    def _try_users(server):
        server.create_pool("other")
        server.rbd("-n", "client.mover", "ls", "rbd")
        expect_refused(lambda: server.rbd("-n", "client.mover", "create", "--size", "1M", "other/disk"), "(1) Operation not",
                       "a user writes to a pool that is not his")
        server.rbd("-n", "client.reader", "export", "rbd/disk", server.folder / "read")
        expect_refused(lambda: server.rbd("-n", "client.reader", "resize", "--size", "64M", "rbd/disk"), "(1) Operation not",
                       "a user who may only read changes an image")
        forged = server.folder / "forged.keyring"
        server.run("ceph-authtool", "-C", forged, "--gen-key", "-n", "client.mover")
        expect_refused(lambda: server.rbd("-n", "client.mover", "-k", forged, "ls", "rbd"), "(13) Permission denied",
                       "a wrong key is let in")
        server.remove_user("reader")
        expect_refused(lambda: server.rbd("-n", "client.reader", "ls", "rbd"), "(13) Permission denied",
                       "a removed user is let in")
        say("ceph: users have their pool, strangers are refused")

    @staticmethod
    def _try_fencing(server):
        with subprocess.Popen(["qemu-io", "-f", "raw", server.qemu_uri("disk", user="mover")], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=server.environment(), text=True) as writer:
            wait_until(lambda: server.clients("disk"), "an open image having a client")
            expect(len(server.blocklist("disk")) == 1, "there is more than one client")
            said, _ = writer.communicate("write 0 512\n", timeout=30)
        expect("Cannot send after transport endpoint shutdown" in said, f"a fenced client writes: {said}")
        server.clear_blocklist()
        say("ceph: a fenced client does not write")

    @staticmethod
    def _errno_of_write(server, name):
        return int(server.run(sys.executable, HERE / "librados.py", server.conf, "mover", "rbd", name))

    def _try_full(self, server):
        put = ["rados", "-c", server.conf, "-p", "rbd", "put", "waiting", server.conf]
        server.run(*put)
        server.set_full_ratio(0.004)  # of 10 GiB is 41 MiB, and BlueStore alone uses 290
        server.wait_full()
        expect(self._errno_of_write(server, "full") == errno.ENOSPC, "a full cluster writes")
        with subprocess.Popen(put, env=server.environment(), stdin=subprocess.DEVNULL) as writer:
            try:
                expect_waiting(writer, "a plain client of a full cluster")
            finally:
                server.set_full_ratio(0.95)
            expect_ends_well(writer, "a client that waited for space")
        server.wait_full(False)
        expect(self._errno_of_write(server, "full") == 0, "a cluster that is not full any more does not write")
        say("ceph: full is ENOSPC, or waiting, until there is space")

    def _try_quota(self, server):
        server.set_quota(1 << 20)
        wait_until(server.is_quota_reached, "the quota")
        expect(self._errno_of_write(server, "quota") == errno.EDQUOT, "a quota is not kept")
        server.set_quota(0)
        wait_until(lambda: not server.is_quota_reached(), "the quota's end")
        expect(self._errno_of_write(server, "quota") == 0, "a quota outlives itself")
        say("ceph: a quota is EDQUOT")


class OfIscsi:
    """CHAP both ways."""

    name = "iscsi"
    secrets = {"user": "mover", "password": "secretsecret12", "target_user": "storage", "target_password": "othersecret34"}

    def server(self, folder):
        return Iscsi(folder, size=DISK_BYTES, **self.secrets)

    @staticmethod
    def prepare(server):
        mode = server.password_file.stat().st_mode & 0o777
        expect(mode == 0o600 and server.password_file.read_text(encoding="ascii") == server.password, "the password's file")
        expect(server.password not in server.uri() and server.target_password not in server.uri(), "a password in a URI")

    @staticmethod
    def target(server):
        return server.uri()

    @staticmethod
    def client_environment(server):
        return server.client_environment()

    @staticmethod
    def outside(_):
        return []

    def try_own(self, server):
        self._try_secrets(server)
        self._try_luns(server)
        self._try_portal(server)
        self._try_full(server.folder.with_name("small"))

    @staticmethod
    def _try_secrets(server):
        right = server.client_environment()

        def inquire(**changed):
            return run("iscsi-inq", server.uri(), env={**right, **changed})

        inquire()
        for name, what in (("PASSWORD", "a wrong password"), ("USERNAME", "a stranger")):
            expect_refused(lambda name=name: inquire(**{f"LIBISCSI_CHAP_{name}": "wrongwrongwrong"}), "Authentication failure",
                           f"{what} is let in")
        expect_refused(lambda: run("iscsi-inq", server.uri(), env=server.environment()), "Authentication failure",
                       "nobody is let in")
        expect_refused(lambda: inquire(LIBISCSI_CHAP_TARGET_PASSWORD="wrongwrongwrong"), "Invalid CHAP_R",
                       "a target that does not know its password is believed")
        say("iscsi: wrong passwords are refused, both ways")

    @staticmethod
    def _try_luns(server):
        client = server.client_environment()
        expect_refused(lambda: run("iscsi-readcapacity16", server.uri(2), env=client), NO_LUN, "a LUN that is not there answers")
        file = server.add_lun(2, DISK_BYTES, thin=False, block_size=4096)
        server.set_lun(2, readonly=True)
        server.restart()
        expect("LOGICAL BLOCK LENGTH IN BYTES:4096" in run("iscsi-readcapacity16", server.uri(2), env=client),
               "a LUN's block size is lost")
        expect_refused(lambda: write_by_qemu(server.uri(2), client), "write protected", "a read-only LUN is written")
        server.set_lun(2, readonly=False)
        write_by_qemu(server.uri(2), client)
        expect_written(file)
        server.set_lun(2, online=False)
        expect_refused(lambda: write_by_qemu(server.uri(2), client), "", "a LUN that is offline is written")
        server.set_lun(2, online=True)
        write_by_qemu(server.uri(2), client)
        server.del_lun(2)
        expect_refused(lambda: write_by_qemu(server.uri(2), client), "", "a LUN that was taken away answers")
        say("iscsi: LUNs come, change and go, and outlive a restart")

    @staticmethod
    def _try_portal(server):  # pylint: disable=protected-access
        """tgtd itself would say nothing."""
        server.stop()
        with Iscsi(server.folder.with_name("thief"), size=0) as thief:
            own = server.settings["port"]
            server._save(port=thief.settings["port"])
            expect(not server._start_on_portal(), "somebody else's portal is taken for our own")
            server._save(port=own)
        server.start()
        say("iscsi: a portal that cannot be bound is noticed")

    @staticmethod
    def _try_full(folder):
        with Iscsi(folder, size=DISK_BYTES, small=SMALL_BYTES) as small:
            # MEDIUM ERROR, UNRECOVERED READ ERROR: tgtd has nothing better, and its log says "Success" of a write cut short.
            expect_refused(lambda: write_by_qemu(small.uri(), small.client_environment()), "(0x1100)", "a full disk writes")
            expect(os.statvfs(small.images).f_bavail == 0, "a write fails on a disk that is not full")
        say("iscsi: full is a medium error")
