"""What a host of the testbed has as files of its own: libvirt's and sshd's configuration, keys, certificates, names."""

import pathlib
import shutil

import certificates
from processes import run

# Laid over the machine's own; everything else (programs, /tmp, the caller's folders) is the same on both hosts.
PLACES = ("/etc/libvirt", "/etc/pki", "/etc/diskferry", "/etc/hosts", "/root/.ssh", "/var/lib/libvirt", "/var/log/libvirt",
          "/var/cache/libvirt", "/var/lib/diskferry")
FOLDERS = ("/etc/libvirt/qemu", "/etc/pki", "/etc/diskferry", "/root/.ssh", "/var/lib/libvirt/images",
           "/var/lib/libvirt/qemu/nvram", "/var/log/libvirt/qemu", "/var/cache/libvirt", "/var/lib/diskferry")

# No authentication on purpose: nothing outside the two namespaces can reach these ports. The monitor filter keeps
# libvirt's whole conversation with QEMU, which is what explains a migration that failed.
LIBVIRTD = """\
listen_tcp = 1
listen_tls = 1
listen_addr = "0.0.0.0"
tcp_port = "16509"
tls_port = "16514"
auth_tcp = "none"
auth_tls = "none"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_dir = "/run/libvirt"
host_uuid = "{uuid}"
log_filters = "2:qemu.qemu_monitor 1:qemu.qemu_migration 3:util.netlink 3:util.object 3:rpc"
log_outputs = "1:file:/var/log/libvirt/libvirtd.log"
keepalive_interval = 5
keepalive_count = 5
"""

QEMU = """\
security_driver = "none"
namespaces = []
cgroup_controllers = []
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
stdio_handler = "file"
migration_host = "{address}"
migration_address = "{address}"
default_tls_x509_cert_dir = "/etc/pki/qemu"
default_tls_x509_verify = 1
nbd_tls = 0
"""

SSHD = """\
Port 22
HostKey {folder}/ssh_host_key
PidFile /run/sshd.pid
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
AuthorizedKeysFile .ssh/authorized_keys
StrictModes no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
"""


def _ssh_keys(folder, hosts):
    """One key for root on both hosts, one host key each. Returns (private key, {name: the host's public key})."""
    user = folder / "ssh_user_key"
    if not user.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "root@testbed", "-f", user)
    public = {}
    for short, name, _ in hosts:
        key = folder / short / "ssh_host_key"
        key.parent.mkdir(exist_ok=True)
        if not key.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key)
        public[name] = " ".join((folder / short / "ssh_host_key.pub").read_text(encoding="utf-8").split()[:2])
    return user, public


def _write_ssh(files, host_folder, hosts, user, public):
    home = files / "root/.ssh"
    shutil.copy(user, home / "id_ed25519")
    shutil.copy(f"{user}.pub", home / "authorized_keys")
    (home / "known_hosts").write_text(
        "".join(f"{name},{address} {public[name]}\n" for _, name, address in hosts), encoding="utf-8")
    for file in home.iterdir():
        file.chmod(0o600)
    home.chmod(0o700)
    (host_folder / "sshd_config").write_text(SSHD.format(folder=host_folder), encoding="utf-8")


def write(folder, hosts):
    """Writes the files of all hosts, a list of (short name, name, address), below `folder`/SHORT/files."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    certificates.issue(folder / "certificates", [(name, address) for _, name, address in hosts])
    user, public = _ssh_keys(folder, hosts)
    for number, (short, name, address) in enumerate(hosts, 1):
        files = folder / short / "files"
        for place in FOLDERS:
            (files / place[1:]).mkdir(parents=True, exist_ok=True)
        uuid = f"{short * 8}-1111-4222-8333-{number:012d}"
        (files / "etc/libvirt/libvirtd.conf").write_text(LIBVIRTD.format(uuid=uuid), encoding="utf-8")
        (files / "etc/libvirt/qemu.conf").write_text(QEMU.format(address=address), encoding="utf-8")
        (files / "etc/hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{ip} {other}\n" for _, other, ip in hosts), encoding="utf-8")
        certificates.install(folder / "certificates", name, files / "etc/pki")
        _write_ssh(files, folder / short, hosts, user, public)
        (folder / short / "places").write_text("".join(place + "\n" for place in PLACES), encoding="utf-8")
