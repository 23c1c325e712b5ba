"""An authority of our own, for the tests of TLS: made by openssl, in the folder and under the names the server expects."""

import os
import subprocess


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


class Authority:
    """Its folder is what --tls-certificates takes."""

    def __init__(self, folder):
        self.folder = folder
        openssl("req", "-x509", *self.key("ca"), "-days", "2", "-subj", "/CN=Authority", "-out", self.path("ca-cert.pem"))
        self.sign("server", "localhost")

    def path(self, name):
        return os.path.join(self.folder, name)

    def key(self, name):
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", self.path(name + "-key.pem"))

    def sign(self, name, common_name):
        openssl("req", "-new", *self.key(name), "-subj", "/CN=" + common_name, "-out", self.path(name + ".csr"))
        openssl("x509", "-req", "-in", self.path(name + ".csr"), "-CA", self.path("ca-cert.pem"), "-CAkey",
                self.path("ca-key.pem"), "-CAcreateserial", "-days", "2", "-out", self.path(name + "-cert.pem"))

    def revoke(self, *names):
        """Writes the list that the server looks for."""
        settings = self.path("revocation.cnf")
        with open(settings, "w") as out:
            out.write("[ca]\ndefault_ca=us\n[us]\ndefault_md=sha256\ndefault_crl_days=2\n"
                      f"database={self.path('index')}\ncertificate={self.path('ca-cert.pem')}\n"
                      f"private_key={self.path('ca-key.pem')}\n")
        open(self.path("index"), "a").close()
        for name in names:
            openssl("ca", "-config", settings, "-revoke", self.path(name + "-cert.pem"))
        openssl("ca", "-config", settings, "-gencrl", "-out", self.path("ca-crl.pem"))
