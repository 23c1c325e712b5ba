"""Builds the demo's disk: a Linux that boots by itself, as a qcow2 chain of three layers with a compressed base.

Everything in it is Debian's own: kernel, busybox, boot loader, and as content the files of installed programs. Nothing is
mounted and no privilege is needed.
"""

import glob
import gzip
import hashlib
import os
import pathlib
import shutil
import subprocess

from processes import run
from report import Failed, say, size

HERE = pathlib.Path(__file__).resolve().parent
MIB = 1 << 20
# Partitions: boot (FAT, with the boot loader), root (ext4), and one that the live workload writes.
BOOT_AT, BOOT_BYTES = 1 * MIB, 47 * MIB
ROOT_AT, ROOT_BYTES = 48 * MIB, 208 * MIB
TAGGED_AT, TAGGED_BYTES = 256 * MIB, 255 * MIB
DISK_BYTES = 512 * MIB + 512  # an odd size: real disks have them
# In the order of loading; what the kernel has built in is not there as a file.
MODULES = ("virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_legacy_dev", "virtio/virtio_pci_modern_dev",
           "virtio/virtio_pci", "block/virtio_blk")
MBR_CODE = "/usr/lib/syslinux/mbr/mbr.bin"


def fetch_kernel(cache):
    """Debian's cloud kernel (small, made for virtual machines), unpacked and not installed. Returns (vmlinuz, modules)."""
    def unpacked():
        kernels = sorted(glob.glob(f"{cache}/boot/vmlinuz-*"))
        if not kernels:
            return None
        version = os.path.basename(kernels[-1]).removeprefix("vmlinuz-")
        return kernels[-1], f"{cache}/lib/modules/{version}/kernel"

    if found := unpacked():
        return found
    os.makedirs(cache, exist_ok=True)
    depends = run("apt-cache", "depends", "linux-image-cloud-amd64")
    package = next((line.split()[-1] for line in depends.splitlines() if "Depends: linux-image-" in line), None)
    if package is None:
        raise Failed("apt knows no linux-image-cloud-amd64; run scripts/setup (it runs apt-get update)")
    say(f"fetching Debian's kernel {package} (unpacked into {cache}, not installed)")
    run("apt-get", "download", package, cwd=cache, timeout=600)
    for archive in glob.glob(f"{cache}/*.deb"):
        run("dpkg-deb", "-x", archive, cache)
        os.unlink(archive)
    found = unpacked()
    if not found:
        raise Failed(f"no kernel in {package}")
    return found


def module_files(modules):
    for module in MODULES:
        plain = f"{modules}/drivers/{module}.ko"
        if os.path.exists(plain):
            yield pathlib.Path(plain).name, pathlib.Path(plain).read_bytes()
        elif os.path.exists(plain + ".xz"):
            yield pathlib.Path(plain).name, subprocess.run(["xz", "-dc", plain + ".xz"], capture_output=True, check=True).stdout


def write_initramfs(folder, modules, into):
    tree = os.path.join(folder, "initramfs")
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        os.makedirs(os.path.join(tree, name), exist_ok=True)
    shutil.copy("/bin/busybox", f"{tree}/bin/busybox")
    shutil.copy(HERE / "guest/initramfs-init.sh", f"{tree}/init")
    os.chmod(f"{tree}/init", 0o755)
    for number, (name, content) in enumerate(module_files(modules)):
        pathlib.Path(f"{tree}/modules/{number}-{name}").write_bytes(content)
    names = subprocess.run(["find", "."], cwd=tree, capture_output=True, check=True).stdout
    archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], cwd=tree, input=names,
                             capture_output=True, check=True).stdout
    with gzip.open(into, "wb", compresslevel=6) as out:
        out.write(archive)


def write_root_tree(folder):
    """The root file system's content: busybox, the writer, and files worth copying."""
    tree = os.path.join(folder, "root")
    for name in ("bin", "sbin", "dev", "proc", "sys", "files"):
        os.makedirs(os.path.join(tree, name), exist_ok=True)
    shutil.copy("/bin/busybox", f"{tree}/bin/busybox")
    run("gcc", "-O2", "-static", "-o", f"{tree}/bin/writer", HERE / "guest/writer.c")
    shutil.copy(HERE / "guest/disk-init.sh", f"{tree}/sbin/init")
    os.chmod(f"{tree}/sbin/init", 0o755)
    programs = sorted((path for path in glob.glob("/usr/bin/*") if os.path.isfile(path) and not os.path.islink(path)),
                      key=os.path.getsize, reverse=True)
    total, number = 0, 0
    for program in programs:
        length = os.path.getsize(program)
        if not 256 * 1024 <= length <= 24 * MIB or total + length > 96 * MIB:
            continue
        number += 1
        total += length
        shutil.copy(program, f"{tree}/files/{number}")
        if number == 12:
            break
    return tree, total


def checksums(tree):
    found = {}
    for path in sorted(pathlib.Path(tree, "files").iterdir()):
        found["/files/" + path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def write_partition(disk, offset, image):
    """Copies a partition's image into the disk, leaving its holes as holes."""
    run("dd", f"if={image}", f"of={disk}", "bs=1M", f"seek={offset // MIB}", "conv=notrunc,sparse", "status=none")


def build_raw(folder, kernel, modules):
    """The disk as one raw file. Returns (path, the files' checksums)."""
    disk = os.path.join(folder, "disk.raw")
    with open(disk, "wb") as out:
        out.truncate(DISK_BYTES)
    sectors = [(BOOT_AT, BOOT_BYTES, "e, bootable"), (ROOT_AT, ROOT_BYTES, "83"), (TAGGED_AT, TAGGED_BYTES, "83")]
    table = "label: dos\nlabel-id: 0xd15cfe11\n" + "".join(
        f"start={at // 512}, size={length // 512}, type={kind}\n" for at, length, kind in sectors)
    subprocess.run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk], input=table, text=True, check=True,
                   capture_output=True)
    with open(disk, "r+b") as out:
        out.write(pathlib.Path(MBR_CODE).read_bytes()[:440])

    boot = os.path.join(folder, "boot.img")
    with open(boot, "wb") as out:
        out.truncate(BOOT_BYTES)
    run("mkfs.vfat", "-F", "16", "-n", "BOOT", "-h", BOOT_AT // 512, boot)
    initramfs = os.path.join(folder, "initramfs.gz")
    write_initramfs(folder, modules, initramfs)
    menu = os.path.join(folder, "syslinux.cfg")
    pathlib.Path(menu).write_text(
        "SERIAL 0 115200\nDEFAULT linux\nPROMPT 0\nLABEL linux\n  KERNEL vmlinuz\n  INITRD initramfs.gz\n"
        "  APPEND console=ttyS0,115200 quiet loglevel=3 panic=-1 mitigations=off no_timer_check random.trust_cpu=on\n")
    for source, name in ((kernel, "vmlinuz"), (initramfs, "initramfs.gz"), (menu, "syslinux.cfg")):
        run("mcopy", "-i", boot, source, "::" + name)
    run("syslinux", "--install", boot)
    write_partition(disk, BOOT_AT, boot)

    tree, total = write_root_tree(folder)
    root = os.path.join(folder, "root.img")
    run("mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0,lazy_itable_init=0", "-d", tree, root, f"{ROOT_BYTES // 1024}k")
    write_partition(disk, ROOT_AT, root)
    say(f"disk: {size(DISK_BYTES)}, boot loader, kernel, busybox, {size(total)} of program files")
    return disk, tree, root


def differing_ranges(old, new, step=64 * 1024):
    """Ranges, in whole steps, where two files of one size differ."""
    ranges = []
    with open(old, "rb") as before, open(new, "rb") as after:
        offset = 0
        while data := after.read(step):
            if data != before.read(step):
                if ranges and ranges[-1][1] == offset:
                    ranges[-1][1] = offset + len(data)
                else:
                    ranges.append([offset, offset + len(data)])
            offset += len(data)
    return ranges


def write_differences(old, new, at, image):
    """Writes into `image`, at offset `at`, what differs between two states of a partition."""
    for begin, end in differing_ranges(old, new):
        piece = new + ".piece"
        with open(new, "rb") as whole:
            whole.seek(begin)
            pathlib.Path(piece).write_bytes(whole.read(end - begin))
        run("qemu-io", "-f", "qcow2", "-c", f"write -q -s {piece} {at + begin} {end - begin}", image)
        os.unlink(piece)


def build_chain(folder, kernel, modules):
    """Returns (path of the top image, the checksums the guest must print before its first boot)."""
    disk, tree, root = build_raw(folder, kernel, modules)
    base, middle, top = (os.path.join(folder, name) for name in ("base.qcow2", "middle.qcow2", "top.qcow2"))
    run("qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", disk, base)

    # The middle layer: an administrator added a file and removed another.
    added = os.path.join(folder, "added")
    pathlib.Path(added).write_bytes(b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(131072)))
    shutil.copy(added, f"{tree}/files/added-in-the-middle-layer")
    os.unlink(f"{tree}/files/3")
    changed_root = root + ".changed"
    run("cp", "--sparse=always", root, changed_root)
    run("debugfs", "-w", "-R", f"write {added} /files/added-in-the-middle-layer", changed_root)
    run("debugfs", "-w", "-R", "rm /files/3", changed_root)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", middle, cwd=folder)
    write_differences(root, changed_root, ROOT_AT, middle)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", top, cwd=folder)
    for name in ("disk.raw", "boot.img", "root.img", "root.img.changed", "added", "initramfs.gz"):
        os.unlink(os.path.join(folder, name))
    shutil.rmtree(os.path.join(folder, "initramfs"))
    return top, checksums(tree)
