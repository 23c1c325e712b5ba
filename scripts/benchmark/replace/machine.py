"""A guest of host a as both contenders have it: QEMU, its monitor, the writer's console. Its disks are what the contender says."""
import time

from live_guest import WritingGuest
from qemu import Monitor


class Machine(WritingGuest):
    """`nodes` are the disks' nodes as -blockdev has them; `writer` options of the writer."""

    def __init__(self, bed, cache, nodes, writer):
        monitor = bed.folder / "qmp.sock"
        monitor.unlink(missing_ok=True)
        super().__init__(bed.folder, cache, nodes, {"times": 1, **writer},
                         lambda command: bed.a.start(*command, log=bed.folder / "qemu.log"),
                         ("-qmp", f"unix:{monitor},server=on,wait=off"))
        self.monitor = Monitor(str(monitor))

    def watch(self, seconds):
        """Lets it write for a while. Its own words are the clock: one that is silent fails here. Returns when it began."""
        began = time.monotonic()
        while self.wait_writing() < began + seconds:
            pass
        return began

    def written(self):
        """Writes acknowledged so far."""
        return self.console.acks[-1].last if self.console.acks else 0

    def stop(self):
        self.process.kill9()
        self.console.close()
