"""Options of `scripts/bench --moves`, and the loop over rows and contenders."""
import argparse
import os
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "scripts/testbed/hosts"), str(ROOT / "scripts/testbed")]

import rows  # noqa: E402  (the testbed's folders must be in the path first)
import table  # noqa: E402
from hosts import Testbed  # noqa: E402
from measure import BOUND, LIBVIRT, OURS, Figures, Measure  # noqa: E402
from results import Results, build_of  # noqa: E402

USUAL = (OURS, "virsh", "virsh, synchronous writes")


def options():
    parser = argparse.ArgumentParser(prog="scripts/bench --moves", description="moves of guests against libvirt alone")
    parser.add_argument("--moves", action="store_true", help="this part of the benchmark")
    parser.add_argument("--all", action="store_true", help="every row, and every way of libvirt in each (hours)")
    parser.add_argument("--rows", help="comma-separated; names by --list")
    parser.add_argument("--contenders", help=f"semicolon-separated, of: {'; '.join((OURS, *LIBVIRT, BOUND))}")
    parser.add_argument("--list", action="store_true", help="name the rows (* those measured by default) and end")
    parser.add_argument("--repeat", type=int, default=3, help="moves of each contender in each row (default 3)")
    parser.add_argument("--limit", type=int, default=60, help="seconds after which a move is called never (default 60)")
    parser.add_argument("--disk-mib", type=int, default=1024, help="size of the guest's disk (default 1024)")
    parser.add_argument("--quick", action="store_true", help="one move each, a disk of 128 MiB, 20 s; docs stay as they are")
    parser.add_argument("--programs", default=str(ROOT / "build/release/bin"), help="folder of diskferry and diskferryd")
    parser.add_argument("--cache", default=str(ROOT / "build/testbed"), help="folder of the guest's kernel")
    parser.add_argument("--results", default=str(ROOT / "build/benchmark-moves.jsonl"), help="where the figures are kept")
    parser.add_argument("--no-docs", action="store_true", help="do not write docs/benchmarks-moves.md")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.repeat, chosen.disk_mib, chosen.limit, chosen.no_docs = 1, 128, 20, True
    return chosen


def contenders_of(row, chosen):
    if chosen.contenders:
        wanted = [name.strip() for name in chosen.contenders.split(";")]
    else:
        wanted = [OURS, *LIBVIRT] if chosen.all else list(USUAL)
        wanted += [BOUND] if row.has_bound else []
    return wanted


def measure_row(row, chosen, measure, results):
    """Contenders in turn, until each has its number of moves. Who never arrived is not asked again: every such move costs the
    whole limit and tells nothing new. Returns whether every move of ours arrived."""
    good = True
    for turn in range(chosen.repeat):
        for contender in contenders_of(row, chosen):
            known = [one for one in results.of(row.name, contender) if one.outcome in ("moved", "never")]
            if len(known) > turn or any(one.outcome == "never" for one in known):
                continue
            figures = measure.run(row, contender)
            results.add(row.name, contender, figures)
            print(table.line(row.title, contender, [figures], [], chosen.limit), flush=True)
            good = good and (contender != OURS or figures.outcome == "moved")
    return good


def check_names(names, known, what):
    if unknown := [name for name in names if name not in known]:
        print(f"scripts/bench: no {what} {', '.join(unknown)}", file=sys.stderr)
        sys.exit(2)


def main():
    chosen, known = options(), rows.all_rows()
    if chosen.list:
        print("\n".join(name + (" *" if name in rows.DEFAULT else "") for name in known))
        return 0
    names = chosen.rows.split(",") if chosen.rows else list(known) if chosen.all else rows.DEFAULT
    check_names(names, known, "row")
    if chosen.contenders:
        check_names(contenders_of(None, chosen), (OURS, *LIBVIRT, BOUND), "contender")
    for program in ("diskferry", "diskferryd"):
        if not os.access(os.path.join(chosen.programs, program), os.X_OK):
            print(f"scripts/bench: {chosen.programs}/{program} is not there; run scripts/build release", file=sys.stderr)
            return 2
    # Figures of a smaller disk or another limit are no part of this table.
    setting = {"disk_mib": chosen.disk_mib, "limit_seconds": chosen.limit}
    results, good = Results(chosen.results, setting, OURS, build_of(chosen.programs), Figures), True
    with tempfile.TemporaryDirectory(prefix="diskferry-bench-") as folder, Testbed(folder) as bed:
        measure = Measure(bed, chosen.cache, chosen.programs, chosen.disk_mib, chosen.limit, chosen.results + ".logs")
        measure.warm_up()
        for name in names:
            good = measure_row(known[name], chosen, measure, results) and good
            if not chosen.no_docs:
                table.write_page(ROOT / "docs/benchmarks-moves.md", known.values(), results, chosen)
    return 0 if good else 1
