"""Programs that load librbd share no symbol of Boost with it: exports_test.py PROGRAM...

librbd, librados and libceph-common export the Boost.Asio that they were built with. A symbol of ours with the same name in the
program's dynamic table would be what the loader binds theirs to, with other structures behind it.
"""

import subprocess
import sys


def _lines(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def _problem(program):
    if not any("librbd" in line for line in _lines("ldd", program)):
        return "does not load librbd, so that there is nothing to test"
    shared = [line.split()[-1] for line in _lines("nm", "--dynamic", program) if "5boost4asio" in line]
    return f"{len(shared)} symbols of Boost.Asio in its dynamic table, the first is {shared[0]}" if shared else None


def main(programs):
    problems = {program: problem for program in programs if (problem := _problem(program))}
    for program, problem in problems.items():
        print(f"{program}: {problem}")
    return 1 if problems or not programs else 0


sys.exit(main(sys.argv[1:]))
