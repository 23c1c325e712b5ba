"""Rows of their own: the pause of eight disks, what is dirty over a long way, an empty disk of 8 TiB."""
import dataclasses
import statistics
import time

import console
from measure import pause_of
from processes import wait_until
from report import Failed

DISKS = 8
DELTA_WRITES = 4000
DELTA_DELAY_MS = 5  # each way
EMPTY_BYTES = 8 << 40
SETTLE_SECONDS = 0.3


@dataclasses.dataclass
class Pauses:
    """Of several changes of places of eight disks at once, in ms: as diskferry measured it (None: nobody did), and the longest time in which
    the guest had no write acknowledged."""

    held: list
    gaps: list

    def words(self):
        def told(values):
            if not values:
                return "-"
            middle, late, worst = pause_of(values)
            return f"{middle:.1f} / {late:.1f} / {worst:.1f} ms"

        return f"held {told(self.held)}, without a write {told(self.gaps)}"


def pauses(measure, name, times):
    """Eight disks, each of which changes places `times` times at the same moment as the others, between files."""
    found = Pauses([], [])
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
            found.gaps.append(console.longest_gap_ms(machine.console.acks, began, time.monotonic()))
            if held is not None:
                found.held.append(held * 1000)
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


def seconds_of(function, measure, name, times):
    """Median and spread in words."""
    found = []
    for _ in range(times):
        try:
            found.append(function(measure, name))
        except Failed as failure:
            if "not after" not in str(failure):
                return f"failed: {str(failure).splitlines()[0][:120]}", found
            return f"never ({measure.limit} s)", found
    return f"{statistics.median(found):.2f} s ({min(found):.2f}-{max(found):.2f})", found


