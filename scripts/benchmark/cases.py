"""The cases. Each yields contenders: a name and a function that does the work once and returns a Sample. The first
contender is always ours; a ratio above 1 means that ours is faster than that peer."""
import atexit
import contextlib
import dataclasses
import functools
import os
import shutil
from typing import Callable

import run
from run import Sample
from storages import STORAGES, StorageCopies


WIRE_MS = 5  # of each packet, each way


@dataclasses.dataclass
class Case:
    name: str
    title: str
    reach: str                       # what is aimed at, for the table
    contenders: dict[str, Callable[[], Sample]]
    by_rate: bool = False            # compare Sample.rate (more is better) instead of seconds
    page: str = "benchmarks"         # of docs/, which its row is on


class Cases:
    def __init__(self, inputs, ours, seconds):
        self.inputs, self.ours, self.seconds = inputs, ours, seconds

    def all(self):
        """Names in order; each is a method that returns the Cases it stands for."""
        return {"raw": self.raw, "raw-memory": self.raw_memory, "chain-zlib": self.chain_zlib,
                "chain-zstd": self.chain_zstd, "compress-zlib": self.compress_zlib, "compress-zstd": self.compress_zstd, "nbd-to-nbd": self.nbd_to_nbd,
                "server-raw": self.server_raw, "server-qcow2": self.server_qcow2, "server-tls": self.server_tls,
                "empty-raw": self.empty_raw, "empty-qcow2": self.empty_qcow2,
                **{f"storage-{kind}": functools.partial(self.storage, kind) for kind in STORAGES},
                **{f"far-{kind}": functools.partial(self.far_storage, kind) for kind in STORAGES}}

    # -- copies ------------------------------------------------------------------------------------------------

    def _copy(self, target, *arguments):
        """A contender that makes `target` from nothing."""
        def work():
            return run.command(list(arguments), before=lambda: self._remove(target))
        return work

    @staticmethod
    def _remove(target):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        run.settle()

    def _ours(self, source, target, *options):
        return self._copy(target, self.ours, "copy", "--progress", "none", *options, source, target)

    def _qemu(self, source, target, source_format, target_format, *options):
        return self._copy(target, "qemu-img", "convert", "-m", "16", "-W", *options, "-f", source_format, "-O",
                          target_format, source, target)

    def _raw(self, name, title, target):
        source = self.inputs.sparse_raw()
        self.inputs.warm(source)
        def nbdcopy(*options):
            def work():
                def before():
                    self._remove(target)
                    with open(target, "wb") as made:
                        made.truncate(os.path.getsize(source))
                return run.command(["nbdcopy", "--destination-is-zero", *options, source, target], before=before)
            return work
        yield Case(name, title, "1.2 (cp: 1.0)", {
            "diskferry": self._ours(source, target, "-f", "raw", "-O", "raw"),
            "diskferry, no verification": self._ours(source, target, "-f", "raw", "-O", "raw", "--no-verify"),
            "qemu-img": self._qemu(source, target, "raw", "raw"),
            "qemu-img, cache none": self._qemu(source, target, "raw", "raw", "-t", "none", "-T", "none"),
            "nbdcopy": nbdcopy(),
            "nbdcopy --flush": nbdcopy("--flush"),
            "cp --sparse=always": self._copy(target, "cp", "--sparse=always", source, target),
            "cp --sparse=always, sync": self._copy(target, "sh", "-c", 'cp --sparse=always "$1" "$2" && sync "$2"', "sh",
                                                   source, target)})

    def raw(self):
        return self._raw("raw", "raw to raw, sparse, 4 GiB with 2 GiB of data", self.inputs.path("target.raw"))

    def raw_memory(self):
        """Without the disk: what is left is the programs' own work."""
        target = f"/dev/shm/diskferry-bench-{os.getpid()}.raw"
        atexit.register(lambda: os.path.exists(target) and os.unlink(target))
        return self._raw("raw-memory", "the same, the target in memory (tmpfs)", target)

    def _chain(self, compression, reach):
        source = self.inputs.chain(compression)
        for kind in ("raw", "qcow2"):
            target = self.inputs.path("target." + kind)
            yield Case(f"chain-{compression}-{kind}", f"three-layer qcow2 chain, {compression} base, to {kind}", reach, {
                "diskferry": self._ours(source, target, "-f", "qcow2", "-O", kind),
                "diskferry, no verification": self._ours(source, target, "-f", "qcow2", "-O", kind, "--no-verify"),
                "qemu-img": self._qemu(source, target, "qcow2", kind)})

    def chain_zlib(self):
        yield from self._chain("zlib", "2 to raw, 1.3 to qcow2")

    def chain_zstd(self):
        yield from self._chain("zstd", "1.3")

    def _compress(self, compression, reach):
        source, target = self.inputs.program_files(), self.inputs.path("target.qcow2")
        self.inputs.warm(source)
        def with_size(work):
            def measured():
                sample = work()
                sample.note = f"{os.stat(target).st_size / (1 << 20):.0f} MiB"
                return sample
            return measured
        yield Case(f"compress-{compression}", f"1 GiB of program files to compressed qcow2, {compression}", reach, {
            "diskferry": with_size(self._ours(source, target, "-f", "raw", "-O", "qcow2", f"--compress={compression}")),
            "diskferry, no verification": with_size(self._ours(source, target, "-f", "raw", "-O", "qcow2",
                                                               f"--compress={compression}", "--no-verify")),
            "qemu-img": with_size(self._qemu(source, target, "raw", "qcow2", "-c", "-o",
                                             f"compression_type={compression}"))})

    def compress_zlib(self):
        yield from self._compress("zlib", "2")

    def compress_zstd(self):
        yield from self._compress("zstd", "1.3")

    def nbd_to_nbd(self):
        source, target = self.inputs.sparse_raw(), self.inputs.path("target.raw")
        self.inputs.warm(source)
        sockets = [self.inputs.path(name) for name in ("from.sock", "to.sock")]
        uris = [f"nbd+unix:///?socket={path}" for path in sockets]
        def fresh():
            self._remove(target)
            with open(target, "wb") as made:
                made.truncate(os.path.getsize(source))
        def ours(*options):
            def work():
                fresh()
                with run.server(self._export(sockets[0], source, "raw"), sockets[0]), \
                     run.server(self._export(sockets[1], target, "raw", "--writable"), sockets[1]):
                    return run.command([self.ours, "copy", "--progress", "none", "-n", *options, *uris])
            return work
        def peer(*options):
            def work():
                fresh()
                with run.server(self._qemu_nbd(sockets[0], source, "raw", "-r"), sockets[0]), \
                     run.server(self._qemu_nbd(sockets[1], target, "raw"), sockets[1]):
                    return run.command(["nbdcopy", *options, *uris])
            return work
        yield Case("nbd-to-nbd", "NBD to NBD, ours with our servers, nbdcopy with two qemu-nbd", "1.2", {
            "diskferry": ours(), "diskferry, no verification": ours("--no-verify"),
            "nbdcopy, 4 connections": peer("--connections=4"), "nbdcopy, 1 connection": peer("--connections=1"),
            "nbdcopy --flush, 4 connections": peer("--flush", "--connections=4")})

    # -- storage servers ---------------------------------------------------------------------------------------

    def storage(self, kind):
        yield from self._storage(f"storage-{kind}", STORAGES[kind].title, kind, StorageCopies(kind, self.inputs, self.ours))

    def far_storage(self, kind):
        yield from self._storage(f"far-{kind}", f"{STORAGES[kind].title}, {WIRE_MS} ms away", kind,
                                 StorageCopies(kind, self.inputs, self.ours, delay_ms=WIRE_MS))

    def _storage(self, name, title, kind, copies):
        raw, qcow2 = self.inputs.sparse_raw, self.inputs.flat_qcow2
        reach, reach_of_qcow2 = ("1.2", "2") if copies.delay_ms is None else ("3", "3")
        page = functools.partial(Case, page="benchmarks-storages")
        # By default qemu-img leaves what it wrote in caches; with writeback it flushes them at the end, as ours does.
        flushed = ("-t", "writeback")
        def onto(source, source_format, target_format="raw"):
            arguments = (source, source_format, target_format)
            return {"diskferry": copies.onto_ours(*arguments), "qemu-img": copies.onto_peer(*arguments),
                    "qemu-img, flushed": copies.onto_peer(*arguments, options=flushed)}
        yield page(f"{name}-to", f"raw file to {title}, 4 GiB with 2 GiB of data", reach, onto(raw, "raw"))
        yield page(f"{name}-to-from-qcow2", f"qcow2 file to raw on {title}", reach, onto(qcow2, "qcow2"))
        if kind in ("nfs", "rbd"):
            yield page(f"{name}-to-qcow2", f"raw file to a qcow2 image on {title}", reach_of_qcow2, onto(raw, "raw", "qcow2"))
        yield page(f"{name}-from", f"{title} to a raw file, 4 GiB with 2 GiB of data", reach, {
            "diskferry": copies.from_ours(), "qemu-img": copies.from_peer(), "qemu-img, flushed": copies.from_peer(flushed)})

    # -- servers -----------------------------------------------------------------------------------------------

    def _export(self, socket, image, kind, *options):
        return [self.ours, "export", "--listen", f"unix:{socket}", "-f", kind, "--name", "", *options, image]

    @staticmethod
    def _qemu_nbd(socket, image, kind, *options):
        return ["qemu-nbd", "-t", "-e", "16", "-k", socket, "-f", kind, "--cache=writeback", "--discard=unmap", *options,
                image]

    def _serve(self, arguments, socket, work, unit, uri=None):
        """A contender that starts a server, runs fio against it and gives the rate."""
        def measured():
            run.settle()
            with run.server(arguments, socket) as process:
                iops, bandwidth = run.fio(uri or f"nbd+unix:///?socket={socket}", work, self.seconds)
                return Sample(rate=iops if unit == "iops" else bandwidth, peak_kib=run.peak_kib(process.pid))
        return measured

    WORKS = (("random 4 KiB reads", "iops", {"rw": "randread", "bs": "4k", "iodepth": 32}),
             ("random 4 KiB writes", "iops", {"rw": "randwrite", "bs": "4k", "iodepth": 32}),
             ("sequential 256 KiB reads", "bytes", {"rw": "read", "bs": "256k", "iodepth": 16}),
             ("sequential 256 KiB writes", "bytes", {"rw": "write", "bs": "256k", "iodepth": 16}))

    def server_raw(self):
        image, socket = self.inputs.path("served.raw"), self.inputs.path("served.sock")
        if not os.path.exists(image):
            shutil.copyfile(self.inputs.program_files(), image)
        self.inputs.warm(image)
        for label, unit, work in self.WORKS:
            for connections in (1, 4):
                settings = {**work, "numjobs": connections}
                yield Case(f"server-raw-{work['rw']}-{connections}",
                           f"NBD server, raw file, {label}, {connections} connection{'s' * (connections > 1)}", "1.1", {
                    "diskferry": self._serve(self._export(socket, image, "raw", "--writable"), socket, settings, unit),
                    "nbdkit": self._serve(["nbdkit", "-f", "-U", socket, "file", image], socket, settings, unit),
                    "qemu-nbd": self._serve(self._qemu_nbd(socket, image, "raw"), socket, settings, unit)}, by_rate=True)

    def server_qcow2(self):
        image, socket = self.inputs.path("served.qcow2"), self.inputs.path("served.sock")
        if not os.path.exists(image):
            shutil.copyfile(self.inputs.flat_qcow2(), image)
        self.inputs.warm(image)
        for label, unit, work in self.WORKS:
            for connections in (1, 4):
                settings = {**work, "numjobs": connections}
                yield Case(f"server-qcow2-{work['rw']}-{connections}",
                           f"NBD server, qcow2, {label}, {connections} connection{'s' * (connections > 1)}", "2", {
                    "diskferry": self._serve(self._export(socket, image, "qcow2", "--writable"), socket, settings, unit),
                    "qemu-nbd": self._serve(self._qemu_nbd(socket, image, "qcow2"), socket, settings, unit)},
                    by_rate=True)

    def server_tls(self):
        """Whole-disk reads through TLS by nbdcopy, since fio's engine verifies certificates by host name only."""
        image, socket = self.inputs.path("served.raw"), self.inputs.path("served.sock")
        if not os.path.exists(image):
            shutil.copyfile(self.inputs.program_files(), image)
        self.inputs.warm(image)
        secrets = self.inputs.path("keys.psk")
        with open(secrets, "w", encoding="ascii") as keys:
            keys.write("bench:" + os.urandom(32).hex() + "\n")
        os.chmod(secrets, 0o600)
        uri = f"nbds+unix://bench@/?socket={socket}&tls-psk-file={secrets}"
        folder = self.inputs.path("psk")
        os.makedirs(folder, exist_ok=True)
        shutil.copyfile(secrets, os.path.join(folder, "keys.psk"))
        size = os.path.getsize(image)
        for connections in (1, 4):
            def read_all(arguments, connections=connections):
                def measured():
                    with run.server(arguments, socket) as process:
                        sample = run.command(["nbdcopy", f"--connections={connections}", "--request-size=262144", uri,
                                              "null:"])
                        return Sample(rate=size / sample.seconds, peak_kib=run.peak_kib(process.pid))
                return measured
            yield Case(f"server-tls-{connections}",
                       f"NBD server, TLS, sequential 256 KiB reads, {connections} connection{'s' * (connections > 1)}",
                       "1.2", {
                "diskferry": read_all(self._export(socket, image, "raw", "--tls", "require", "--tls-psk", secrets)),
                "nbdkit": read_all(["nbdkit", "-f", "-U", socket, "--tls=require", f"--tls-psk={secrets}", "file", image]),
                "qemu-nbd": read_all(["qemu-nbd", "-t", "-r", "-e", "16", "-k", socket, "-f", "raw", "--object",
                                      f"tls-creds-psk,id=t,endpoint=server,dir={folder}", "--tls-creds", "t", image])},
                by_rate=True)

    # -- emptiness ---------------------------------------------------------------------------------------------

    def _empty(self, kind):
        source, target = self.inputs.empty(kind), self.inputs.path("target." + kind)
        yield Case(f"empty-{kind}", f"empty 8 TiB {kind} image copied", "below 2 s", {
            "diskferry": self._ours(source, target, "-f", kind, "-O", kind),
            "qemu-img": self._qemu(source, target, kind, kind)})

    def empty_raw(self):
        yield from self._empty("raw")

    def empty_qcow2(self):
        yield from self._empty("qcow2")
