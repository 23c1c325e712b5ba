"""Rows of their own: the pause of eight disks, what is dirty over a long way, an empty disk of 8 TiB."""
import dataclasses
import time

import console
from processes import wait_until
from report import Failed

NAMES = ("disks", "delta", "empty")
DISKS = 8
DELTA_WRITES = 4000
DELTA_DELAY_MS = 5  # each way
EMPTY_BYTES = 8 << 40
SETTLE_SECONDS = 0.3


@dataclasses.dataclass
class Special:
    """`outcome`: "done", "never" or what went wrong. `seconds` of one that is timed; of several changes of places of eight disks at once, in ms:
    as diskferry measured it (none: nobody did), and the longest time in which the guest had no write acknowledged."""

    outcome: str = "done"
    seconds: float = 0.0
    held_ms: list = dataclasses.field(default_factory=list)
    gaps_ms: list = dataclasses.field(default_factory=list)


def pauses(measure, name, times):
    """Eight disks, each of which changes places `times` times at the same moment as the others, between files."""
    found = Special()
    with measure.scene(name, {"rate": 400, "sync": 0}, "file", disks=DISKS) as (contender, machine, target):
        for number in range(times):
            names = [f"d{disk}-{number}" for disk in range(DISKS)]
            for one in names:
                target.make(one)
            contender.begin(machine, target, names)
            wait_until(contender.is_ready, "the disks being in step", measure.limit)
            machine.watch(SETTLE_SECONDS)
            began = time.monotonic()
            _, held = contender.switch()
            machine.watch(SETTLE_SECONDS)
            found.gaps_ms.append(console.longest_gap_ms(machine.console.acks, began, time.monotonic()))
            if held is not None:
                found.held_ms.append(held * 1000)
            if number > 0:
                for disk in range(DISKS):
                    target.content(f"d{disk}-{number - 1}").unlink()
    return found


def delta(measure, name):
    """Seconds until what a guest has written while nothing followed is copied and places are changed, over 10 ms of round trip."""
    with measure.scene(name, {"rate": 0, "sync": 0}, "nbd") as (contender, machine, target):
        target.make("t1")
        machine.monitor.command("stop")
        contender.begin(machine, target, ["t1"])
        wait_until(contender.is_ready, "the disks being in step", measure.limit)
        contender.pause()
        machine.monitor.command("cont")
        machine.wait_writing(DELTA_WRITES)
        machine.monitor.command("stop")
        measure.bed.link(delay_ms=DELTA_DELAY_MS, is_fast=True)
        began = time.monotonic()
        contender.catch_up()
        seconds = time.monotonic() - began
        measure.bed.link()
        return seconds


def empty(measure, name):
    """Seconds until an empty disk of 8 TiB is in step."""
    whole, data = measure.size, measure.data
    measure.size, measure.data = EMPTY_BYTES, 0
    try:
        with measure.scene(name, {"mode": "idle", "blocks": 1024}, "file") as (contender, machine, target):
            target.make("t1")
            began = time.monotonic()
            contender.begin(machine, target, ["t1"])
            wait_until(contender.is_ready, "the disk being in step", measure.limit)
            return time.monotonic() - began
    finally:
        measure.size, measure.data = whole, data


def run(what, measure, name, switches):
    """Special; raises nothing of Failed, since the next is to have its turn."""
    try:
        if what == "disks":
            return pauses(measure, name, switches)
        return Special(seconds={"delta": delta, "empty": empty}[what](measure, name))
    except Failed as failure:
        told = str(failure).strip().splitlines()[0][:160]
        return Special("never" if "not after" in told else f"failed: {told}")
