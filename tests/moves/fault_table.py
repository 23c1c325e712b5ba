#!/usr/bin/env python3
"""Makes the page of what happened from the results of faults_test.py.

    fault_table.py RESULTS >docs/move-faults.md

Of a case with several results the last counts. Cases without one are listed as not run.
"""

import json
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
TESTBED = HERE.parents[1] / "scripts" / "testbed"
sys.path[:0] = [str(HERE), str(TESTBED / "hosts"), str(TESTBED)]

import faults  # noqa: E402

HEAD = """# What happens to a move when something fails

Each row is a case of `tests/moves/faults.py` as it went on two hosts of `scripts/testbed/hosts`: a guest that writes, a move
slowed to 20 Mbit/s, the event in that phase, the link fast again. *Guest* is where it ran afterwards (host-a is the source),
*job* how the move ended, *s* the seconds from the event to that end, *again* what a second attempt did. Every row but those
marked **failed** also means: one guest ran and went on to write, every write it was told of was there, and no socket, record or
export was left. *Not run* is a case of the table without a result: nothing is known of it. A row keeps its result until the case runs again, so its
words can be those of an earlier build. *cut at resume* meets the answer on its way in some runs only: it says nothing of the others.
`scripts/test --full` makes the results, `tests/moves/fault_table.py` this page.
"""
TEXT_MAX = 230


def cell(text):
    """A text that stays in its cell: one line, no names that differ between two runs."""
    text = re.sub(r"m-[0-9a-z]{6,}", "JOB", " ".join(str(text).split()))
    text = text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + " ..."
    return text.replace("|", "\\|")


def row(case, outcome):
    event = case.event.__name__.replace("_", " ")
    start = f"| {event} | {case.phase} | {case.target} "
    if outcome is None:
        return start + "| | not run | | | |"
    said = outcome.get("error") or ""
    if "problem" in outcome:
        said = f"**failed**: {outcome['problem']}" + (f" (job: {said})" if said and said not in outcome["problem"] else "")
    return start + (f"| {outcome.get('where', '?')} | {outcome.get('status', '?')} | {outcome.get('seconds', '')} "
                    f"| {cell(outcome.get('second', ''))} | {cell(said)} |")


def main():
    results = {}
    for line in pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
        outcome = json.loads(line)
        results[outcome["case"]] = outcome
    print(HEAD)
    print("| event | phase | target | guest | job | s | again | what it says |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for case in faults.CASES:
        print(row(case, results.get(case.name)))


if __name__ == "__main__":
    main()
