"""The rows of the table of moves: what the guest does, over which link. Nothing here knows who moves it."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """`options` are those of the guest's writer; `mbit` and `delay_ms` are the link's, each way, None for full speed."""

    name: str
    title: str
    options: dict
    mbit: int | None = None
    delay_ms: int | None = None
    is_bounded: bool = False  # the stand-in is measured too

    @property
    def is_idle(self):
        return self.options["mode"] == "idle"


GUESTS = (("idle", "idle", {"mode": "idle"}),
          ("100", "100 random 4 KiB writes/s", {"mode": "rand", "rate": 100}),
          ("300", "300 random 4 KiB writes/s", {"mode": "rand", "rate": 300}),
          ("1000", "1000 random 4 KiB writes/s", {"mode": "rand", "rate": 1000}),
          ("flat", "random 4 KiB writes, flat out", {"mode": "rand", "rate": 0}),
          ("sequential", "sequential, 20 MiB/s", {"mode": "seq", "rate": 320, "run": 16, "sync": 0}))
LINKS = (("", "full speed", None, None), ("-delay", "full speed, 10 ms", None, 10),
         ("-slow", "100 Mbit/s", 100, None), ("-slow-delay", "100 Mbit/s, 10 ms", 100, 10))
BOUNDED = ("1000", "flat", "300-slow", "1000-slow", "sequential-slow")
# The rows of the bound, and where plain libvirt is at its best and at its worst.
SUBSET = ("idle", "100", "300", *BOUNDED, "300-delay", "idle-slow")


def all_rows():
    return [Row(guest + link, f"{title}; {wire}", options, mbit, delay, guest + link in BOUNDED)
            for guest, title, options in GUESTS for link, wire, mbit, delay in LINKS]
