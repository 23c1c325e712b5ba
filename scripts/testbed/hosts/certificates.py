"""One certificate authority for a testbed and one RSA certificate for each host, server and client in one.

RSA, because libvirt 9.0 refuses ECDSA server certificates ("usage does not permit key encipherment").
"""

import os
import pathlib
import shutil

from processes import run

CONFIGURATION = """\
[req]
distinguished_name = name
prompt = no
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[host]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:{name}, DNS:localhost, IP:{address}, IP:127.0.0.1
"""


def _issue(folder, file, name, address, section, *signer):
    configuration = folder / f"{file}.cnf"
    configuration.write_text(CONFIGURATION.format(name=name, address=address), encoding="utf-8")
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 3650, "-config", configuration,
        "-extensions", section, "-keyout", folder / f"{file}-key.pem", "-out", folder / f"{file}-cert.pem", *signer)
    os.chmod(folder / f"{file}-key.pem", 0o600)


def issue(folder, hosts):
    """Writes ca-cert.pem and NAME-cert.pem, NAME-key.pem for each (name, address) into `folder`, unless they are there."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if all((folder / f"{name}-cert.pem").exists() for name, _ in hosts):
        return
    _issue(folder, "ca", "diskferry testbed", "127.0.0.1", "authority")
    for name, address in hosts:
        _issue(folder, name, name, address, "host", "-CA", folder / "ca-cert.pem", "-CAkey", folder / "ca-key.pem")


def install(folder, name, pki):
    """Lays a host's certificates out where libvirt, QEMU and diskferry look for them below `pki`."""
    ca, cert, key = (pathlib.Path(folder) / file for file in ("ca-cert.pem", f"{name}-cert.pem", f"{name}-key.pem"))
    pki = pathlib.Path(pki)
    places = {"CA/cacert.pem": ca, "libvirt/servercert.pem": cert, "libvirt/private/serverkey.pem": key,
              "libvirt/clientcert.pem": cert, "libvirt/private/clientkey.pem": key}
    # libvirt's NBD disks with tls='yes' look into a folder of their own.
    for place in ("qemu", "libvirt-nbd", "diskferry"):
        places[f"{place}/ca-cert.pem"] = ca
        for role in ("server", "client"):
            places[f"{place}/{role}-cert.pem"] = cert
            places[f"{place}/{role}-key.pem"] = key
    for place, source in places.items():
        (pki / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, pki / place)
