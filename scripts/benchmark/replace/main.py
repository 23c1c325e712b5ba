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
from measure import Figures, Measure  # noqa: E402
from results import Results, build_of  # noqa: E402

DISK_BYTES, DATA_BYTES = 1 << 30, 512 << 20
SMALL_BYTES, SMALL_DATA_BYTES = 64 << 20, 32 << 20  # of each of eight disks
SPECIAL = special.NAMES


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
    parser.add_argument("--results", default=str(ROOT / "build/benchmark-replace.jsonl"), help="where the figures are kept")
    parser.add_argument("--no-docs", action="store_true", help="do not write docs/benchmarks-replace.md")
    return parser.parse_args()


def in_turn(chosen, names, results, row_name, measure_once):
    """Contenders in turn, until each has its number. Who never arrived is not asked again: that costs the whole limit and tells nothing new."""
    for turn in range(chosen.repeat):
        for name in names:
            known = [one for one in results.of(row_name, name) if not one.outcome.startswith("failed")]
            if len(known) > turn or any(one.outcome == "never" for one in known):
                continue
            figures = measure_once(name)
            results.add(row_name, name, figures)
            yield name, figures


def measure_row(row, measure, chosen, results):
    """Returns whether all of ours arrived."""
    good = True
    for name, figures in in_turn(chosen, ALL, results, row.name, lambda name: measure.run(row, name)):
        print(table.line(row, row.title, name, [figures], chosen.limit), flush=True)
        good = good and (name != OURS or figures.outcome == "replaced")
    return good


def measure_special(what, measure, chosen, results):
    good, title = True, table.special_title(what, chosen)
    for name, figures in in_turn(chosen, (OURS, MIRROR), results, what, lambda name: special.run(what, measure, name, chosen.switches)):
        print(table.special_line(title, name, [figures], chosen.limit), flush=True)
        good = good and (name != OURS or figures.outcome == "done")
    return good


def figures_of(**fields):
    return special.Special(**fields) if "gaps_ms" in fields else Figures(**fields)


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
    setting = {"disk_bytes": DISK_BYTES, "limit_s": chosen.limit, "switches": chosen.switches}
    results, good = Results(chosen.results, setting, OURS, build_of(chosen.programs), figures_of), True
    with tempfile.TemporaryDirectory(prefix="diskferry-bench-") as folder, Testbed(folder) as bed:
        measure = Measure(bed, chosen.cache, chosen.programs, DISK_BYTES, DATA_BYTES, chosen.limit)
        small = Measure(bed, chosen.cache, chosen.programs, SMALL_BYTES, SMALL_DATA_BYTES, chosen.limit)
        for name in names:
            if name in SPECIAL:
                good = measure_special(name, small if name == "disks" else measure, chosen, results) and good
            else:
                good = measure_row(known[name], measure, chosen, results) and good
            if not chosen.no_docs:
                table.write_page(ROOT / "docs/benchmarks-replace.md", known.values(), results, chosen)
    return 0 if good else 1
