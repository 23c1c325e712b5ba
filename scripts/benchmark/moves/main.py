"""scripts/bench --moves: options, the loop over rows and contenders, and where the results go."""
import argparse
import datetime
import json
import os
import pathlib
import platform
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "scripts/testbed/hosts"), str(ROOT / "scripts/testbed")]

import contenders  # noqa: E402
import page  # noqa: E402
import rows  # noqa: E402
from measure import FAILED, Bench  # noqa: E402

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PAGE = ROOT / "docs/benchmarks-moves.md"


def options():
    parser = argparse.ArgumentParser(prog="scripts/bench --moves", description="moves of a writing guest, against libvirt's own")
    parser.add_argument("--rows", help="comma-separated; names by --list")
    parser.add_argument("--contenders", help="comma-separated; all of a row by default")
    parser.add_argument("--all", action="store_true", help="every row; hours")
    parser.add_argument("--list", action="store_true", help="name rows and contenders and end")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each contender (default 3)")
    parser.add_argument("--quick", action="store_true", help="a disk of 256 MiB, one run; docs stay as they are")
    parser.add_argument("--results", default=ROOT / "build/bench-moves.jsonl", help="appended to; what is in it is not run again")
    parser.add_argument("--programs", default=ROOT / "build/release/bin", help="the folder of diskferry and diskferryd")
    parser.add_argument("--no-docs", action="store_true", help="do not write docs/benchmarks-moves.md")
    return parser.parse_args()


def read(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(text) for text in file]


def write_docs(results, programs):
    text = PAGE.read_text(encoding="utf-8")
    facts = (f"* {datetime.date.today().isoformat()}, {os.cpu_count()} cores, Linux {platform.release()}, guests emulated\n"
             f"* load of the machine at the end {os.getloadavg()[0]:.1f}; programs of {os.path.basename(os.path.dirname(programs))}")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(f"{text[:begin]}\n{facts}\n\n{page.table(results, rows.all_rows())}\n{text[end:]}", encoding="utf-8")


def chosen_rows(chosen):
    known = {row.name: row for row in rows.all_rows()}
    names = chosen.rows.split(",") if chosen.rows else list(known) if chosen.all else rows.SUBSET
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"scripts/bench --moves: no row {', '.join(unknown)}; see --list")
    return [known[name] for name in names]


def run(chosen, size, repeat):
    """Interleaved: every contender once, then again. Returns how many moves failed."""
    results, failed = read(chosen.results), 0
    with tempfile.TemporaryDirectory(prefix="diskferry-bench-") as folder, \
         Bench(folder, chosen.programs, ROOT / "build/testbed", size) as bench:
        for turn in range(1, repeat + 1):
            for row in chosen_rows(chosen):
                for name in chosen.contenders.split(",") if chosen.contenders else contenders.of(row):
                    counted = [one for one in results if (one["row"], one["contender"], one["mib"]) == (row.name, name, size >> 20)
                               and one["outcome"] != FAILED]
                    if name not in contenders.of(row) or len(counted) >= turn:
                        continue
                    figures = bench.move(row, name)
                    failed += figures["outcome"] == FAILED
                    results.append(figures)
                    with open(chosen.results, "a", encoding="utf-8") as file:
                        file.write(json.dumps(figures) + "\n")
                    print(json.dumps(figures), flush=True)
    return failed


def main():
    chosen = options()
    if chosen.list:
        for row in rows.all_rows():
            print(f"{row.name:<24}{row.title}{' (default)' if row.name in rows.SUBSET else ''}")
        print("contenders: " + ", ".join((contenders.OURS, *contenders.LIBVIRT, contenders.BOUND)))
        return 0
    if os.geteuid() != 0:
        print("scripts/bench: moves need root for the two hosts' namespaces; run it as root", file=sys.stderr)
        return 1
    if not os.access(os.path.join(chosen.programs, "diskferryd"), os.X_OK):
        print(f"scripts/bench: {chosen.programs}/diskferryd is not there; run scripts/build release", file=sys.stderr)
        return 2
    os.makedirs(os.path.dirname(os.path.abspath(chosen.results)), exist_ok=True)
    size = (256 if chosen.quick else 1024) << 20
    failed = run(chosen, size, 1 if chosen.quick else chosen.repeat)
    results = [one for one in read(chosen.results) if one["mib"] == size >> 20]
    print(page.table(results, rows.all_rows()))
    if not (chosen.quick or chosen.no_docs):
        write_docs(results, os.fspath(chosen.programs))
    return 1 if failed else 0
