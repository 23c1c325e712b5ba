"""Reads compile_commands.json; shared by the checks that run the compiler."""

import json
import os
import pathlib
import shlex

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCHERS = ("ccache",)


def entries(build):
    """Our own files: {path relative to the root: arguments of the compiler, without launcher, input and output}."""
    found = {}
    for entry in json.loads((pathlib.Path(build) / "compile_commands.json").read_text()):
        path = pathlib.Path(os.path.join(entry["directory"], entry["file"])).resolve()
        if not path.is_relative_to(ROOT) or path.is_relative_to(ROOT / "build"):
            continue
        words = shlex.split(entry["command"])
        while os.path.basename(words[0]) in LAUNCHERS:
            words.pop(0)
        arguments = []
        skip = False
        for word in words:
            if skip:
                skip = False
            elif word in ("-o", "-c"):
                skip = word == "-o"
            elif not (word.endswith(".cpp") or word.endswith(".c")):
                arguments.append(word)
        found[str(path.relative_to(ROOT))] = arguments
    return found
