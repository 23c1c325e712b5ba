"""Runs clang-tidy over our sources: changed ones first, within a time bound, and not again over what was clean.

Usage: tidy.py BUILD SECONDS (0: no bound). A file is remembered as clean under the hash of its content, of our
headers it includes, of its command and of .clang-tidy. What the time bound left out is said, and is no failure.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import subprocess
import sys
import time

import compile_commands

ROOT = compile_commands.ROOT
TIDY = "clang-tidy-19"


def included_files(build):
    """{source: our headers it includes}, as ninja recorded them while building; empty for what is not built."""
    run = subprocess.run(["ninja", "-C", build, "-t", "deps"], capture_output=True, text=True, check=False)
    found = {}
    files = []
    for line in run.stdout.splitlines():
        if line.startswith(" "):
            path = os.path.realpath(os.path.join(build, line.strip()))
            if path.startswith(str(ROOT) + os.sep):
                files.append(os.path.relpath(path, ROOT))
        else:
            files = []
            found[line] = files
    return {names[0]: names for names in found.values() if names}


def key_of(name, arguments, includes):
    digest = hashlib.sha256((ROOT / ".clang-tidy").read_bytes())
    digest.update("\0".join(arguments).replace(str(ROOT), "").encode())
    for file in sorted(set([name, *includes.get(name, [])])):
        path = ROOT / file
        digest.update(file.encode() + b"\0")
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def changed_files():
    """What differs from the last commit but one: what is being worked on comes first."""
    run = subprocess.run(["git", "diff", "--name-only", "HEAD~1"], cwd=ROOT, capture_output=True, text=True, check=False)
    return set(run.stdout.split())


def tidy(name, build, deadline):
    if deadline is not None and time.monotonic() > deadline:
        return name, None, ""
    run = subprocess.run([TIDY, "-p", build, "--quiet", name], cwd=ROOT, capture_output=True, text=True,
                         stdin=subprocess.DEVNULL, check=False)
    return name, run.returncode, run.stdout


def main():
    build, seconds = sys.argv[1], int(sys.argv[2])
    deadline = time.monotonic() + seconds if seconds else None
    cache = pathlib.Path(os.environ.get("CCACHE_DIR", ROOT / "build")) / "clang-tidy-clean"
    cache.mkdir(parents=True, exist_ok=True)
    commands = compile_commands.entries(build)
    includes = included_files(build)
    keys = {name: key_of(name, arguments, includes) for name, arguments in commands.items()}
    todo = [name for name in commands if not (cache / keys[name]).exists()]
    changed = changed_files()
    # Changed files first, then the product before the tests.
    todo.sort(key=lambda name: (name not in changed, name.startswith("tests/"), name))
    failed = 0
    left = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for job in [pool.submit(tidy, name, build, deadline) for name in todo]:
            name, code, text = job.result()
            if code is None:
                left.append(name)
            elif code == 0:
                (cache / keys[name]).touch()
            else:
                failed += 1
                print(f"{name}:\n{text.strip()}\n")
    print(f"{len(commands)} files: {len(commands) - len(todo)} known to be clean, "
          f"{len(todo) - len(left)} looked at, {failed} with findings, {len(left)} left out by the time bound")
    if left:
        print("left out: " + " ".join(left))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
