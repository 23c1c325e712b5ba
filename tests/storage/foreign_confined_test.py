#!/usr/bin/env python3
"""A hostile image, a hostile name, and what the child that reads them has of us."""

import os
import pathlib
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

from program_case import MIB, PROGRAM, Copy, ProgramCase, children_of, is_alive, wait_until

SECRET = b"the secret of somebody else\n" * 40


def descriptor(extent, sectors=2, parent=None):
    """A VMDK whose content is in `extent`."""
    text = f'# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID={"00000001" if parent else "ffffffff"}\n'
    text += 'createType="monolithicFlat"\n'  # no empty line: QEMU takes what follows it twice
    if parent:
        text += f'parentFileNameHint="{parent}"\n'
    return text + f'RW {sectors} FLAT "{extent}" 0\nddb.virtualHWVersion = "4"\n'


class Confined(ProgramCase):
    def setUp(self):
        super().setUp()
        self.image = self.images / "disk.vmdk"
        self.target = self.folder / "copy.raw"
        self.secret = self.folder / "secret"
        self.secret.write_bytes(SECRET)

    def refuses_extent(self, name):
        with self.subTest(name):
            self.image.write_text(descriptor(name))
            text = self.diskferry("copy", self.image, self.target, code=3).stderr
            self.assertNotIn("secret of somebody", text)
            self.assertFalse(self.target.exists())
            return text

    def test_files_elsewhere_are_not_read(self):
        (self.images / "link").symlink_to(self.secret)
        text = self.refuses_extent(str(self.secret))
        self.assertIn("--allow-backing", text)
        for name in ("/etc/passwd", "../secret", "link", "/proc/self/environ", "/dev/zero", "file:" + str(self.secret),
                     'json:{"driver":"file","filename":"%s"}' % self.secret, "fat:" + str(self.folder),
                     "nbd+unix:///?socket=/run/x", "http://127.0.0.1:9/x"):
            self.refuses_extent(name)

    def test_a_parent_elsewhere_is_not_read(self):
        self.tool("qemu-img", "create", "-q", "-f", "vmdk", self.folder / "parent.vmdk", "1M")
        (self.images / "extent").write_bytes(bytes(1024))
        self.image.write_text(descriptor("extent", parent=str(self.folder / "parent.vmdk")))
        self.diskferry("copy", self.image, self.target, code=3)
        self.assertFalse(self.target.exists())

    def test_what_is_allowed_is_read(self):
        """The same names, so that the refusals above are not for another reason."""
        for name in (str(self.secret), "../secret"):
            self.image.write_text(descriptor(name))
            self.target.unlink(missing_ok=True)
            self.diskferry("copy", "--allow-backing", self.folder, self.image, self.target)
            self.assertEqual(self.target.read_bytes(), SECRET[:1024])
        (self.images / "extent").write_bytes(SECRET)
        self.image.write_text(descriptor("extent"))
        self.diskferry("copy", "--overwrite", self.image, self.target)
        self.assertEqual(self.target.read_bytes(), SECRET[:1024])

    def public_place(self):
        """A folder for every user, with the program; that of the tests is root's alone."""
        place = pathlib.Path(tempfile.mkdtemp(prefix="foreign-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, place)
        place.chmod(0o777)
        return place, shutil.copy(PROGRAM, place), {"XDG_STATE_HOME": str(place), "HOME": "/nonexistent", "TMPDIR": "/tmp"}

    def test_nobody_reads_as_nobody(self):
        """Without root's means: the same confinement, and no file that the user may not read."""
        self.needs_root("it makes files of somebody else")
        place, program, env = self.public_place()
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program]
        self.images = place / "images"
        self.images.mkdir()
        self.image, self.secret = self.images / "disk.vmdk", place / "secret"
        self.secret.write_bytes(SECRET)
        target = place / "copy.raw"
        self.image.write_text(descriptor(str(self.secret)))
        self.diskferry("copy", self.image, target, code=3, prefix=as_nobody, env=env)
        (self.images / "extent").write_bytes(SECRET)
        self.image.write_text(descriptor("extent"))
        self.diskferry("copy", self.image, target, prefix=as_nobody, env=env)
        self.assertEqual(target.read_bytes(), SECRET[:1024])
        (self.images / "extent").chmod(0o600)
        self.diskferry("copy", "--overwrite", self.image, target, code=3, prefix=as_nobody, env=env)
        # The image itself: no folder that is allowed would help.
        self.image.chmod(0o600)
        text = self.diskferry("inspect", "-f", "vmdk", self.image, code=3, prefix=as_nobody, env=env).stderr
        self.assertNotIn("--allow-backing", text)

    def test_a_user_without_a_name(self):
        self.needs_root("it becomes another user")
        place, program, env = self.public_place()
        as_somebody = ["setpriv", "--reuid=1998585857", "--regid=65534", "--clear-groups", program]
        self.refused("copy", "ssh://127.0.0.1/disk.raw", place / "copy.raw", code=2, says="user@", prefix=as_somebody, env=env)

    def test_as_root_of_a_container(self):
        """Docker's root may change users, but neither read all files nor look at other processes."""
        self.needs_root("it is about root's capabilities")
        as_container = ["setpriv", "--bounding-set=-dac_read_search,-sys_ptrace", PROGRAM]
        extent = self.images / "extent"
        extent.write_bytes(SECRET)
        self.image.write_text(descriptor("extent"))
        for file in (self.image, extent):
            file.chmod(0o600)
        self.diskferry("copy", self.image, self.target, prefix=as_container)
        self.assertEqual(self.target.read_bytes(), SECRET[:1024])
        self.refused("copy", "--overwrite", "-O", "raw", self.image, extent, says="of the source", prefix=as_container)
        self.image.write_text(descriptor(str(self.secret)))
        self.target.unlink()
        self.diskferry("copy", self.image, self.target, code=3, prefix=as_container)
        self.assertFalse(self.target.exists())
        # We may read it, the child may not; no folder that is allowed would help.
        os.chown(self.image, 1234, 1234)
        self.assertNotIn("--allow-backing", self.refused("inspect", self.image, says="mode", prefix=as_container))

    def test_a_folder_for_temporary_files_that_is_not_there(self):
        self.tool("qemu-img", "create", "-q", "-f", "vmdk", self.image, "1M")
        self.refused("inspect", self.image, code=(1, 3), env={"TMPDIR": "/nonexistent"}, says="TMPDIR")

    def test_names_are_names(self):
        """Whatever a name looks like to QEMU, the file of that name is opened."""
        raw = self.make_raw(self.folder / "disk.raw", MIB)
        plain = self.folder / "plain.vmdk"
        self.tool("qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, plain)
        for number, name in enumerate((
                b'json:{"driver":"null-co"}.vmdk', b"nbd:localhost:1.vmdk", b"a,file.filename=secret,b=.vmdk", b",.vmdk",
                b"driver=raw,x.vmdk", b"two\nlines.vmdk", b"\xff\xfe.vmdk", b"file:disk.vmdk", b"http:disk.vmdk",
                b"a'b\"c $(id).vmdk", b"--help.vmdk")):
            with self.subTest(name):
                path = os.fsencode(self.images) + b"/" + name
                with open(path, "wb") as file:
                    file.write(plain.read_bytes())
                target = self.folder / f"copy{number}.raw"
                self.diskferry("copy", os.fsdecode(b"./" + name), target, cwd=self.images)
                self.same_bytes(target, raw)

    def test_the_format_is_believed_where_name_and_content_agree(self):
        (self.images / "extent").write_bytes(SECRET)
        text = descriptor("extent").ljust(4096, "\n")
        raw = self.folder / "copy.raw"
        # What a guest may have written into its raw disk; also in the raw extents of a VMDK.
        for name in ("disk.img", "disk", "disk.raw", "disk-flat.vmdk", "disk-f001.vmdk", "disk.vhd"):
            with self.subTest(name):
                (self.images / name).write_text(text)
                self.refused("copy", self.images / name, raw, code=2, says=["vmdk", "raw"])
                self.diskferry("copy", "--overwrite", "-f", "raw", self.images / name, raw)
                self.assertEqual(raw.read_text(), text)
                self.diskferry("copy", "--overwrite", "-f", "vmdk", self.images / name, raw)
                self.assertEqual(raw.read_bytes(), SECRET[:1024])
                raw.unlink()
        (self.images / "disk.VMDK").write_text(text)
        self.diskferry("copy", self.images / "disk.VMDK", raw)
        self.assertEqual(raw.read_bytes(), SECRET[:1024])

    def test_is_only_read(self):
        self.tool("qemu-img", "create", "-q", "-f", "vmdk", self.image, "1M")
        raw = self.make_raw(self.folder / "disk.raw", MIB)
        self.refused("copy", "-n", "-O", "vmdk", raw, self.image, says="not written")
        self.refused("copy", "-O", "vdi", raw, self.folder / "new.vdi", says="not written")
        for name in ("new.vmdk", "new.VMDK", "new.Vhd", "new.avhdx", "new.hdd", "new.dmg", "new.QCOW2", "new.ova"):
            self.refused("copy", raw, self.folder / name, code=2, says="-O raw")
            self.assertFalse((self.folder / name).exists())

    def copying(self, *words, **options):
        """A copy of 8 MiB that takes long, and its child."""
        raw = self.make_raw(self.folder / "disk.raw")
        self.tool("qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, self.image)
        copy = Copy("--rate", "1M", "--request-size", "64K", *words, str(self.image), str(self.target), env=self.env, **options)
        self.addCleanup(lambda: copy.process.poll() is None and copy.kill())
        copy.wait_for_bytes(MIB)
        return copy

    def test_the_child_has_nothing_of_ours(self):
        with open(self.secret, "rb") as inherited:
            self.env["SECRET_OF_OURS"] = "x"
            copy = self.copying(pass_fds=[inherited.fileno()])
            self.assertEqual(os.readlink(f"/proc/{copy.process.pid}/fd/{inherited.fileno()}"), str(self.secret), "we have it")
            proc = pathlib.Path(f"/proc/{copy.child()}")
            environment = proc.joinpath("environ").read_bytes().split(b"\0")
            self.assertEqual({one.partition(b"=")[0] for one in environment if one},
                             {b"LC_ALL", b"LISTEN_FDS", b"LISTEN_PID"})
            links = [os.readlink(one) for one in proc.joinpath("fd").iterdir()]
            self.assertEqual([one for one in links if one.startswith("/") and one != "/dev/null"], [str(self.image)])
            status = dict(line.split(":\t", 1) for line in proc.joinpath("status").read_text().splitlines() if ":\t" in line)
            self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
            if os.geteuid() == 0:
                self.assertNotEqual(status["Uid"].split()[0], "0")
                self.assertEqual(int(status["CapEff"], 16), 1 << 2, "reading, and nothing else")
            limits = proc.joinpath("limits").read_text()
            self.assertRegex(limits, r"Max data size +2147483648 ")
            self.assertRegex(limits, r"Max core file size +0 ")
            copy.kill()

    def test_the_child_ends_with_us(self):
        copy = self.copying()
        child = copy.child()
        copy.kill()
        wait_until("the child is gone", lambda: not is_alive(child))

    def test_a_child_that_is_killed_is_started_again(self):
        copy = self.copying()
        child = copy.child()
        os.kill(child, signal.SIGKILL)
        wait_until("there is another", lambda: copy.child() != child)
        self.assertEqual(copy.wait(), 0, copy.errors)
        self.same_bytes(self.target, self.folder / "disk.raw")

    def test_an_image_that_crashes_it_again_is_given_up(self):
        copy = self.copying()
        killed = copy.child()
        os.kill(killed, signal.SIGKILL)
        wait_until("there is another", lambda: copy.child() != killed)
        copy.wait_for_bytes(copy.done_bytes + MIB)
        begin = time.monotonic()
        os.kill(copy.child(), signal.SIGKILL)
        self.assertEqual(copy.wait(), 1)
        self.assertLess(time.monotonic() - begin, 30)
        self.assertIn("signal 9", copy.errors)
        self.diskferry("copy", "--resume", self.image, self.target)
        self.same_bytes(self.target, self.folder / "disk.raw")

    def test_killed_and_resumed(self):
        copy = self.copying("--checkpoint", "512K")
        copy.kill()
        self.diskferry("copy", "--resume", self.image, self.target)
        self.same_bytes(self.target, self.folder / "disk.raw")

    def test_a_source_that_changes_is_noticed(self):
        raw = self.make_raw(self.folder / "disk.raw")
        self.tool("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", raw, self.image)
        copy = Copy("--rate", "2M", str(self.image), str(self.target), env=self.env)
        copy.wait_for_bytes(MIB)
        with open(self.images / "disk-flat.vmdk", "r+b") as extent:
            extent.seek(5 * MIB)  # neither of the ends, which are compared
            extent.write(b"x")
        self.assertEqual(copy.wait(), 1)
        self.assertIn("disk-flat.vmdk", copy.errors)

    def test_without_qemu_nbd(self):
        self.tool("qemu-img", "create", "-q", "-f", "vmdk", self.image, "1M")
        text = self.refused("copy", self.image, self.target, env={"PATH": str(self.images)}, says="qemu-utils")
        self.assertIn("qemu-block-extra", text)
        self.refused("inspect", self.image, env={"DISKFERRY_QEMU_NBD": "/nonexistent/nbd"}, says="/nonexistent/nbd")

    def test_what_is_none_of_the_format(self):
        self.image.write_bytes(os.urandom(64 << 10))
        self.refused("copy", "-f", "vmdk", self.image, self.target, says="QEMU says")
        for name in ("vhdx", "vpc", "vdi", "qed", "parallels", "qcow", "dmg", "bochs", "cloop"):
            self.diskferry("inspect", "-f", name, self.image, code=3)
        self.refused("copy", "-f", "vmdk", self.images / "not-there.vmdk", self.target, says="not-there")

    def test_sizes_out_of_this_world_cost_little(self):
        """Tables of as much as the header claims would take all memory."""
        headers = {"vdi": bytearray(512), "parallels": bytearray(64), "cloop": bytearray(4096), "qcow": bytearray(48)}
        headers["vdi"][64:72] = struct.pack("<II", 0xBEDA107F, 0x00010001)
        headers["vdi"][340:348] = struct.pack("<II", 512, 1 << 20)
        headers["vdi"][368:376] = struct.pack("<Q", 0x1FFFFF8000000)
        headers["vdi"][384:388] = struct.pack("<I", 0x1FFFFF80)
        headers["parallels"][:64] = b"WithouFreSpacExt" + struct.pack("<IIIIIQIIIQ", 2, 16, 1, 2048, 0xFFFFFFF0,
                                                                      1 << 62, 0, 1, 0, 0)
        headers["cloop"][128:136] = struct.pack(">II", 64 << 10, 0x1FFFFFFF)
        headers["qcow"][:48] = struct.pack(">IIQIIQBBHIQ", 0x514649FB, 1, 0, 0, 0, (1 << 63) - 512, 9, 9, 0, 0, 48)
        for name, header in headers.items():
            with self.subTest(name):
                path = self.images / f"big.{name}"
                path.write_bytes(bytes(header))
                before = time.monotonic()
                ran = subprocess.run([PROGRAM, "inspect", "-f", name, path], capture_output=True, text=True, timeout=60,
                                     env=self.env, check=False)
                self.assertIn(ran.returncode, (0, 3), ran.stderr)
                self.assertLess(time.monotonic() - before, 45)
        children_max_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        self.assertLess(children_max_kib, 3 << 20)

    def test_an_image_that_is_its_own_parent(self):
        self.tool("qemu-img", "create", "-q", "-f", "vmdk", self.image, "1M")
        (self.images / "extent").write_bytes(bytes(1024))
        (self.images / "loop.vmdk").write_text(descriptor("extent", parent="loop.vmdk"))
        begin = time.monotonic()
        self.diskferry("inspect", self.images / "loop.vmdk", code=(1, 3))
        self.assertLess(time.monotonic() - begin, 60)
        self.assertEqual(children_of(os.getpid()), [])


if __name__ == "__main__":
    unittest.main()
