"""The disks that are measured. Each is made once in the work folder and reused; content is real program files or
random bytes, laid out with the holes that real disks have."""
import os
import random
import subprocess

MIB = 1 << 20
GIB = 1 << 30


class Inputs:
    """Lazily made inputs below `folder`. `scale` shrinks them (1 is full size)."""

    def __init__(self, folder, scale):
        self.folder = folder
        self.scale = scale

    def path(self, name):
        return os.path.join(self.folder, name)

    def size(self, gib):
        return int(gib * GIB * self.scale) // MIB * MIB

    def _make(self, name, maker):
        path = self.path(name)
        if not os.path.exists(path):
            maker(path + ".part")
            os.rename(path + ".part", path)
        return path

    def warm(self, path):
        """Reads a file so that it is in the page cache."""
        with open(path, "rb", buffering=0) as source:
            while source.read(8 * MIB):
                pass

    def sparse_raw(self):
        """4 GiB of which 2 GiB are data, in runs of 64 KiB to 16 MiB."""
        def make(path):
            total, pick = self.size(4), random.Random(4)
            block = os.urandom(16 * MIB)
            with open(path, "wb") as disk:
                disk.truncate(total)
                at, data = 0, 0
                while data < total // 2 and at < total:
                    run = min(64 * 1024 << pick.randrange(9), total // 2 - data, total - at)
                    disk.seek(at)
                    shift = pick.randrange(16 * MIB - run + 1)
                    disk.write(block[shift:shift + run])
                    data += run
                    gap = run if at + 2 * run < total else 0
                    at += run + gap
        return self._make("sparse.raw", make)

    def program_files(self):
        """1 GiB of program files (an archive of /usr), as a raw disk."""
        def make(path):
            total = self.size(1)
            with open(path, "wb") as disk:
                tar = subprocess.Popen(["tar", "-C", "/", "-cf", "-", "usr/bin", "usr/lib", "usr/share", "usr/sbin"],
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                left = total
                while left > 0:
                    chunk = tar.stdout.read(min(MIB, left))
                    if not chunk:
                        break
                    disk.write(chunk)
                    left -= len(chunk)
                tar.kill()
                tar.wait()
                disk.truncate(total)
        return self._make("programs.raw", make)

    def chain(self, compression):
        """Three layers: a compressed base of program files (1 GiB in 4 GiB), two overlays with 0.2 GiB each."""
        base, middle, top = (self.path(f"{compression}-{layer}.qcow2") for layer in ("base", "middle", "top"))
        if not os.path.exists(top):
            programs = self.program_files()
            for left_over in (base, middle):
                if os.path.exists(left_over):
                    os.unlink(left_over)
            flat = self.path("chain.raw.part")
            subprocess.run(["cp", "--sparse=always", programs, flat], check=True)
            os.truncate(flat, self.size(4))
            quiet = {"check": True, "stdout": subprocess.DEVNULL}
            subprocess.run(["qemu-img", "convert", "-c", "-o", f"compression_type={compression}", "-O", "qcow2",
                            flat, base], **quiet)
            os.unlink(flat)
            below, part = base, top + ".part"
            for layer in (middle, part):
                subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
                                os.path.basename(below), layer], check=True)
                pick = random.Random(len(layer))
                script = []
                for _ in range(int(200 * self.scale) or 1):
                    at = pick.randrange(self.size(4) // MIB) * MIB + pick.randrange(16) * 65536
                    script.append(f"write -P {pick.randrange(1, 255)} {min(at, self.size(4) - MIB)} 1M")
                subprocess.run(["qemu-io", "-f", "qcow2", layer], input="\n".join(script), text=True, **quiet)
                below = layer
            os.rename(part, top)
        return top

    def flat_qcow2(self):
        """1 GiB of program files as an uncompressed qcow2."""
        def make(path):
            subprocess.run(["qemu-img", "convert", "-S", "0", "-O", "qcow2", self.program_files(), path], check=True)
        return self._make("programs.qcow2", make)

    def empty(self, kind):
        """An empty disk of 8 TiB."""
        def make(path):
            subprocess.run(["qemu-img", "create", "-q", "-f", kind, path, "8T"], check=True)
        return self._make(f"empty.{kind}", make)
