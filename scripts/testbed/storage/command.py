"""The front ends scripts/testbed/{ceph,iscsi,nfs,gluster}: what an operator or a shell script does with a server.

    start DIR [--OPTION VALUE]...   starts what does not run; returns when real I/O works
    stop | destroy DIR              ends it and keeps the data | and removes everything
    status DIR                      exit 3 when a program does not run
    env DIR                         shell variables
    kill9 | hang | cont DIR [PROGRAM...]
    hold DIR [--OPTION VALUE]...    start and env, then READY; destroys it when stdin ends, or whoever holds it is killed
"""

import argparse
import pathlib
import shlex
import sys
import time

from report import Failed


def _converter(default):
    """How a word of the command line becomes the value of an option with this default."""
    if isinstance(default, bool):
        return lambda word: {"yes": True, "no": False}[word]
    if isinstance(default, (int, float)):
        return type(default)
    return str


def _arguments(kind):
    parser = argparse.ArgumentParser(prog=kind.KIND, description=kind.__doc__.split("\n", maxsplit=1)[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("start", help="starts what does not run; returns when real I/O works")
    hold = verbs.add_parser("hold", help="the same, for as long as stdin is open")
    for name, (default, what) in kind.OPTIONS.items():
        word = "yes|no" if isinstance(default, bool) else name.upper()
        convert = pathlib.Path if what.startswith("folder") else _converter(default)
        for verb in (start, hold):
            verb.add_argument(f"--{name.replace('_', '-')}", dest=name, type=convert, metavar=word,
                              default=argparse.SUPPRESS, help=f"{what} (default: {default})")
    for verb, what in (("stop", "ends it, the data stay"), ("destroy", "ends it and removes everything"),
                       ("status", "which programs run; exit 3 when one does not"), ("env", "prints shell variables")):
        verbs.add_parser(verb, help=what)
    for verb, what in (("kill9", "as a crash would"), ("hang", "nobody answers any more"), ("cont", "ends a hang")):
        verbs.add_parser(verb, help=what)
    for verb, one in verbs.choices.items():
        one.add_argument("folder", metavar="DIR")
        if verb in ("kill9", "hang", "cont"):
            one.add_argument("programs", metavar="PROGRAM", nargs="*", help=f"some of {' '.join(kind.DAEMONS)} (default: all)")
    return vars(parser.parse_args())


def _status(server):
    for name in server.daemon_names():
        daemon = server.daemons[name]
        state = "hangs" if daemon.is_hung() else "up"
        print(f"{name} {state} pid {daemon.pid}, {daemon.memory_kib() / 1024:.0f} MiB" if daemon.is_alive() else f"{name} down")
    return 0 if server.is_alive() else 3


def _print_variables(server):
    for name, value in server.variables().items():
        print(f"{name}={shlex.quote(str(value))}")


def _hold(server):
    with server:
        _print_variables(server)
        print("READY", flush=True)
        sys.stdin.read()


def main(kind):
    given = _arguments(kind)
    verb, folder = given.pop("verb"), given.pop("folder")
    programs = given.pop("programs", [])
    try:
        server = kind(folder, **given)
        if unknown := set(programs) - set(kind.DAEMONS):
            raise Failed(f"{kind.KIND} has no program {', '.join(sorted(unknown))}, but {', '.join(kind.DAEMONS)}")
        if verb == "start":
            began = time.monotonic()
            server.start()
            print(f"{kind.KIND}: up after {(time.monotonic() - began) * 1000:.0f} ms")
        elif verb == "status":
            return _status(server)
        elif verb == "hold":
            _hold(server)
        elif verb == "env":
            _print_variables(server)
        else:
            getattr(server, verb)(*programs)
    except Failed as failure:
        print(f"{kind.KIND}: {failure}", file=sys.stderr)
        return 1
    return 0
