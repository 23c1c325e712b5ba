"""The rows of the table: what a guest does, and where its disk goes. Nothing here runs anything."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """`writer` are options of the guest's writer (scripts/testbed/hosts/guest/writer.c); `target` is a kind of targets.py. `delay_ms` is
    that of each packet on the way to the target. `seconds`: how long the guest is watched while disks are in step."""

    name: str
    title: str
    writer: dict
    target: str
    delay_ms: int | None = None
    seconds: int = 8
    bytes_per_s: int = 0  # that the copy is bounded to; 0: as fast as it goes


# What the guest does: name, words for the table, options of the writer.
LOADS = {"idle": ("idle", {"mode": "idle"}),
         "300": ("300 random 4 KiB writes/s", {"rate": 300, "sync": 0}),
         "1000": ("1000 random 4 KiB writes/s", {"rate": 1000, "sync": 0}),
         "durable": ("100 random 4 KiB writes/s, each durable", {"rate": 100}),
         "flat": ("random 4 KiB writes, flat out", {"rate": 0, "sync": 0})}
TARGETS = {"file": ("a file", "file", None), "far": ("NBD, 10 ms away and back", "nbd", 5), "nfs": ("NFS", "nfs", None),
           "iscsi": ("iSCSI", "iscsi", None), "ceph": ("Ceph RBD", "ceph", None)}
RATE = 32 << 20
ROWS = ("idle-file", "300-file", "1000-file", "durable-file", "flat-file", "300-file-bound", "1000-file-bound", "300-far", "1000-far", "flat-far", "300-nfs", "1000-nfs",
        "300-iscsi", "1000-iscsi", "300-ceph", "1000-ceph")


def all_rows():
    """Every row by its name, in the order of the table."""
    rows = {}
    for name in ROWS:
        load, target, *bound = name.split("-")
        load_title, writer = LOADS[load]
        target_title, kind, delay_ms = TARGETS[target]
        bytes_per_s = RATE if bound else 0
        title = f"{load_title}; onto {target_title}" + (f", at {bytes_per_s >> 20} MiB/s" if bound else "")
        rows[name] = Row(name, title, writer, kind, delay_ms, bytes_per_s=bytes_per_s)
    return rows
