"""One replacement of the storage under one guest by one contender: prepared, measured, checked, cleaned up after."""
import contextlib
import dataclasses
import os
import statistics
import time

import console
from contenders import make_contender
from machine import Machine
from processes import wait_until
from report import Failed
from targets import make_target

BEFORE_SECONDS = 8  # how long the guest is watched before anything happens
AFTER_SECONDS = 1
PIECE = 1 << 20


@dataclasses.dataclass
class Figures:
    """What one replacement came to. `outcome` is "replaced", "never" (given up after the limit) or what went wrong. Times of writes are the
    guest's own. `rewritten`: bytes the guest wrote while the disk was moved; `wire`: what host a sent, with all headers."""

    outcome: str
    ready_s: float = 0.0
    switch_ms: float = 0.0
    held_ms: float | None = None
    gap_ms: float = 0.0
    rate_before: float = 0.0
    rate_during: float = 0.0
    p50_before_ms: float = 0.0
    p50_during_ms: float = 0.0
    p99_before_ms: float = 0.0
    p99_copy_ms: float = 0.0
    p99_step_ms: float = 0.0
    moved_bytes: int = 0
    wire_bytes: int = 0
    data_bytes: int = 0
    rewritten_bytes: int = 0


def quantile(values, part):
    """Of a sorted list; 0 of an empty one."""
    return values[min(len(values) - 1, int(part * len(values)))] if values else 0.0


def make_disk(path, size, data):
    """A raw disk that begins with `data` random bytes, the rest of it a hole."""
    with open(path, "wb") as out:
        for _ in range(data // PIECE):
            out.write(os.urandom(PIECE))
        out.truncate(size)


class Measure:
    """`programs` is the folder of diskferry and diskferryd, `cache` where the guest's kernel is kept. `size` and `data` of the disk in bytes."""

    def __init__(self, bed, cache, programs, size, data, limit_s):
        self.bed, self.cache, self.programs = bed, cache, programs
        self.size, self.data, self.limit = size, data, limit_s

    @contextlib.contextmanager
    def scene(self, contender_name, writer, target_kind, delay_ms=None, disks=1, bytes_per_s=0):
        """Disks, the contender, the guest on them, and the target: (contender, machine, target)."""
        with contextlib.ExitStack() as stack:
            sources = [self.bed.folder / f"source{number}.raw" for number in range(disks)]
            for source in sources:
                make_disk(source, self.size, self.data)
                stack.callback(lambda source=source: source.unlink(missing_ok=True))
            os.sync()
            self.bed.link()
            target = stack.enter_context(make_target(target_kind, self.bed, self.size))
            contender = make_contender(contender_name, self.bed, self.programs, sources, bytes_per_s)
            stack.callback(contender.stop)
            # Guests rewrite what they have more often than they write where nothing was.
            machine = Machine(self.bed, self.cache, contender.nodes(), {"blocks": self.data // 4096, **writer})
            stack.callback(machine.stop)
            machine.wait_writing()
            self.bed.link(delay_ms=delay_ms, is_fast=True)
            stack.callback(self.bed.link)
            yield contender, machine, target

    def run(self, row, contender_name):
        """Figures; raises nothing of Failed, since the next contender is to have its turn."""
        try:
            with self.scene(contender_name, row.writer, row.target, row.delay_ms, bytes_per_s=row.bytes_per_s) as (contender, machine, target):
                return self._measure(row, contender, machine, target)
        except Failed as problem:
            return Figures(f"failed: {str(problem).strip().splitlines()[0][:200]}")

    def _measure(self, row, contender, machine, target):
        before = machine.watch(BEFORE_SECONDS)
        target.make("t1")
        os.sync()
        acks = machine.console.acks
        wire, written, began = self.bed.wire_bytes(), machine.written(), time.monotonic()
        contender.begin(machine, target, ["t1"])
        ready = self._wait_ready(contender, began)
        if ready is None:
            now = time.monotonic()
            contender.cancel()
            return Figures("never", rate_before=console.writes_per_second(acks, before, began),
                           rate_during=console.writes_per_second(acks, began, now))
        watched = machine.watch(row.seconds)
        figures = Figures("replaced", ready - began)
        moved, rewritten = contender.moved_bytes(), machine.written() - written
        switched = time.monotonic()
        seconds, held = contender.switch()
        machine.watch(AFTER_SECONDS)
        self._fill(figures, acks, (before, began, ready, watched, switched))
        figures.switch_ms, figures.held_ms = seconds * 1000, None if held is None else held * 1000
        figures.moved_bytes, figures.rewritten_bytes = moved, rewritten * 4096 if row.writer.get("mode") != "idle" else 0
        figures.wire_bytes, figures.data_bytes = self.bed.wire_bytes() - wire, self.data
        machine.stop()
        contender.stop()
        machine.check(target.content("t1"))
        return figures

    @staticmethod
    def _fill(figures, acks, times):
        before, began, ready, watched, switched = times
        figures.gap_ms = console.longest_gap_ms(acks, switched, switched + AFTER_SECONDS)
        figures.rate_before = console.writes_per_second(acks, before, began)
        figures.rate_during = console.writes_per_second(acks, began, switched)
        quiet = console.write_times_ms(acks, before, began)
        figures.p50_before_ms, figures.p99_before_ms = quantile(quiet, 0.5), quantile(quiet, 0.99)
        figures.p99_copy_ms = quantile(console.write_times_ms(acks, began, ready), 0.99)
        in_step = console.write_times_ms(acks, watched, switched)
        figures.p50_during_ms, figures.p99_step_ms = quantile(in_step, 0.5), quantile(in_step, 0.99)

    def _wait_ready(self, contender, began):
        """When (time.monotonic()), or None after the limit."""
        try:
            wait_until(contender.is_ready, "the disks being in step", self.limit)
        except Failed:
            if time.monotonic() - began < self.limit:
                raise
            return None
        return time.monotonic()


def pause_of(figures):
    """Median, 99th percentile and largest of a list."""
    ordered = sorted(figures)
    return statistics.median(ordered), quantile(ordered, 0.99), ordered[-1]
