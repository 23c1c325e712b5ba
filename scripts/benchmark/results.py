"""Figures of runs that take hours, kept as soon as they are known."""
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib


class Results:
    """One line of JSON a run: what was interrupted goes on where it was. `setting`: what has to be the same of two runs to be in one table;
    `build` tells one build of `ours` from another, and figures of two are not mixed. `make` has figures made of their fields."""

    def __init__(self, path, setting, ours, build, make):
        self.path, self.setting, self.ours, self.build, self._make = path, setting, ours, build, make
        self.known = {}  # (row's name, contender): [figures]
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                for line in file:
                    self._take(json.loads(line))

    def _take(self, entry):
        if entry["setting"] == self.setting and (entry["contender"] != self.ours or entry["build"] == self.build):
            self.known.setdefault((entry["row"], entry["contender"]), []).append(self._make(**entry["figures"]))

    def add(self, row_name, contender, figures):
        entry = {"row": row_name, "contender": contender, "date": datetime.date.today().isoformat(), "setting": self.setting,
                 "build": self.build, "figures": dataclasses.asdict(figures)}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._take(entry)

    def of(self, row_name, contender):
        return self.known.get((row_name, contender), [])


def build_of(programs):
    """Tells this build of ours from others."""
    digest = hashlib.sha256()
    for program in ("diskferry", "diskferryd"):
        digest.update(pathlib.Path(programs, program).read_bytes())
    return digest.hexdigest()[:16]
