"""The results file and the page that is made of it."""
import dataclasses
import datetime
import json
import os
import platform
import statistics

from measure import BOUND, LIBVIRT, OURS, Figures
from page import first_line, spread, write_measured

# The contenders of the plot, with their colours.
PLOTTED = ((OURS, "#2b6cb0"), ("virsh", "#c05621"), ("virsh, synchronous writes", "#dd9b5b"), (BOUND, "#a0aec0"))
HEAD = ("| guest; link | contender | total | downtime | longest write gap | writes/s before -> during | on the wire | "
        "times the stand-in |\n| --- | --- | --- | --- | --- | --- | --- | --- |")


class Results:
    """One line of JSON a move, written as soon as it is known: a run that was interrupted goes on where it was.
    `build` tells one build of ours from another; figures of two builds are not mixed."""

    def __init__(self, path, disk_mib, limit_seconds, build):
        self.path, self.setting, self.build = path, {"disk_mib": disk_mib, "limit_seconds": limit_seconds}, build
        self.known = {}  # (row, contender): [Figures]
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                for line in file:
                    self._take(json.loads(line))

    def _take(self, entry):
        # Figures of a smaller disk or another limit are no part of this table.
        if entry["setting"] == self.setting and (entry["contender"] != OURS or entry["build"] == self.build):
            self.known.setdefault((entry["row"], entry["contender"]), []).append(Figures(**entry["figures"]))

    def add(self, row, contender, figures):
        entry = {"row": row.name, "contender": contender, "date": datetime.date.today().isoformat(), "setting": self.setting,
                 "build": self.build, "figures": dataclasses.asdict(figures)}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._take(entry)

    def of(self, row, contender):
        return self.known.get((row.name, contender), [])


def _median(runs, name):
    return statistics.median(getattr(one, name) for one in runs)


def _spread(runs, name, unit, scale=1.0, digits=0):
    return spread([getattr(one, name) * scale for one in runs], unit, digits)


def line(title, contender, runs, bound, limit_seconds):
    """One line of the table. `bound` are the stand-in's moves in the same row, possibly none."""
    moved = [one for one in runs if one.outcome == "moved"]
    bad = [f"never ({limit_seconds} s)" if one.outcome == "never" else one.outcome for one in runs if one not in moved]
    rates = f"{_median(runs, 'before'):.0f} -> {_median(runs, 'during'):.0f}"
    if not moved:
        return f"| {title} | {contender} | {'; '.join(sorted(set(bad)))} | - | - | {rates} | - | - |"
    ratio = "-"
    if bound and contender != BOUND:
        ratio = f"{_median(moved, 'seconds') / _median(bound, 'seconds'):.1f} total, " \
                f"{_median(moved, 'gap_ms') / _median(bound, 'gap_ms'):.1f} gap"
    total = _spread(moved, "seconds", "s", digits=1) + (f"; {len(bad)} of {len(runs)}: {bad[0]}" if bad else "")
    return (f"| {title} | {contender} | {total} | {_spread(moved, 'downtime_ms', 'ms')} | {_spread(moved, 'gap_ms', 'ms')} | "
            f"{rates} | {_spread(moved, 'wire_bytes', 'MiB', 1 / (1 << 20))} | {ratio} |")


def lines_of(row, results, limit_seconds):
    """The lines of one row of those contenders that were measured."""
    bound = [one for one in results.of(row, BOUND) if one.outcome == "moved"]
    lines = []
    for contender in (OURS, *LIBVIRT, BOUND):
        if runs := results.of(row, contender):
            lines.append(line("" if lines else row.title, contender, runs, bound, limit_seconds))
    return lines


BAR, COLUMN = 11, 330  # height of a bar, and what the end of its scale is wide, in pixels


def _bar(runs, figure, end, x, y, color):
    """One bar with its figure, or the word for moves that have none."""
    moved = [one for one in runs if one.outcome == "moved"]
    if not moved:
        word = "never" if any(one.outcome == "never" for one in runs) else "failed" if runs else ""
        return f'<text x="{x}" y="{y + BAR - 2}" fill="{color}">{word}</text>'
    value = _median(moved, figure)
    width = min(1.0, value / end) * COLUMN
    return (f'<rect x="{x}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{color}"/>'
            f'<text x="{x + width + 3:.1f}" y="{y + BAR - 2}">{value:.{1 if value < 100 else 0}f}</text>')


def plot(rows, results, limit_seconds):
    """An SVG of two columns of bars: how long the moves took, and the longest time without a finished write."""
    left, step, row_height = 250, COLUMN + 60, len(PLOTTED) * BAR + 12
    columns = (("seconds", "total, s", limit_seconds, left), ("gap_ms", "longest write gap, ms", 1000, left + step))
    measured = [row for row in rows if any(results.of(row, name) for name, _ in PLOTTED)]
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + len(columns) * step}" '
           f'height="{44 + len(measured) * row_height}" font-family="sans-serif" font-size="11">',
           '<rect width="100%" height="100%" fill="white"/>']
    for index, (name, color) in enumerate(PLOTTED):
        out.append(f'<rect x="{left + index * 190}" y="6" width="9" height="9" fill="{color}"/>'
                   f'<text x="{left + 13 + index * 190}" y="15">{name}</text>')
    out += [f'<text x="{x}" y="34" font-weight="bold">{title} (0 to {end})</text>' for _, title, end, x in columns]
    for index, row in enumerate(measured):
        top = 42 + index * row_height
        out.append(f'<text x="6" y="{top + 2 * BAR}">{row.title}</text>')
        out += [_bar(results.of(row, name), figure, end, x, top + line_index * BAR, color)
                for line_index, (name, color) in enumerate(PLOTTED) for figure, _, end, x in columns]
    return "\n".join(out + ["</svg>"]) + "\n"


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
