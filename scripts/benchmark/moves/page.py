"""The table of moves: from the results file to docs/benchmarks-moves.md."""
import statistics

import contenders
from measure import DONE, NEVER

HEAD = ("| row | contender | total | downtime | longest gap | guest's rate | on the wire | to the bound | runs |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")


def median(runs, name):
    values = [run[name] for run in runs if run.get(name) is not None]
    return statistics.median(values) if values else None


def cell(runs, name, text):
    value = median(runs, name)
    return "-" if value is None else text.format(value)


def line(title, name, runs, bound):
    """A contender's line: the medians of its runs that ended, and how many of all did."""
    done = [run for run in runs if run["outcome"] == DONE]
    never = sum(run["outcome"] == NEVER for run in runs)
    total = cell(done, "seconds", "{:.1f} s") if done else "never (60 s)" if never else "failed"
    ratio = "-"
    if done and bound and name != contenders.BOUND:
        ratio = f"{median(done, 'seconds') / bound:.2f}"
    wire = median(done, "wire_bytes")
    return (f"| {title} | {name} | {total} | {cell(done, 'downtime_ms', '{:.0f} ms')} | {cell(done, 'gap_ms', '{:.0f} ms')} | "
            f"{cell(done, 'relative', '{:.0%}')} | {'-' if wire is None else f'{wire / 2**20:.0f} MiB'} | {ratio} | "
            f"{len(done)} of {len(runs)} |")


def table(results, rows):
    """`results` are the dictionaries of measure.Bench.move, in any order."""
    lines = [HEAD]
    for row in rows:
        of_row = {name: [one for one in results if one["row"] == row.name and one["contender"] == name]
                  for name in contenders.of(row)}
        bound = median([one for one in of_row.get(contenders.BOUND, []) if one["outcome"] == DONE], "seconds")
        title = row.title
        for name, runs in of_row.items():
            if runs:
                lines.append(line(title, name, runs, bound))
                title = ""
    return "\n".join(lines)
