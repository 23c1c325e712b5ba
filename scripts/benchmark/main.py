"""Options, the loop over cases, and where the results go."""
import argparse
import dataclasses
import datetime
import json
import os
import shutil
import sys
import tempfile

import tables
from cases import Cases
from inputs import Inputs
from page import write_measured
from run import Failed, Sample

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def options():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="diskferry against the packaged tools")
    parser.add_argument("--cases", help="comma-separated; names by --list")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument("--pairs", type=int, default=5, help="counted runs of each contender (default 5)")
    parser.add_argument("--seconds", type=float, default=3, help="seconds of load on a server in each run (default 3)")
    parser.add_argument("--quick", action="store_true", help="inputs at an eighth of their size; docs stay as they are")
    parser.add_argument("--folder", help="keep inputs here instead of in a temporary folder")
    parser.add_argument("--diskferry", default=os.path.join(ROOT, "build/release/bin/diskferry"))
    parser.add_argument("--no-docs", action="store_true", help="do not write docs/benchmarks.md")
    return parser.parse_args()


def measure(case, pairs):
    """Every contender once to warm up, then in turn."""
    samples = {name: [] for name in case.contenders}
    for turn in range(pairs + 1):
        for name, work in case.contenders.items():
            sample = work()
            if turn > 0:
                samples[name].append(sample)
    return samples


class Results:
    """What was measured, case by case, kept in the work folder: a case that is measured again replaces its figures."""

    def __init__(self, path):
        self.path, self.cases = path, {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.cases = json.load(file)

    def add(self, case, samples):
        self.cases[case.name] = {name: [dataclasses.asdict(one) for one in runs] for name, runs in samples.items()}
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump(self.cases, file)

    def of(self, cases):
        """(case, samples) of those that were measured, in the order of `cases`."""
        return [(case, {name: [Sample(**one) for one in runs] for name, runs in self.cases[case.name].items()})
                for case in cases if case.name in self.cases]


def write_docs(results, pairs):
    for name in sorted({case.page for case, _ in results}):
        write_page(name, [(case, samples) for case, samples in results if case.page == name], pairs)


def write_page(name, results, pairs):
    page = os.path.join(ROOT, "docs", name + ".md")
    facts = [datetime.date.today().isoformat(), *tables.machine(), f"{pairs} interleaved runs of each contender after one warm-up"]
    write_measured(page, facts, f"![ratios]({name}.svg)", tables.table(results))
    with open(os.path.join(ROOT, "docs", name + ".svg"), "w", encoding="utf-8") as file:
        file.write(tables.plot(results))


def main():
    chosen = options()
    folder = chosen.folder or tempfile.mkdtemp(prefix="diskferry-bench-")
    os.makedirs(folder, exist_ok=True)
    try:
        cases = Cases(Inputs(folder, 1 / 8 if chosen.quick else 1), chosen.diskferry, chosen.seconds)
        known = cases.all()
        if chosen.list:
            print("\n".join(known))
            return 0
        if not os.access(chosen.diskferry, os.X_OK):
            print(f"scripts/bench: {chosen.diskferry} is not there; run scripts/build release", file=sys.stderr)
            return 2
        results, failed = Results(os.path.join(folder, "results.json")), 0
        everything = {name: list(make()) for name, make in known.items()}
        for name in chosen.cases.split(",") if chosen.cases else known:
            for case in everything[name]:
                try:
                    samples = measure(case, chosen.pairs)
                except Failed as problem:
                    print(f"{case.name}: {problem}", file=sys.stderr)
                    failed += 1
                    continue
                results.add(case, samples)
                print(tables.table([(case, samples)]).split("\n", 2)[2], flush=True)
                if not (chosen.quick or chosen.no_docs):
                    write_docs(results.of(sum(everything.values(), [])), chosen.pairs)
        return 1 if failed else 0
    finally:
        if not chosen.folder:
            shutil.rmtree(folder, ignore_errors=True)
