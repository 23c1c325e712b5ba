"""The change to TLS, and who tries to be heard before it."""

import os
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import unittest

from server import main, Server, FOLDER
from wire import (
    ACK, EINVAL, GO, INVALID, LIST, MIB, OPT_MAGIC, READ, SET_META, STARTTLS, STATUS, STRUCTURED, WRITE, go, meta)


class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(dir=FOLDER)
        key, certificate = (os.path.join(cls.folder, n) for n in ("server-key.pem", "server-cert.pem"))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
            check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        shutil.copy(certificate, os.path.join(cls.folder, "ca-cert.pem"))
        cls.server = Server("--tls", "on", "--tls-certificates", cls.folder)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def upgrade(self, c):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        c.s = context.wrap_socket(c.s)

    def test_what_was_sent_before_tls_counts_for_nothing(self):
        injected = struct.pack(">QII", OPT_MAGIC, STRUCTURED, 0)
        injected += struct.pack(">QII", OPT_MAGIC, SET_META, len(meta("disk", ["base:allocation"])))
        injected += meta("disk", ["base:allocation"])
        c = self.server.client()
        self.assertEqual(c.result(STRUCTURED), ACK)
        self.assertEqual(c.select("disk", ["base:allocation"])[-1][0], ACK)
        c.send(struct.pack(">QII", OPT_MAGIC, STARTTLS, 0) + injected)
        self.assertEqual(c.reply(), (STARTTLS, ACK, b""))
        self.upgrade(c)
        self.assertEqual(c.result(LIST), ACK)  # the first answer is to the first option after TLS
        self.assertEqual(c.result(STARTTLS), INVALID)
        self.assertEqual(c.ask(GO, go("disk"))[-1][0], ACK)
        self.assertEqual(c.read(0, 4), (0, b"\0\1\2\3"))  # simple replies again
        self.assertEqual(c.do(STATUS, 0, 512), EINVAL)
        c.close()

    def test_a_read_over_tls_and_a_client_that_just_goes(self):
        for style in ("simple", "structured", "extended"):
            c = self.server.client()
            self.assertEqual(c.result(STARTTLS), ACK)
            self.upgrade(c)
            c.go(style=style)
            self.assertEqual(c.read(0, MIB)[1][:256], bytes(range(256)))
            self.assertEqual(c.do(WRITE, MIB, 3 * MIB, payload=b"t" * 3 * MIB), 0)
            c.request(READ, 0, 8 * MIB)
            c.s.close()

    def test_plain_text_where_tls_belongs(self):
        for junk in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 100, b"\0" * 70000):
            c = self.server.client()
            self.assertEqual(c.result(STARTTLS), ACK)
            try:
                c.send(junk)
                c.s.shutdown(socket.SHUT_WR)
                while c.s.recv(4096):
                    pass
            except ConnectionError:
                pass
            c.close()


if __name__ == "__main__":
    main()
