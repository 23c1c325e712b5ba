"""The page that is made of the figures."""
import datetime
import os
import platform
import statistics

from page import first_line, spread, write_measured

HEAD = ("| guest; target | contender | in step | switch | longest write gap | held | writes/s before -> during | 99 of 100 writes within: before, copying, in step | "
        "bytes / (data + rewritten) |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |")


def _spread(runs, name, unit, digits=0):
    values = [getattr(one, name) for one in runs if getattr(one, name) is not None]
    return spread(values, unit, digits) if values else "-"


def _median(runs, name):
    return statistics.median(getattr(one, name) for one in runs)


def line(row, title, contender, runs, limit_s):
    """One line of the table."""
    good = [one for one in runs if one.outcome == "replaced"]
    rates = f"{_median(runs, 'rate_before'):.0f} -> {_median(runs, 'rate_during'):.0f}"
    if not good:
        bad = {f"never ({limit_s} s)" if one.outcome == "never" else one.outcome for one in runs}
        return f"| {title} | {contender} | {'; '.join(sorted(bad))} | - | - | - | {rates} | - | - |"
    lost = f"; {len(runs) - len(good)} of {len(runs)} not" if len(good) != len(runs) else ""
    latency = " / ".join(f"{_median(good, name):.1f}" for name in ("p99_before_ms", "p99_copy_ms", "p99_step_ms")) + " ms"
    if _median(good, "p99_before_ms") == 0:
        latency = "-"
    moved = "-"
    if row.target != "file":  # of files nothing crosses the wire
        moved = f"{statistics.median(one.wire_bytes / (one.data_bytes + one.rewritten_bytes) for one in good):.2f}"
    return (f"| {title} | {contender} | {_spread(good, 'ready_s', 's', 1)}{lost} | {_spread(good, 'switch_ms', 'ms')} | {_spread(good, 'gap_ms', 'ms')} | "
            f"{_spread(good, 'held_ms', 'ms')} | {rates} | {latency} | {moved} |")


def write_page(page, lines, special, chosen):
    """Replaces what is between the marks of the page."""
    facts = (datetime.date.today().isoformat(), f"{os.cpu_count()} cores, Linux {platform.release()}, guests are emulated",
             first_line("qemu-system-x86_64", "--version"), f"disk of 1 GiB with 512 MiB of data, {chosen.repeat} of each in turn")
    write_measured(page, facts, "\n".join([HEAD, *lines]), "\n".join(["| what | contender | figures |", "| --- | --- | --- |", *special]))
