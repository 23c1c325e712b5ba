"""The page that is made of the figures."""
import datetime
import os
import platform
import statistics

import bars
import special
from contenders import ALL, BLOCKING, MIRROR, OURS
from measure import pause_of
from page import first_line, median, spread, write_measured

# The contenders of the plot, with their colours; its columns, and the ends of their scales.
PLOTTED = ((OURS, "#2b6cb0"), (MIRROR, "#c05621"), (BLOCKING, "#dd9b5b"))
COLUMNS = (("ready_s", "in step, s", 20), ("p99_copy_ms", "99 of 100 writes while copying, ms", 50), ("gap_ms", "longest write gap, ms", 200))

HEAD = ("| guest; target | contender | in step | switch | longest write gap | held | writes/s before -> during | 99 of 100 writes within: before, copying, in step | "
        "bytes / (data + rewritten) |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |")


def _spread(runs, name, unit, digits=0):
    values = [getattr(one, name) for one in runs if getattr(one, name) is not None]
    return spread(values, unit, digits) if values else "-"


def line(row, title, contender, runs, limit_s):
    """One line of the table."""
    good = [one for one in runs if one.outcome == "replaced"]
    rates = f"{median(runs, 'rate_before'):.0f} -> {median(runs, 'rate_during'):.0f}"
    if not good:
        bad = {f"never ({limit_s} s)" if one.outcome == "never" else one.outcome for one in runs}
        return f"| {title} | {contender} | {'; '.join(sorted(bad))} | - | - | - | {rates} | - | - |"
    lost = f"; {len(runs) - len(good)} of {len(runs)} not" if len(good) != len(runs) else ""
    latency = " / ".join(f"{median(good, name):.1f}" for name in ("p99_before_ms", "p99_copy_ms", "p99_step_ms")) + " ms"
    if median(good, "p99_before_ms") == 0:
        latency = "-"
    moved = "-"
    if row.target != "file":  # of files nothing crosses the wire
        moved = f"{statistics.median(one.wire_bytes / (one.data_bytes + one.rewritten_bytes) for one in good):.2f}"
    return (f"| {title} | {contender} | {_spread(good, 'ready_s', 's', 1)}{lost} | {_spread(good, 'switch_ms', 'ms')} | {_spread(good, 'gap_ms', 'ms')} | "
            f"{_spread(good, 'held_ms', 'ms')} | {rates} | {latency} | {moved} |")


def special_title(what, chosen):
    return {"disks": f"8 disks, 400 random writes/s, {chosen.switches} changes of places: median / 99 of 100 / longest",
            "delta": f"{special.DELTA_WRITES} random 4 KiB writes caught up over 10 ms away and back, and switched",
            "empty": "an empty disk of 8 TiB in step"}[what]


def _three(values):
    return " / ".join(f"{one:.1f}" for one in pause_of(values)) + " ms" if values else "-"


def special_line(title, contender, runs, limit_s):
    """One line of the second table."""
    good = [one for one in runs if one.outcome == "done"]
    held, gaps = ([value for one in good for value in getattr(one, name)] for name in ("held_ms", "gaps_ms"))
    figures = f"held {_three(held)}, without a write {_three(gaps)}" if gaps else _spread(good, "seconds", "s", 2)
    if not good:
        figures = "; ".join(sorted({f"never ({limit_s} s)" if one.outcome == "never" else one.outcome for one in runs}))
    return f"| {title} | {contender} | {figures} |"


def plot(rows, results):
    """How long it took until disks were in step, and what guests had of it."""
    titles = {row.name: row.title for row in rows if results.of(row.name, OURS)}
    return bars.plot(titles, PLOTTED, COLUMNS, lambda row, name, figure: bars.value(results.of(row, name), figure, "replaced"))


def write_page(page, rows, results, chosen):
    """Replaces what is between the marks of the page, and the plot beside it."""
    rows = list(rows)
    most = max((len(runs) for runs in results.known.values()), default=0)
    facts = (datetime.date.today().isoformat(), f"{os.cpu_count()} cores, Linux {platform.release()}, guests are emulated",
             first_line("qemu-system-x86_64", "--version"), f"disk of 1 GiB with 512 MiB of data, up to {most} of each in turn: median (smallest-largest)")
    lines, more = [HEAD], ["| what | contender | figures |", "| --- | --- | --- |"]
    for row in rows:
        measured = [name for name in ALL if results.of(row.name, name)]
        lines += [line(row, row.title if name == measured[0] else "", name, results.of(row.name, name), chosen.limit) for name in measured]
    for what in special.NAMES:
        measured = [name for name in (OURS, MIRROR) if results.of(what, name)]
        more += [special_line(special_title(what, chosen) if name == measured[0] else "", name, results.of(what, name), chosen.limit)
                 for name in measured]
    with open(os.path.splitext(page)[0] + ".svg", "w", encoding="utf-8") as file:
        file.write(plot(rows, results))
    write_measured(page, facts, "\n".join(lines), "\n".join(more), "![replacements](benchmarks-replace.svg)")
