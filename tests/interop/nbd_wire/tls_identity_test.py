"""Who a client of TLS says it is, and whether it proved that."""

import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import unittest

from certificates import Authority
from server import main, Server, FOLDER
from wire import ABORT, ACK, Closed, EXPORT_NAME, GO, INFO, LIST, STARTTLS, TLS_REQD, go

KEY = "00112233445566778899aabbccddeeff"
WRONG_KEY = "ff" + KEY[2:]


class ByOpenssl:
    """A socket whose bytes go through `openssl s_client`, which can do more wrong than the ssl module can."""

    def __init__(self, plain, *arguments):
        door = socket.create_server(("127.0.0.1", 0))
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "openssl", "s_client", "-quiet", "-connect",
             f"127.0.0.1:{door.getsockname()[1]}", *arguments],
            bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        door.settimeout(20)
        self.between, _ = door.accept()
        door.close()
        self.plain = plain
        for one, other in ((self.between, plain), (plain, self.between)):
            threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    @staticmethod
    def carry(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def sendall(self, data):
        self.process.stdin.write(data)

    def recv(self, count):
        return self.process.stdout.read(count)

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.between.close()
        self.plain.close()


class Identity(unittest.TestCase):
    def setUp(self):
        self.authority = Authority(tempfile.mkdtemp(dir=FOLDER))
        with open(self.authority.path("keys"), "w") as keys:
            keys.write(f"alice:{KEY}\nbob:{KEY[::-1]}\n")

    def serve(self, *arguments, certificates=True):
        arguments += ("--tls-certificates", self.authority.folder) if certificates else ()
        server = Server("--tls", "require", "--verbose", *arguments)
        self.addCleanup(server.stop)
        return server

    def is_let_in(self, server, wrap):
        """wrap() makes TLS of a client's socket. In means that a whole read is served."""
        c = server.client()
        try:
            self.assertEqual(c.result(STARTTLS), ACK)
            c.s = wrap(c.s)
            return c.result(GO, go("disk")) == ACK and c.read(0, 4) == (0, b"\0\1\2\3")
        except (Closed, ConnectionError, ssl.SSLError):
            return False
        finally:
            c.close()

    def by_key(self, server, user, key, *more):
        return self.is_let_in(server, lambda s: ByOpenssl(s, "-psk_identity", user, "-psk", key, *more))

    def by_certificate(self, server, name):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.authority.path("ca-cert.pem"))
        if name:
            context.load_cert_chain(self.authority.path(name + "-cert.pem"), self.authority.path(name + "-key.pem"))
        return self.is_let_in(server, context.wrap_socket)

    def test_keys_prove_who_has_them(self):
        server = self.serve("--tls-psk", self.authority.path("keys"), certificates=False)
        for version in (("-tls1_3",), ("-tls1_2", "-cipher", "PSK")):
            self.assertTrue(self.by_key(server, "alice", KEY, *version))
            self.assertFalse(self.by_key(server, "alice", WRONG_KEY, *version))
            self.assertFalse(self.by_key(server, "bob", KEY, *version))
            self.assertFalse(self.by_key(server, "mallory", KEY, *version))
            self.assertFalse(self.by_key(server, "", KEY, *version))
        self.assertNotIn(KEY, server.errors())

    def test_a_name_is_no_proof_where_the_certificate_carries_the_handshake(self):
        # With a cipher suite of another hash the server passes over the key that is offered, and the binder with it.
        evade = ("-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384")
        server = self.serve("--tls-psk", self.authority.path("keys"), "--allow", "alice")
        self.assertTrue(self.by_key(server, "alice", KEY, "-tls1_3"))
        self.assertFalse(self.by_key(server, "alice", WRONG_KEY, "-tls1_3"))
        self.assertFalse(self.by_key(server, "alice", WRONG_KEY, *evade))
        self.assertFalse(self.by_key(server, "alice", KEY, *evade))
        self.assertFalse(self.by_key(server, "bob", KEY[::-1], "-tls1_3"))
        self.assertTrue(self.by_key(server, "alice", KEY, "-tls1_2", "-cipher", "PSK"))
        self.assertFalse(self.by_key(server, "alice", WRONG_KEY, "-tls1_2"))

    def test_a_certificate_does_not_lend_another_ones_name(self):
        self.authority.sign("mallory", "mallory")
        evade = ("-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384", "-cert", self.authority.path("mallory-cert.pem"),
                 "-key", self.authority.path("mallory-key.pem"))
        server = self.serve("--tls-psk", self.authority.path("keys"), "--tls-verify-peer", "--allow-for", "disk=alice",
                            "--allow-for", "other=mallory")
        self.assertFalse(self.by_key(server, "alice", WRONG_KEY, *evade))
        self.assertTrue(self.by_key(server, "alice", KEY, "-tls1_3"))

    def test_revoked_certificates(self):
        self.authority.sign("good", "good")
        self.authority.sign("bad", "bad")
        self.authority.revoke("bad")
        server = self.serve("--tls-verify-peer")
        self.assertTrue(self.by_certificate(server, "good"))
        self.assertFalse(self.by_certificate(server, "bad"))
        self.assertFalse(self.by_certificate(server, None))
        self.assertIn("revoked", server.errors())

    def test_another_authority_signs_for_nobody_here(self):
        server = self.serve("--tls-verify-peer")
        self.authority.sign("good", "good")
        self.assertTrue(self.by_certificate(server, "good"))
        other = Authority(tempfile.mkdtemp(dir=FOLDER))
        other.sign("good", "good")
        stranger = ("-cert", other.path("good-cert.pem"), "-key", other.path("good-key.pem"))
        self.assertFalse(self.is_let_in(server, lambda s: ByOpenssl(s, *stranger)))

    def test_nothing_but_tls_where_it_is_required(self):
        server = self.serve()
        c = server.client()
        for number in [0, *range(2, 12), 4711]:
            if number not in (EXPORT_NAME, ABORT, STARTTLS):
                self.assertEqual(c.ask(number, go("disk") if number in (INFO, GO) else b"")[-1][0], TLS_REQD, number)
        self.assertEqual(len(c.ask(LIST)), 1)  # no name slips out
        self.assertEqual(c.result(ABORT), ACK)
        c.close()
        c = server.client()
        c.option(EXPORT_NAME, b"disk")
        self.assertTrue(c.is_closed())
        c.close()
        c = server.client()
        c.send(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, 512))  # a request instead of an option
        self.assertTrue(c.is_closed())
        c.close()


if __name__ == "__main__":
    main()
