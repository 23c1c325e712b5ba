#!/usr/bin/env python3
"""Every format that qemu-nbd reads here, against what qemu-img says its content is."""

import base64
import json
import os
import struct
import subprocess
import unittest
import zlib

from program_case import PROGRAM, ProgramCase

# name, what qemu-img makes it with, ending
MADE = [
    ("vmdk", "vmdk", "subformat=monolithicSparse", ".vmdk"),
    ("vmdk_flat", "vmdk", "subformat=monolithicFlat", ".vmdk"),
    ("vmdk_split", "vmdk", "subformat=twoGbMaxExtentSparse", ".vmdk"),
    ("vmdk_split_flat", "vmdk", "subformat=twoGbMaxExtentFlat", ".vmdk"),
    ("vmdk_stream", "vmdk", "subformat=streamOptimized", ".vmdk"),
    ("vhdx", "vhdx", "subformat=dynamic", ".vhdx"),
    ("vhdx_fixed", "vhdx", "subformat=fixed", ".vhdx"),
    ("vpc", "vpc", "subformat=dynamic", ".vhd"),
    ("vpc_fixed", "vpc", "subformat=fixed", ".vhd"),
    ("vdi", "vdi", "static=off", ".vdi"),
    ("vdi_static", "vdi", "static=on", ".vdi"),
    ("qed", "qed", None, ".qed"),
    ("parallels", "parallels", None, ".hdd"),
    ("qcow", "qcow", None, ".qcow"),
]


class Formats(ProgramCase):
    def check(self, image, format_name, reference):
        """All that reads an image, probed and told."""
        size = os.path.getsize(reference)
        described = json.loads(self.diskferry("inspect", "--json", image).stdout)
        self.assertEqual((described["format"], described["virtual-size"]), (format_name, size))
        self.diskferry("copy", image, self.folder / "probed.raw")
        self.same_bytes(self.folder / "probed.raw", reference)
        self.diskferry("copy", "-f", format_name, "-O", "qcow2", image, self.folder / "told.qcow2")
        self.tool("qemu-img", "compare", "-f", "qcow2", "-F", "raw", self.folder / "told.qcow2", reference)
        self.diskferry("verify", "--strict", image, reference)
        extents = json.loads(self.diskferry("map", "--json", image).stdout)
        self.assertEqual(extents[-1]["start"] + extents[-1]["length"], size)
        return extents

    def made(self, format_name, options, ending):
        raw = self.make_raw(self.folder / "disk.raw")
        image = self.images / f"disk{ending}"
        self.tool("qemu-img", "convert", "-f", "raw", "-O", format_name, *(["-o", options] if options else []), raw, image)
        reference = self.folder / "reference.raw"
        self.tool("qemu-img", "convert", "-f", format_name, "-O", "raw", image, reference)
        return self.check(image, format_name, reference)

    def test_holes_are_seen(self):
        self.assertTrue(any(extent["zero"] for extent in self.made("vmdk", None, ".vmdk")))

    def test_vmdk_of_many_extents(self):
        """Each of up to 2 GiB, in files beside it."""
        image = self.images / "big.vmdk"
        self.tool("qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", image, "5G")
        self.tool("qemu-io", "-f", "vmdk", "-c", "write -q -P 7 4100M 1M", image)
        reference = self.folder / "reference.raw"
        self.tool("qemu-img", "convert", "-f", "vmdk", "-O", "raw", image, reference)
        self.diskferry("verify", "--strict", image, reference)
        # The extents are part of the source: it cannot be copied over them.
        extent = sorted(self.images.glob("big-s*.vmdk"))[-1]
        self.refused("copy", "--overwrite", "-O", "raw", image, extent, says="of the source")

    def test_vmdk_over_its_backing_image(self):
        base = self.images / "base.vmdk"
        self.tool("qemu-img", "create", "-q", "-f", "vmdk", base, "8M")
        self.tool("qemu-io", "-f", "vmdk", "-c", "write -q -P 3 1M 1M", base)
        image = self.images / "child.vmdk"
        self.tool("qemu-img", "create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", image)
        self.tool("qemu-io", "-f", "vmdk", "-c", "write -q -P 4 3M 1M", image)
        reference = self.folder / "reference.raw"
        self.tool("qemu-img", "convert", "-f", "vmdk", "-O", "raw", image, reference)
        self.check(image, "vmdk", reference)

    def test_below_a_qcow2(self):
        raw = self.make_raw(self.folder / "disk.raw")
        self.tool("qemu-img", "convert", "-f", "raw", "-O", "vhdx", raw, self.images / "base.vhdx")
        overlay = self.images / "top.qcow2"
        self.tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.vhdx", "-F", "vhdx", overlay)
        self.tool("qemu-io", "-f", "qcow2", "-c", "write -q -P 5 1M 64k", overlay)
        reference = self.folder / "reference.raw"
        self.tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", overlay, reference)
        self.diskferry("copy", overlay, self.folder / "copy.raw")
        self.same_bytes(self.folder / "copy.raw", reference)

    def over_a_foreign_image(self):
        """A VHDX with data, and an overlay."""
        raw = self.make_raw(self.folder / "disk.raw")
        self.tool("qemu-img", "convert", "-f", "raw", "-O", "vhdx", raw, self.images / "base.vhdx")
        overlay = self.images / "top.qcow2"
        self.tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.vhdx", "-F", "vhdx", overlay)
        return raw, overlay

    def test_the_overlay_is_written(self):
        """A backing image that is only read is no reason to refuse."""
        raw, overlay = self.over_a_foreign_image()
        socket = self.folder / "socket"
        with subprocess.Popen([PROGRAM, "export", "--writable", "--listen", f"unix:{socket}", overlay], stdout=subprocess.PIPE,
                              env=self.env) as server:
            self.assertIn(b"READY", server.stdout.readline())
            for file in (["-f", "raw", f"nbd+unix:///?socket={socket}"], ["-f", "raw", raw]):
                self.tool("qemu-io", "-c", "write -q -P 9 3M 100k", *file)
            server.terminate()
        self.assertEqual(server.returncode, 0)
        self.tool("qemu-img", "compare", "-f", "qcow2", "-F", "raw", overlay, raw)
        self.tool("qemu-img", "check", "-q", "-f", "qcow2", overlay)

    def test_the_top_is_copied_over_a_foreign_image(self):
        raw, overlay = self.over_a_foreign_image()
        for file in (["-f", "qcow2", overlay], ["-f", "raw", raw]):
            self.tool("qemu-io", "-c", "write -q -P 9 3M 100k", *file)
        target = self.images / "copy.qcow2"
        self.diskferry("copy", "--top", "--backing", "base.vhdx", "--backing-format", "vhdx", overlay, target)
        self.tool("qemu-img", "compare", "-f", "qcow2", "-F", "raw", target, raw)

    def test_served_over_nbd(self):
        raw = self.make_raw(self.folder / "disk.raw")
        image = self.images / "disk.vhdx"
        self.tool("qemu-img", "convert", "-f", "raw", "-O", "vhdx", raw, image)
        socket = self.folder / "socket"
        with subprocess.Popen([PROGRAM, "export", "--listen", f"unix:{socket}", image], stdout=subprocess.PIPE, env=self.env) as server:
            self.assertIn(b"READY", server.stdout.readline())
            self.tool("qemu-img", "compare", "-f", "raw", "-F", "raw", f"nbd+unix:///?socket={socket}", raw)
            server.terminate()
        self.assertEqual(server.returncode, 0)
        self.refused("export", "--writable", "-f", "vhdx", "--listen", f"unix:{socket}", image, says="only read")

    def test_cloop(self):
        block = 64 << 10
        content = os.urandom(5 * block)
        blocks = [zlib.compress(content[at:at + block]) for at in range(0, len(content), block)]
        header = b"#!/bin/sh\n#V2.0 Format\n".ljust(128, b"\0") + struct.pack(">II", block, len(blocks))
        at = len(header) + 8 * (len(blocks) + 1)
        offsets = b""
        for one in [*blocks, b""]:
            offsets += struct.pack(">Q", at)
            at += len(one)
        (self.images / "disk.cloop").write_bytes(header + offsets + b"".join(blocks))
        (self.folder / "reference.raw").write_bytes(content)
        self.check(self.images / "disk.cloop", "cloop", self.folder / "reference.raw")

    def test_bochs(self):
        """One extent of 64 KiB, the second of a disk of two."""
        extent, bitmap = 64 << 10, 512
        content = os.urandom(extent)
        header = b"Bochs Virtual HD Image".ljust(32, b"\0") + b"Redolog".ljust(16, b"\0") + b"Growing".ljust(16, b"\0")
        header += struct.pack("<IIIII", 0x00020000, 512, 2, bitmap, extent) + struct.pack("<IQ", 0, 2 * extent)
        catalog = struct.pack("<II", 0xFFFFFFFF, 0)
        (self.images / "disk.bochs").write_bytes(header.ljust(512, b"\0") + catalog + b"\xff" * bitmap + content)
        (self.folder / "reference.raw").write_bytes(bytes(extent) + content)
        self.check(self.images / "disk.bochs", "bochs", self.folder / "reference.raw")

    def test_dmg(self):
        """One chunk as it is, one of zeros, one compressed."""
        sectors = 128
        plain, packed = os.urandom(sectors * 512), os.urandom(sectors * 512)
        compressed = zlib.compress(packed)
        chunks = [(1, 0, 0, len(plain)), (2, sectors, len(plain), 0), (0x80000005, 2 * sectors, len(plain), len(compressed)),
                  (0xFFFFFFFF, 3 * sectors, 0, 0)]
        mish = b"mish" + struct.pack(">IQQQII", 1, 0, 3 * sectors, 0, 0, 0) + bytes(24 + 136) + struct.pack(">I", len(chunks))
        for kind, sector, at, length in chunks:
            count = 0 if kind == 0xFFFFFFFF else sectors
            mish += struct.pack(">IIQQQQ", kind, 0, sector, count, at, length)
        plist = b"<plist><dict><key>blkx</key><array><dict><data>%s</data></dict></array></dict></plist>" % (
            base64.b64encode(mish))
        data = plain + compressed
        koly = bytearray(512)
        koly[0:12] = b"koly" + struct.pack(">II", 4, 512)
        koly[0x18:0x30] = struct.pack(">QQQ", 0, 0, len(data))
        koly[0xD8:0xE8] = struct.pack(">QQ", len(data), len(plist))
        koly[0x1EC:0x1F4] = struct.pack(">Q", 3 * sectors)
        (self.images / "disk.dmg").write_bytes(data + plist + bytes(koly))
        (self.folder / "reference.raw").write_bytes(plain + bytes(sectors * 512) + packed)
        self.check(self.images / "disk.dmg", "dmg", self.folder / "reference.raw")


def _add(name, *how):
    def case(self):
        self.made(*how)
    setattr(Formats, f"test_{name}", case)


for _name, *_how in MADE:
    _add(_name, *_how)

if __name__ == "__main__":
    unittest.main()
