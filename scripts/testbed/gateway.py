"""The program under demonstration: copies, checks and exports, always through `diskferry` itself."""

import os
import subprocess
import time

from processes import LineReader, run, stop, wait_until
from report import Failed


class Diskferry:
    def __init__(self, program):
        self.program = program

    def copy(self, source, target, *options):
        """Returns (seconds, what it printed)."""
        began = time.monotonic()
        text = run(self.program, "copy", *options, source, target, timeout=600)
        return time.monotonic() - began, text

    def verify(self, one, other, *options):
        return run(self.program, "verify", *options, one, other, timeout=600)

    def export(self, host, image, *options, listen, log=None):
        return Export(host, [self.program, "export", image, "--listen", listen, *options], log)


class Export:
    """A running `diskferry export`. It is ready when it says so on stdout."""

    def __init__(self, host, command, log):
        self.process = host.start(*command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.output = LineReader(self.process.stdout)

        def ready():
            if self.process.poll() is not None:
                said = ""
                if log is not None:
                    with open(log.name, encoding="utf-8", errors="replace") as text:
                        said = text.read()[-1000:]
                raise Failed(f"{' '.join(command)}: exit {self.process.returncode} before it was ready\n{said}")
            return next((line for line in self.output.texts() if line.startswith("READY ")), None)

        self.uri = wait_until(ready, "waiting for the export to accept connections").removeprefix("READY ")

    def stop(self):
        """SIGTERM: requests in flight are finished and flushed; anything but exit 0 is a failure."""
        began = time.monotonic()
        code = stop(self.process)
        if code != 0:
            raise Failed(f"the export exited with {code}")
        return time.monotonic() - began


def make_certificates(folder):
    """An authority, a server certificate for localhost and a client certificate, under QEMU's and nbdkit's names.

    RSA, because several of the programs a gateway meets still refuse anything else.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)

    def certificate(name, template):
        key, request = f"{folder}/{name}-key.pem", f"{folder}/{name}.template"
        with open(request, "w", encoding="ascii") as out:
            out.write(template)
        run("certtool", "--generate-privkey", "--key-type", "rsa", "--bits", "2048", "--outfile", key)
        if name == "ca":
            run("certtool", "--generate-self-signed", "--load-privkey", key, "--template", request, "--outfile",
                f"{folder}/ca-cert.pem")
        else:
            run("certtool", "--generate-certificate", "--load-ca-certificate", f"{folder}/ca-cert.pem",
                "--load-ca-privkey", f"{folder}/ca-key.pem", "--load-privkey", key, "--template", request, "--outfile",
                f"{folder}/{name}-cert.pem")

    certificate("ca", "cn = diskferry demo authority\nca\ncert_signing_key\nexpiration_days = 2\n")
    certificate("server", "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\n"
                          "encryption_key\nsigning_key\nexpiration_days = 2\n")
    certificate("client", "cn = demo-host\ntls_www_client\nencryption_key\nsigning_key\nexpiration_days = 2\n")
    return folder
