"""Compiles each header alone (syntax only): a header that needs another one in front of it is a trap."""

import concurrent.futures
import os
import pathlib
import subprocess
import sys

import compile_commands

ROOT = compile_commands.ROOT


def arguments_for(header, commands):
    """Those of a source in the same folder, else of any: include paths and definitions are the same for a room."""
    folder = str(pathlib.PurePosixPath(header).parent)
    for name, arguments in commands.items():
        if str(pathlib.PurePosixPath(name).parent) == folder:
            return arguments
    return next(iter(commands.values()))


def compile_alone(header, arguments):
    run = subprocess.run(
        [*arguments, "-fsyntax-only", "-x", "c++", "-"], input=f'#include "{header}"\n',
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    return header, run.returncode, run.stderr


def main():
    commands = compile_commands.entries(sys.argv[1])
    if not commands:
        print("compile_commands.json names none of our files")
        return 1
    listed = subprocess.run(["git", "ls-files", "*.hpp"], cwd=ROOT, capture_output=True, text=True, check=True)
    headers = [name for name in listed.stdout.split() if not name.endswith("_impl.hpp")]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(compile_alone, header, arguments_for(header, commands)) for header in headers]
        for job in jobs:
            header, code, text = job.result()
            if code != 0:
                failed += 1
                print(f"{header} does not compile alone:\n{text[:2000]}")
    print(f"{len(headers)} headers, {failed} do not compile alone")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
