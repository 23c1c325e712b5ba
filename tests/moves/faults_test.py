#!/usr/bin/env python3
"""Something fails during a move: afterwards one guest runs, it has every write, nothing is left, and a second attempt succeeds.

    faults_test.py PROGRAMS CACHE [--results FILE] CASE...|all      no CASE: the names of all

With --results each case's outcome is appended to FILE, one JSON object a line, and a failure does not end the run;
fault_table.py makes a page of them.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TESTBED = HERE.parents[1] / "scripts" / "testbed"
sys.path[:0] = [str(HERE), str(TESTBED / "hosts"), str(TESTBED)]

import faults  # noqa: E402
import place as places  # noqa: E402
from place import IMAGES, Place, expect  # noqa: E402
from processes import wait_until  # noqa: E402
from report import Failed, say  # noqa: E402

# 15 MiB of data and a window of 1 MiB: at this rate the bulk takes some seconds, and the memory half a minute.
SLOW_MBIT = 20
# Of memory as much as over a faster link, so that it does not take more rounds (scripts/testbed/hosts/README.md).
SLOW_PAUSE = ("--max-pause", "2500")
BASE_MIB = 12
WINDOW = 'window = "1M"\n'
# From the event to the end of the job, whatever happened.
END_SECONDS = 200
PHASE_SECONDS = 150
# Emulated guests lose memory in a migration now and then (scripts/testbed/hosts/README.md): their kernel panics, or they have
# forgotten some of what they acknowledged while the disk has all of it. How often a case is tried at most.
ATTEMPTS_MAX = 3


ERROR_FILTER = {"filters": ("error",), "more": ("error=EIO", "error-rate=100%", f"error-file={places.STORE_FAILS}")}
SECOND_MIB = 64


def targets_of(place, case):
    """What becomes of each disk: {name: (URI, image, format)}."""
    if case.target == "small":
        place.small()
        return {"vda": (f"{places.SMALL}/new.raw",) * 2 + ("raw",)}
    if case.target == "store":
        return {"vda": (*place.store(place.bed.b, "store", **ERROR_FILTER), "raw")}
    if case.target == "slow-store":
        return {"vda": (*place.store(place.bed.b, "store", filters=("delay",), more=("wdelay=300ms",)), "raw")}
    if case.target in ("two", "two-store"):
        second = (f"{IMAGES}/second.raw",) * 2
        if case.target == "two-store":
            second = place.store(place.bed.b, "store", mib=SECOND_MIB, **ERROR_FILTER)
        return {"vda": (f"{IMAGES}/new.raw",) * 2 + ("raw",), "vdb": (*second, "raw")}
    return {"vda": (f"{IMAGES}/new.{case.target}",) * 2 + (case.target,)}


def lost_nothing(said):
    """Whether the checker, which is not content, found every write on the disk and the guest no fault with it."""
    return "lost=0 torn=0 wrong=0 future=0 changed=0" in said and "bad=0 failed=0" in said


def check_all(place, images, host, twice=False):
    """Every write to every disk. `images`: {disk: (image, format)}."""
    if place.vm.state(host) == "running":
        place.vm.stop(host)
    for name, (image, image_format) in images.items():
        try:
            place.check(image, image_format, host, name)
        except Failed as failure:
            if not twice or not lost_nothing(str(failure)):
                raise
            say(f"{name}: all there, some of it acknowledged twice")


def begin(place, case, disks):
    """Begins the move, slowly, and returns its job once the case's phase is reached."""
    place.bed.link(mbit=None if case.delay_ms else SLOW_MBIT, delay_ms=case.delay_ms)
    if case.attached:
        command = place.gateways.begin(place.vm, disks, options=SLOW_PAUSE)
        name = wait_until(lambda: next((job["id"] for job in place.gateways.jobs(place.bed.a)), None), "a job", 60)
        job = place.follow(name)
        job.command = command
    else:
        job = place.begin(disks, options=SLOW_PAUSE)
    job.wait_phase(case.phase, PHASE_SECONDS)
    return job


def judge(place, case, ended, outcome):
    """What must hold: the guest is where it must be, nothing is left, the cause is named."""
    is_gone = case.where == faults.GONE
    if case.where == faults.ANY:
        is_gone = wait_until(place.ending, "an end", places.SETTLE_SECONDS) == "nowhere"
    if is_gone:
        wait_until(lambda: not set(place.states().values()) & {"running", "paused"}, "the end of the guest", 60)
        outcome["where"] = "nowhere"
    else:
        host = place.where()
        outcome["where"] = host.name
        place.vm.wait_writing(100)
        expect(case.where in (faults.EITHER, faults.ANY, host.short), f"the guest runs on {host}")
        expect((ended["status"] == "done") == (host is place.bed.b),
               f"the guest runs on {host}, and the move says {ended['status']}: {ended.get('error')}")
    expect(not case.status or ended["status"] in case.status, f"the move is {ended['status']}: {ended.get('error')}")
    expect(case.error in (ended.get("error") or ""), f"the cause '{case.error}' is not named: {ended.get('error')}")


def leftovers(place):
    try:
        place.expect_nothing_left()
        return []
    except Failed:
        return place.left()


def finish(place, case, sources, targets, outcome):
    """A second attempt where the first was undone; then every write must be there."""
    at_source = {name: (image, "qcow2") for name, image in sources.items()}
    at_target = {name: (image, image_format) for name, (_, image, image_format) in targets.items()}
    if outcome["where"] == "nowhere":
        # A guest that was ended has its disks: on the source, as they were; or where it had gone over, there.
        has_moved = outcome["status"] == "done"
        check_all(place, at_target if has_moved else at_source, place.bed.b if has_moved else place.bed.a)
        return
    if outcome["where"] == place.bed.a.name:
        try:
            place.begin({name: uri for name, (uri, _, _) in targets.items()}).wait_end(status="done")
            place.expect_on(place.bed.b)
            outcome["second"] = "done"
        except places.Panicked:
            raise
        except Failed as failure:
            outcome["second"] = str(failure)
            check_all(place, at_source, place.where())
            raise Failed(f"the second attempt: {failure}") from None
    check_all(place, at_target, place.bed.b, case.twice)


def run(place, case, outcome):
    targets = targets_of(place, case)
    sources = {"vda": place.chain(data_mib=BASE_MIB)}
    if "vdb" in targets:
        sources["vdb"] = place.chain("g2", mib=SECOND_MIB)
    place.guest(*sources.values(), rate=60)
    say("the guest writes")
    job = begin(place, case, {name: uri for name, (uri, _, _) in targets.items()})
    say(f"{case.phase}: now {case.event.__name__}")
    began = time.monotonic()
    case.event(place, job)
    place.bed.link()
    ended = job.wait_end(END_SECONDS)
    outcome.update(seconds=round(time.monotonic() - began, 1), status=ended["status"], phase=ended["phase"],
                   error=ended.get("error") or "", reached=job.phases()[-1:])
    say(f"{ended['status']} in phase {ended['phase']} after {outcome['seconds']} s: {outcome['error']}")
    judge(place, case, ended, outcome)
    if case.heal:
        case.heal(place)
    outcome["left"] = leftovers(place)
    finish(place, case, sources, targets, outcome)
    expect(not outcome["left"], "left over: " + ", ".join(outcome["left"]))


def is_of_the_emulator(problem):
    """Whether the guest lost memory, and no disk anything."""
    return "panic" in problem or lost_nothing(problem)


def attempt(programs, cache, case):
    """One case, again where its guest lost memory; returns what happened."""
    for _ in range(ATTEMPTS_MAX):
        outcome = attempt_once(programs, cache, case)
        problem = outcome.get("problem", "")
        if not is_of_the_emulator(problem):
            break
        say(f"{case.name}: {problem}: once more")
    return outcome


def attempt_once(programs, cache, case):
    """One case from nothing to nothing; returns what happened."""
    outcome = {"case": case.name, "event": case.event.__name__, "at": case.phase, "target": case.target,
               "expected": case.where}
    try:
        more = "" if case.delay_ms else WINDOW
        with Place(programs, cache, keep=f"{cache}/kept/{case.name}", more=more) as place:
            run(place, case, outcome)
    except (Failed, OSError, subprocess.SubprocessError) as failure:
        outcome["problem"] = str(failure)
    return outcome


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("programs")
    parser.add_argument("cache")
    parser.add_argument("--results")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    return parser.parse_intermixed_args()


def main():
    given = arguments()
    if not given.cases:
        print("\n".join(faults.BY_NAME))
    names = list(faults.BY_NAME) if given.cases == ["all"] else given.cases
    problems = []
    for name in names:
        say(f"{name}: begins")
        outcome = attempt(given.programs, given.cache, faults.BY_NAME[name])
        say(f"{name}: {'FAILED: ' + outcome['problem'] if 'problem' in outcome else 'passed'}")
        if given.results:
            with open(given.results, "a", encoding="utf-8") as results:
                results.write(json.dumps(outcome) + "\n")
        if "problem" in outcome:
            problems.append(name)
    if problems:
        print(f"FAILED: {', '.join(problems)}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
