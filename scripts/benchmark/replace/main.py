"""Options of `scripts/bench --replace`, and the loop over rows and contenders."""
import argparse
import os
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "scripts/testbed/hosts"), str(ROOT / "scripts/testbed")]

import rows  # noqa: E402  (the testbed's folders must be in the path first)
import special  # noqa: E402
import table  # noqa: E402
from contenders import ALL, MIRROR, OURS  # noqa: E402
from hosts import Testbed  # noqa: E402
from measure import Measure  # noqa: E402
from report import Failed  # noqa: E402

DISK_BYTES, DATA_BYTES = 1 << 30, 512 << 20
SMALL_BYTES, SMALL_DATA_BYTES = 64 << 20, 32 << 20  # of each of eight disks
SPECIAL = ("disks", "delta", "empty")


def options():
    parser = argparse.ArgumentParser(prog="scripts/bench --replace", description="the storage under a guest, against QEMU's blockdev-mirror")
    parser.add_argument("--replace", action="store_true", help="this part of the benchmark")
    parser.add_argument("--rows", help="comma-separated; names by --list")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--repeat", type=int, default=3, help="of each contender in each row (default 3)")
    parser.add_argument("--switches", type=int, default=40, help="of eight disks (default 40)")
    parser.add_argument("--limit", type=int, default=60, help="seconds after which it is called never (default 60)")
    parser.add_argument("--programs", default=str(ROOT / "build/release/bin"), help="folder of diskferry and diskferryd")
    parser.add_argument("--cache", default=str(ROOT / "build/testbed"), help="folder of the guest's kernel")
    parser.add_argument("--no-docs", action="store_true", help="do not write docs/benchmarks-replace.md")
    return parser.parse_args()


def measure_row(row, measure, chosen):
    """Contenders in turn. Who never arrived is not asked again: that costs the whole limit and tells nothing new."""
    found = {name: [] for name in ALL}
    for _ in range(chosen.repeat):
        for name in ALL:
            if any(one.outcome == "never" for one in found[name]):
                continue
            found[name].append(measure.run(row, name))
            print(table.line(row, row.title, name, found[name][-1:], chosen.limit), flush=True)
    lines = [table.line(row, row.title if name == OURS else "", name, found[name], chosen.limit) for name in ALL]
    return lines, all(one.outcome == "replaced" for one in found[OURS])


def measure_special(what, measure, chosen):
    lines = []
    for name in (OURS, MIRROR):
        if what == "disks":
            small = Measure(measure.bed, measure.cache, measure.programs, SMALL_BYTES, SMALL_DATA_BYTES, chosen.limit)
            title = f"8 disks, 400 random writes/s, {chosen.switches} changes of places: median / 99 of 100 / longest"
            try:
                figures = special.pauses(small, name, chosen.switches).words()
            except Failed as failure:
                figures = f"failed: {str(failure).splitlines()[0][:160]}"
        elif what == "delta":
            title = f"{special.DELTA_WRITES} random 4 KiB writes caught up over 10 ms away and back, and switched"
            figures, _ = special.seconds_of(special.delta, measure, name, chosen.repeat)
        else:
            title = "an empty disk of 8 TiB in step"
            figures, _ = special.seconds_of(special.empty, measure, name, chosen.repeat)
        lines.append(f"| {title if name == OURS else ''} | {name} | {figures} |")
        print(lines[-1], flush=True)
    return lines


def main():
    chosen, known = options(), rows.all_rows()
    if chosen.list:
        print("\n".join((*known, *SPECIAL)))
        return 0
    names = chosen.rows.split(",") if chosen.rows else [*known, *SPECIAL]
    if unknown := [name for name in names if name not in known and name not in SPECIAL]:
        print(f"scripts/bench: no row {', '.join(unknown)}", file=sys.stderr)
        return 2
    for program in ("diskferry", "diskferryd"):
        if not os.access(os.path.join(chosen.programs, program), os.X_OK):
            print(f"scripts/bench: {chosen.programs}/{program} is not there; run scripts/build release", file=sys.stderr)
            return 2
    lines, more, good = [], [], True
    with tempfile.TemporaryDirectory(prefix="diskferry-bench-") as folder, Testbed(folder) as bed:
        measure = Measure(bed, chosen.cache, chosen.programs, DISK_BYTES, DATA_BYTES, chosen.limit)
        for name in names:
            if name in SPECIAL:
                more += measure_special(name, measure, chosen)
            else:
                told, is_good = measure_row(known[name], measure, chosen)
                lines, good = lines + told, good and is_good
            if not chosen.no_docs:
                table.write_page(ROOT / "docs/benchmarks-replace.md", lines, more, chosen)
    return 0 if good else 1
