#!/usr/bin/env python3
"""The model of the commit protocol (docs/model) under spin: every proof holds, and every deliberate break is found.

    model_test.py CASE...        "proofs", "breaks", or names of either; `--keep FOLDER` leaves counterexamples there

A proof is an exhaustive search within bounds. A break is a macro that makes the model do what the code must not: a search that does not
find it is a proof that could not have failed.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

MODEL = pathlib.Path(__file__).resolve().parents[2] / "docs" / "model" / "replace.pml"
SEARCH = ("-w", "-DSAFETY", "-DNOREDUCE", "-DNOFAIR", "-DVECTORSZ=2048", "-DMEMLIM=3500")
DEPTH_MAX = 20_000
SECONDS_MAX = 300

NOTHING = {"KILLS": 0, "STORE_FAILS": 0}

# What may happen, how often. The rest of docs/model/replace_bounds.pml is 0.
PROOFS = {
    "kills": {"KILLS": 2, "STORE_FAILS": 1},
    "machine": {"KILLS": 0, "CRASHES": 1, "STORE_FAILS": 1},
    "take_up": {"KILLS": 2, "STORE_FAILS": 0, "BEGIN_FAILS": 1},
    "targets": {"KILLS": 1, "STORE_FAILS": 0, "LOSSES": 1},
    "configuration": {"KILLS": 2, "STORE_FAILS": 0, "EDITS": 1},
    "machine_and_kill": {"DISKS": 1, "KILLS": 1, "CRASHES": 1, "STORE_FAILS": 1},
    "one_disk": {"DISKS": 1, "WRITES": 2, "KILLS": 1, "STORE_FAILS": 1, "BEGIN_FAILS": 1, "LOSSES": 1, "TIMEOUTS": 1},
}

# Each with the bounds within which it has to be found.
BREAKS = {
    # The commit record
    "LETS_GO_UNSURE": {"STORE_FAILS": 1},
    "NEVER_WRITES_AGAIN": {"STORE_FAILS": 1},
    "SETTLES_WHAT_IS_WRITTEN": {"STORE_FAILS": 1},
    "SETTLING_WRITES_NOTHING": {"STORE_FAILS": 1},
    "FOUND_IS_NOT_DURABLE": {"STORE_FAILS": 1, "KILLS": 1, "CRASHES": 1},
    "COMMITS_BEFORE_FLUSH": {"KILLS": 1},
    "FALLBACK_WITHOUT_RECORD": {},
    "UNDOES_COMMITTED": {"KILLS": 1},
    "CONFIGURED_OF_BEGIN": {"KILLS": 2, "EDITS": 1},
    # Holding and switching
    "HOLD_WAITS_FOR_NOBODY": {},
    "LETS_GO_ONE_BY_ONE": {},
    # The map
    "MAP_AFTER_PUT": {"KILLS": 1, "DISKS": 1},
    "TAKE_UP_STOPS": {"KILLS": 2, "BEGIN_FAILS": 1},
    "LOAD_LEAVES_MAPS": {"KILLS": 2, "STORE_FAILS": 1, "DISKS": 1},
    "LATE_BELIEVES": {"KILLS": 1, "BEGIN_FAILS": 1},
    "PUT_WAITS_FOR_NOBODY": {"KILLS": 1, "BEGIN_FAILS": 1},
    "SERVES_BEFORE_TAKE_UP": {"KILLS": 1, "DISKS": 1},
    "MAP_OUTLIVES_MACHINE": {"CRASHES": 1, "DISKS": 1, "WRITES": 2},
    # The mirror
    "NOTED_AFTER_WRITE": {"KILLS": 1, "DISKS": 1},
    "NOT_OVERTAKEN": {"DISKS": 1},
    "SETTLES_IN_FLIGHT": {"KILLS": 1, "DISKS": 1, "WRITES": 2},
    "DETACH_FORGETS": {"LOSSES": 1, "DISKS": 1},
    # The end
    "REMOVES_BEFORE_END": {},
}


def run(words, folder):
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX)
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]} failed: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def search(folder, macros, is_long):
    """What pan found (None: nothing), and what it said."""
    defines = [f"-D{name}={value}" for name, value in macros.items()]
    run(["spin", "-a", *defines, str(MODEL)], folder)
    # Compiling takes as long as a search that ends early.
    run(["gcc", "-O1" if is_long else "-O0", *SEARCH, "-o", "pan", "pan.c"], folder)
    said = run(["./pan", f"-m{DEPTH_MAX}", "-w24"], folder)
    found = re.search(r"errors: (\d+)", said)
    states = re.search(r"(\d+) states, stored", said)
    if not found or not states:
        raise RuntimeError(f"pan was not understood: {said[-2000:]}")
    if "max search depth too small" in said or "out of memory" in said or "Search not completed" in said and found[1] == "0":
        raise RuntimeError(f"the search was cut short: {said[-2000:]}")
    why = re.search(r"^pan:1: (.*)$", said, re.M)
    return (why[1] if why else "an error") if found[1] != "0" else None, int(states[1])


def keep_counterexample(folder, macros, kept):
    defines = [f"-D{name}={value}" for name, value in macros.items()]
    trail = run(["spin", "-k", "replace.pml.trail", "-p", "-g", *defines, str(MODEL)], folder)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(trail)


def check(name, keep):
    is_proof = name in PROOFS
    macros = PROOFS[name] if is_proof else {**NOTHING, **BREAKS[name], f"BREAK_{name}": 1}
    with tempfile.TemporaryDirectory(prefix="model") as folder:
        found, states = search(folder, macros, is_long=is_proof)
        if found and keep:
            keep_counterexample(folder, macros, pathlib.Path(keep) / f"{name}.txt")
    is_right = (found is None) == is_proof
    told = f"found: {found}" if found else "nothing found"
    print(f"{'ok  ' if is_right else 'FAIL'} {name}: {states} states, {told}", flush=True)
    return is_right


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--keep")
    asked = parser.parse_args()
    names = []
    for case in asked.cases:
        names += {"proofs": PROOFS, "breaks": BREAKS}.get(case, [case])
    # A proof takes up to half a gigabyte.
    with concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        results = list(pool.map(lambda name: check(name, asked.keep), names))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
