#!/usr/bin/env python3
"""Sources on a web server: TLS, passwords, formats, and a server that goes away."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

from program_case import MIB, PROGRAM, Copy, ProgramCase, knock, landlock_version, wait_for_connections, wait_until


class WebServer:
    def __init__(self, folder, port=0, *words):
        self.process = subprocess.Popen([sys.executable, pathlib.Path(__file__).with_name("web_server.py"), folder, str(port), *words],
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Web(ProgramCase):
    def setUp(self):
        super().setUp()
        self.raw = self.make_raw(self.images / "disk.raw")
        self.target = self.folder / "copy.raw"

    def serve(self, *words, port=0):
        server = WebServer(self.images, port, *words)
        self.addCleanup(lambda: server.process.poll() is None and server.kill())
        return server

    def uri(self, server, name="disk.raw", keys="", scheme="http", user=""):
        return f"{scheme}://{user}127.0.0.1:{server.port}/{name}{keys}"

    def certificate(self, name, alternative):
        """A key with a certificate that it signed itself."""
        key, file = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        self.tool("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                  "-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}", "-keyout", key, "-out", file)
        both = self.folder / f"{name}-both.pem"
        both.write_text(key.read_text() + file.read_text())
        return file, both

    def copies(self, source, *words, reference=None):
        self.target.unlink(missing_ok=True)
        self.diskferry("copy", *words, source, self.target)
        self.same_bytes(self.target, reference or self.raw)

    def test_formats(self):
        server = self.serve()
        self.copies(self.uri(server))
        for name, ending, made_with in (("qcow2", "qcow2", None), ("vmdk", "vmdk", "subformat=streamOptimized"),
                                        ("vhdx", "vhdx", None), ("vpc", "vhd", "subformat=fixed,force_size=on")):
            with self.subTest(name):
                image = self.images / f"disk.{ending}"
                self.tool("qemu-img", "convert", "-f", "raw", "-O", name, *(["-o", made_with] if made_with else []), self.raw, image)
                self.copies(self.uri(server, image.name))
                self.copies(self.uri(server, image.name), "-f", name)
        self.diskferry("verify", "--strict", self.uri(server, "disk.vhdx"), self.raw)
        self.refused("copy", "-n", self.raw, self.uri(server), says="read")

    def test_an_image_on_a_server_opens_nothing_else(self):
        """Neither files of this host nor of the server, and no other server."""
        server = self.serve()
        (self.folder / "secret").write_bytes(b"s" * 1024)
        for extent in ("disk.raw", str(self.folder / "secret"), "/etc/passwd", self.uri(server)):
            (self.images / "disk.vmdk").write_text(
                f'# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
                f'RW 2 FLAT "{extent}" 0\n'.ljust(4096, "\n"))
            self.diskferry("copy", self.uri(server, "disk.vmdk"), self.target, code=3)
            self.assertFalse(self.target.exists())

    def test_tls(self):
        authority, both = self.certificate("server", "IP:127.0.0.1")
        other, other_both = self.certificate("other", "DNS:elsewhere")
        server = self.serve("--certificate", both)
        self.refused("copy", self.uri(server, scheme="https"), self.target, says=["certificate", "ca-file"])
        self.refused("copy", self.uri(server, scheme="https", keys=f"?ca-file={other}"), self.target, says="certificate")
        self.copies(self.uri(server, scheme="https", keys=f"?ca-file={authority}"))
        self.copies(self.uri(server, scheme="https", keys="?tls-verify-peer=false"))
        elsewhere = self.serve("--certificate", other_both)
        self.refused("copy", self.uri(elsewhere, scheme="https", keys=f"?ca-file={other}"), self.target, says="certificate")
        self.refused("copy", self.uri(server, scheme="https", keys=f"?ca-file={self.folder}/none"), self.target, says="none")

    def test_https_leads_to_http_where_the_kernel_knows_no_ports(self):
        authority, both = self.certificate("server", "IP:127.0.0.1")
        plain = self.serve()
        server = self.serve("--certificate", both, "--redirect", f"http://127.0.0.1:{plain.port}")
        is_prevented = landlock_version() >= 4
        self.diskferry("copy", self.uri(server, scheme="https", keys=f"?ca-file={authority}"), self.target, code=int(is_prevented))
        self.assertEqual(self.target.exists(), not is_prevented)

    def test_passwords_and_cookies(self):
        secret = self.folder / "password"
        secret.write_text("pass, word=1\n")
        server = self.serve("--password", "alice:pass, word=1")
        uri = self.uri(server, keys=f"?password-file={secret}", user="alice@")
        self.copies(uri)
        self.refused("copy", self.uri(server), self.target.with_name("x"), says="401")
        secret.write_text("wrong\n")
        self.refused("copy", uri, self.target.with_name("x"), says="401")
        text = self.refused("copy", self.uri(server, user="alice:pass@"), self.target.with_name("x"), code=2, says="password-file")
        self.assertNotIn("pass@", text)
        cookie = self.folder / "cookie"
        cookie.write_text("session=1, 2")
        authority, both = self.certificate("server", "IP:127.0.0.1")
        server = self.serve("--cookie", "session=1, 2", "--certificate", both)
        self.copies(self.uri(server, scheme="https", keys=f"?cookie-file={cookie}&ca-file={authority}"))
        self.refused("copy", self.uri(server, scheme="https", keys=f"?ca-file={authority}"), self.target.with_name("x"), says="403")
        self.refused("copy", self.uri(server, keys=f"?cookie-file={cookie}"), self.target.with_name("x"), code=2, says="https")

    def test_a_size_that_is_no_multiple_of_a_sector(self):
        """QEMU counts in sectors: the rest of the last one reads as zeros."""
        content = os.urandom(MIB + 100)
        (self.images / "odd.raw").write_bytes(content)
        self.diskferry("copy", self.uri(self.serve(), "odd.raw"), self.target)
        self.assertEqual(self.target.read_bytes(), content.ljust(MIB + 512, b"\0"))

    def test_a_source_that_changes_is_noticed(self):
        _, copy = self.copying()
        with open(self.raw, "ab") as file:
            file.write(bytes(512))
        self.assertEqual(copy.wait(), 1)
        self.assertIn("disk.raw: was changed", copy.errors)

    def test_a_source_that_has_changed_is_not_resumed(self):
        for offset in (0, 8 * MIB - 1):
            with self.subTest(offset):
                server, copy = self.copying(words=["--checkpoint", "512K"])
                copy.kill()
                with open(self.raw, "r+b") as file:
                    file.seek(offset)
                    was = file.read(1)[0]
                    file.seek(offset)
                    file.write(bytes([was ^ 1]))
                self.refused("copy", "--resume", self.uri(server), self.target, says="has changed")
                self.diskferry("copy", "--overwrite", self.uri(server), self.target)
                self.same_bytes(self.target, self.raw)
                self.target.unlink()

    def test_this_program_can_still_be_looked_at(self):
        """A child that changes its user in our memory takes that from us for a moment."""
        self.needs_root("only root changes the user")
        without = ["setpriv", "--bounding-set=-sys_ptrace"]  # whoever may look at all processes proves nothing
        server = self.serve()
        copy = Copy("--rate", "1M", "--request-size", "64K", self.uri(server), str(self.target), env=self.env, prefix=[*without, PROGRAM])
        self.addCleanup(lambda: copy.process.poll() is None and copy.kill())
        copy.wait_for_bytes(MIB)
        status = pathlib.Path(f"/proc/{copy.child()}/status").read_text()
        self.assertNotIn("Uid:\t0\t", status, "the child has changed its user")
        self.tool(*without, "cat", f"/proc/{copy.process.pid}/environ")
        copy.kill()

    def test_secrets_are_not_in_arguments(self):
        secret = self.folder / "password"
        secret.write_text("very-secret\n")
        server = self.serve("--password", "alice:very-secret")
        copy = Copy("--rate", "1M", "--request-size", "64K", self.uri(server, keys=f"?password-file={secret}", user="alice@"),
                    str(self.target), env=self.env)
        copy.wait_for_bytes(MIB)
        for name in ("cmdline", "environ"):
            for pid in (copy.process.pid, copy.child()):
                self.assertNotIn(b"very-secret", pathlib.Path(f"/proc/{pid}/{name}").read_bytes())
        copy.kill()

    def test_refusals_say_why(self):
        server = self.serve()
        self.refused("copy", self.uri(server, "nothing"), self.target, says=["404", "path"])
        server.kill()
        self.refused("copy", self.uri(server), self.target, code=1, says="127.0.0.1")
        self.refused("copy", self.uri(self.serve("--no-ranges")), self.target, says="range")
        self.refused("copy", self.uri(server, keys="?sslverify=off"), self.target, code=2, says="tls-verify-peer")
        self.refused("copy", self.uri(server, keys="?ca-file=x"), self.target, code=2, says="https")

    def copying(self, keys="", words=()):
        server = self.serve()
        copy = Copy("--rate", "1M", "--request-size", "64K", *words, self.uri(server, keys=keys), str(self.target), env=self.env)
        self.addCleanup(lambda: copy.process.poll() is None and copy.kill())
        copy.wait_for_bytes(MIB)
        return server, copy

    def test_a_server_that_comes_back(self):
        server, copy = self.copying()
        server.kill()
        done = copy.done_bytes
        knock(server.port)  # requests do fail meanwhile
        self.serve(port=server.port)
        copy.wait_for_bytes(done + MIB)
        self.assertEqual(copy.wait(), 0, copy.errors)
        self.same_bytes(self.target, self.raw)

    def test_a_server_that_hangs(self):
        server, copy = self.copying("?stall-timeout=1&reconnect-timeout=60")
        server.process.send_signal(signal.SIGSTOP)
        done = copy.done_bytes
        wait_for_connections(server.port)
        server.process.send_signal(signal.SIGCONT)
        copy.wait_for_bytes(done + MIB)
        self.assertEqual(copy.wait(), 0, copy.errors)
        self.same_bytes(self.target, self.raw)

    def test_a_server_that_hangs_for_good(self):
        keys = "?stall-timeout=1&reconnect-timeout=3&connect-timeout=10"
        server, copy = self.copying(keys)
        server.process.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        self.assertEqual(copy.wait(), 1)
        self.assertLess(time.monotonic() - begin, 60)
        self.assertIn("127.0.0.1", copy.errors)
        server.process.send_signal(signal.SIGCONT)
        self.diskferry("copy", "--resume", self.uri(server, keys=keys), self.target)
        self.same_bytes(self.target, self.raw)

    def test_a_server_that_is_gone(self):
        server, copy = self.copying("?reconnect-timeout=2&stall-timeout=2")
        server.kill()
        begin = time.monotonic()
        self.assertEqual(copy.wait(), 1)
        self.assertLess(time.monotonic() - begin, 60)
        self.assertIn("127.0.0.1", copy.errors)
        again = self.serve(port=server.port)
        self.diskferry("copy", "--resume", self.uri(again, keys="?reconnect-timeout=2&stall-timeout=2"), self.target)
        self.same_bytes(self.target, self.raw)

    def test_the_parser_is_killed_and_so_is_what_it_reads_through(self):
        self.tool("qemu-img", "convert", "-f", "raw", "-O", "vmdk", self.raw, self.images / "disk.vmdk")
        server = self.serve()
        copy = Copy("--rate", "1M", "--request-size", "64K", self.uri(server, "disk.vmdk"), str(self.target), env=self.env)
        copy.wait_for_bytes(MIB)
        names = (b"driver=raw", b"driver=vmdk")
        before = [copy.child(name) for name in names]
        os.kill(before[0], signal.SIGKILL)
        wait_until("both are others", lambda: not set(before) & {copy.child(name) for name in names})
        copy.wait_for_bytes(copy.done_bytes + MIB)
        self.assertEqual(copy.wait(), 0, copy.errors)
        self.same_bytes(self.target, self.raw)


if __name__ == "__main__":
    unittest.main()
