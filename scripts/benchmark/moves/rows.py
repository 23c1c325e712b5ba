"""The rows of the table: what a guest does, and over which link it moves. Nothing here runs anything."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """`writer` are options of the guest's writer (scripts/testbed/hosts/guest/writer.c); `mbit` and `delay_ms` are each way,
    None is without a limit. `has_bound`: the row is compared with the stand-in too."""

    name: str
    title: str
    writer: dict
    mbit: int | None
    delay_ms: int | None
    has_bound: bool


# What the guest does: name, words for the table, options of the writer.
LOADS = (("idle", "idle", {"mode": "idle"}),
         ("100", "100 random 4 KiB writes/s", {"rate": 100}),
         ("300", "300 random 4 KiB writes/s", {"rate": 300}),
         ("1000", "1000 random 4 KiB writes/s", {"rate": 1000}),
         ("flat", "random 4 KiB writes, flat out", {"rate": 0}),
         ("seq", "sequential 20 MiB/s", {"mode": "seq", "rate": 320, "run": 16, "sync": 0}))
LINKS = (("full", "full speed", None, None), ("full-delay", "full speed, 10 ms", None, 10),
         ("100mbit", "100 Mbit/s", 100, None), ("100mbit-delay", "100 Mbit/s, 10 ms", 100, 10))
BOUNDED = {"1000-full", "flat-full", "300-100mbit", "1000-100mbit", "seq-100mbit"}
# What is measured by default: the rows of the bound, what is easy for everyone, and what a delay changes.
DEFAULT = ("idle-full", "100-full", "1000-full", "flat-full", "1000-full-delay", "100-100mbit", "300-100mbit", "1000-100mbit",
           "seq-100mbit", "300-100mbit-delay")


def all_rows():
    """Every row by its name, in the order of the table."""
    rows = {}
    for link, link_title, mbit, delay_ms in LINKS:
        for load, load_title, writer in LOADS:
            name = f"{load}-{link}"
            rows[name] = Row(name, f"{load_title}; {link_title}", writer, mbit, delay_ms, name in BOUNDED)
    return rows
