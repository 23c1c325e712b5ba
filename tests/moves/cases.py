"""The command line that the files of cases have in common:

    X_test.py PROGRAMS CACHE [CASE...]        no CASE: the names of all
"""

import sys

from place import Place
from report import Failed, say


def place_for(_case, *words, **options):
    """Where most cases happen."""
    return Place(*words, **options)


def run_cases(kind, functions, make_place=place_for):
    """Runs the cases that are asked for, each in a place of its own, and ends the program when one fails. `kind` is what the
    folder of a failed case's logs begins with; `make_place` gets the name of the case, and what Place takes."""
    cases = {function.__name__.replace("_", "-"): function for function in functions}
    programs, cache, *names = sys.argv[1:]
    if not names:
        print("\n".join(cases))
    try:
        for name in names:
            with make_place(name, programs, cache, keep=f"{cache}/kept/{kind}-{name}") as place:
                say(f"{name}: the hosts are up")
                cases[name](place)
                say(f"{name}: passed")
    except Failed as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        sys.exit(1)
