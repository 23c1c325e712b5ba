"""The page that is made of the figures."""
import datetime
import os
import platform

import bars
from measure import BOUND, LIBVIRT, OURS
from page import first_line, median, spread, write_measured

# The contenders of the plot, with their colours.
PLOTTED = ((OURS, "#2b6cb0"), ("virsh", "#c05621"), ("virsh, synchronous writes", "#dd9b5b"), (BOUND, "#a0aec0"))
HEAD = ("| guest; link | contender | total | downtime | longest write gap | writes/s before -> during | on the wire | "
        "times the stand-in |\n| --- | --- | --- | --- | --- | --- | --- | --- |")


def _spread(runs, name, unit, scale=1.0, digits=0):
    return spread([getattr(one, name) * scale for one in runs], unit, digits)


def line(title, contender, runs, bound, limit_seconds):
    """One line of the table. `bound` are the stand-in's moves in the same row, possibly none."""
    moved = [one for one in runs if one.outcome == "moved"]
    bad = [f"never ({limit_seconds} s)" if one.outcome == "never" else one.outcome for one in runs if one not in moved]
    rates = f"{median(runs, 'before'):.0f} -> {median(runs, 'during'):.0f}"
    if not moved:
        return f"| {title} | {contender} | {'; '.join(sorted(set(bad)))} | - | - | {rates} | - | - |"
    ratio = "-"
    if bound and contender != BOUND:
        ratio = f"{median(moved, 'seconds') / median(bound, 'seconds'):.1f} total, " \
                f"{median(moved, 'gap_ms') / median(bound, 'gap_ms'):.1f} gap"
    total = _spread(moved, "seconds", "s", digits=1) + (f"; {len(bad)} of {len(runs)}: {bad[0]}" if bad else "")
    return (f"| {title} | {contender} | {total} | {_spread(moved, 'downtime_ms', 'ms')} | {_spread(moved, 'gap_ms', 'ms')} | "
            f"{rates} | {_spread(moved, 'wire_bytes', 'MiB', 1 / (1 << 20))} | {ratio} |")


def lines_of(row, results, limit_seconds):
    """The lines of one row of those contenders that were measured."""
    bound = [one for one in results.of(row.name, BOUND) if one.outcome == "moved"]
    lines = []
    for contender in (OURS, *LIBVIRT, BOUND):
        if runs := results.of(row.name, contender):
            lines.append(line("" if lines else row.title, contender, runs, bound, limit_seconds))
    return lines


COLUMNS = (("seconds", "total, s"), ("gap_ms", "longest write gap, ms"))


def plot(rows, results, limit_seconds):
    """How long the moves took, and the longest time without a finished write."""
    titles = {row.name: row.title for row in rows if any(results.of(row.name, name) for name, _ in PLOTTED)}
    columns = [(figure, title, limit_seconds if figure == "seconds" else 1000) for figure, title in COLUMNS]
    return bars.plot(titles, PLOTTED, columns, lambda row, name, figure: bars.value(results.of(row, name), figure, "moved"))


def write_page(page, rows, results, chosen):
    """Replaces what is between the marks of the page."""
    facts = (
        datetime.date.today().isoformat(), f"{os.cpu_count()} cores, Linux {platform.release()}, guests are emulated",
        "libvirt " + first_line("virsh", "--version") + ", " + first_line("qemu-system-x86_64", "--version"),
        f"disk of {chosen.disk_mib} MiB, at most {chosen.limit} s a move")
    rows = list(rows)
    with open(os.path.splitext(page)[0] + ".svg", "w", encoding="utf-8") as file:
        file.write(plot(rows, results, chosen.limit))
    table = "\n".join([HEAD] + [one for row in rows for one in lines_of(row, results, chosen.limit)])
    write_measured(page, facts, table, "![moves](benchmarks-moves.svg)")
