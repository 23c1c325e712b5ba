"""Builds what a test guest boots (Debian's kernel, an initramfs with the writer) and the checker, into a cache folder.

Built again when a source changes. Several tests may ask for one cache at once: one builds, the others wait.
"""

import contextlib
import dataclasses
import fcntl
import gzip
import hashlib
import pathlib
import shutil
import subprocess
import tempfile

from guest_disk import fetch_kernel, module_files
from processes import run

SOURCES = pathlib.Path(__file__).resolve().parent / "guest"


@dataclasses.dataclass(frozen=True)
class GuestImage:
    kernel: pathlib.Path
    initrd: pathlib.Path
    check: pathlib.Path


@contextlib.contextmanager
def _locked(cache):
    with open(cache / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _stamp(*files, also=""):
    digest = hashlib.sha256(also.encode())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _compile(source, into):
    run("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread", "-o", into, source)


def _built(cache, name, stamp, build):
    """The file cache/NAME-STAMP, made by `build(path)` unless it is there."""
    path = cache / f"{name}-{stamp}"
    if not path.exists():
        for old in cache.glob(f"{name}-*"):
            old.unlink()
        unfinished = cache / f"{name}.unfinished"
        build(unfinished)
        unfinished.rename(path)
    return path


def build_check(cache):
    """The checker alone, which needs no kernel. Returns its path."""
    cache = pathlib.Path(cache).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    stamp = _stamp(SOURCES / "check.c", SOURCES / "pattern.h")
    with _locked(cache):
        return _built(cache, "check", stamp, lambda path: _compile(SOURCES / "check.c", path))


def _write_initrd(modules, into):
    with tempfile.TemporaryDirectory(dir=into.parent) as folder:
        tree = pathlib.Path(folder)
        for name in ("bin", "dev", "proc", "modules"):
            (tree / name).mkdir()
        shutil.copy("/bin/busybox", tree / "bin/busybox")
        shutil.copy(SOURCES / "init.sh", tree / "init")
        (tree / "init").chmod(0o755)
        _compile(SOURCES / "writer.c", tree / "writer")
        for number, (name, content) in enumerate(module_files(modules)):
            (tree / "modules" / f"{number}-{name}").write_bytes(content)
        names = "\n".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
        archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], cwd=tree, input=names.encode(),
                                 capture_output=True, check=True).stdout
        with gzip.open(into, "wb", compresslevel=6) as out:
            out.write(archive)


def build(cache):
    """Returns the GuestImage in `cache`, after building what is not there yet (the first time, it downloads the kernel)."""
    cache = pathlib.Path(cache).resolve()
    check = build_check(cache)
    with _locked(cache):
        kernel, modules = fetch_kernel(str(cache / "kernel"))
        kernel = pathlib.Path(kernel)
        stamp = _stamp(SOURCES / "writer.c", SOURCES / "pattern.h", SOURCES / "init.sh", pathlib.Path(__file__),
                       also=kernel.name)
        initrd = _built(cache, "initrd", stamp, lambda path: _write_initrd(modules, path))
        return GuestImage(kernel, initrd, check)
