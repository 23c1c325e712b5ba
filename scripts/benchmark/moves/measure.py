"""One measured move: a fresh disk and guest, a contender, the figures, and the check of every acknowledged write."""
import contextlib
import pathlib
import time

import contenders
import migrate
from gateways import Gateways
from guest import Disk, Guest
from hosts import Testbed
from report import Failed

LIMIT_SECONDS = 60   # a move that is not over by then is written down as one that never ends
BEFORE_SECONDS = 5   # of undisturbed writing: what the rate during the move is compared with
NEVER, DONE, FAILED = "never", "done", "failed"


class Bench:
    """Two hosts with gateways, used for many moves, and brought up anew after one that did not end well. The gateways
    are idle while somebody else is measured."""

    def __init__(self, folder, programs, cache, size):
        self.folder, self.programs, self.cache, self.size = pathlib.Path(folder), programs, cache, size
        self._stack = None
        self._count = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._down()

    def _up(self):
        if self._stack is None:
            with contextlib.ExitStack() as stack:
                self._count += 1
                self.bed = stack.enter_context(Testbed(self.folder / f"hosts-{self._count}"))
                self.gateways = stack.enter_context(Gateways(self.bed, self.programs, log="warn"))
                self._stack = stack.pop_all()

    def _down(self):
        if self._stack is not None:
            stack, self._stack = self._stack, None
            stack.close()

    def move(self, row, name):
        """Measures one contender once and returns the figures as a dictionary for the results."""
        figures = {"row": row.name, "contender": name, "mib": self.size >> 20}
        try:
            self._up()
            figures |= self._measured(row, contenders.of(row)[name])
        except Failed as failure:
            figures |= {"outcome": FAILED, "why": str(failure)[-600:]}
        if figures["outcome"] != DONE:
            self._down()
        return figures

    def _measured(self, row, contender):
        bed = self.bed
        for host in bed.hosts:
            host.run("sh", "-c", f"rm -f {contenders.IMAGES}/bench.*")
        bed.link()
        bed.a.run("qemu-img", "create", "-q", "-f", "qcow2", contenders.SOURCE, str(self.size))
        with Guest(bed, self.cache, disks=[Disk("vda", contenders.SOURCE, "qcow2")], verify=4, **row.options) as guest:
            guest.start(bed.a)
            guest.wait_writing()
            bed.link(row.mbit, row.delay_ms)
            time.sleep(BEFORE_SECONDS)
            began, sent = time.monotonic(), bed.wire_bytes()
            try:
                image, image_format = contender(bed, self.gateways, guest, self.size, LIMIT_SECONDS)
            except Failed:
                if time.monotonic() - began < LIMIT_SECONDS:
                    raise
                return {"outcome": NEVER, "wire_bytes": bed.wire_bytes() - sent}
            ended, sent = time.monotonic(), bed.wire_bytes() - sent
            if not row.is_idle:
                guest.wait_writing()  # the longest gap may still be open when the command ends
            figures = {"outcome": DONE, "seconds": ended - began, "downtime_ms": migrate.downtime_ms(bed.b, guest.name),
                       "gap_ms": guest.gap_ms(began), "wire_bytes": sent, "relative": None}
            if not row.is_idle and (before := guest.writes_per_second(began - BEFORE_SECONDS, began)):
                figures["relative"] = guest.writes_per_second(began, ended) / before
            bed.link()
            guest.stop(bed.b)
            if not row.is_idle:
                guest.check(image, image_format, host=bed.b)
            return figures
