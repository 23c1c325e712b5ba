"""Ratios, the table and the plot of docs/benchmarks.md. An SVG by hand: a handful of bars needs no library."""
import html
import os
import platform
import statistics

from page import first_line


def ratios(case, samples):
    """For each peer: (median, smallest, largest) of ours against it, pair by pair. Above 1: ours is faster."""
    names = list(case.contenders)
    ours, found = samples[names[0]], {}
    for peer in names[1:]:
        pairs = [(a.rate / b.rate if case.by_rate else b.seconds / a.seconds) for a, b in zip(ours, samples[peer])]
        found[peer] = (statistics.median(pairs), min(pairs), max(pairs))
    return found


def best_peer(case, samples):
    """The peer that ours has the smallest median ratio against; variants of ours are no peers."""
    peers = {peer: ratio for peer, ratio in ratios(case, samples).items() if not peer.startswith("diskferry")}
    return min(peers.items(), key=lambda item: item[1][0])


def figure(case, sample):
    if not case.by_rate:
        return f"{sample.seconds:.2f} s"
    return f"{sample.rate / 1e9:.2f} GB/s" if sample.rate > 2e7 else f"{sample.rate:,.0f}/s".replace(",", " ")


def middle(case, samples):
    """The sample whose time or rate is the median."""
    ordered = sorted(samples, key=lambda one: one.rate if case.by_rate else one.seconds)
    return ordered[len(ordered) // 2]


def table(results):
    lines = ["| case | reach | contender | median | ratio (median, spread) | peak memory |",
             "| --- | --- | --- | --- | --- | --- |"]
    for case, samples in results:
        against = ratios(case, samples)
        for index, (name, runs) in enumerate(samples.items()):
            one = middle(case, runs)
            ratio = "" if index == 0 else "{:.2f} ({:.2f}-{:.2f})".format(*against[name])
            note = f" ({one.note})" if one.note else ""
            peak = max(run.peak_kib for run in runs) / 1024
            lines.append(f"| {case.title if index == 0 else ''} | {case.reach if index == 0 else ''} | {name} | "
                         f"{figure(case, one)}{note} | {ratio} | {peak:.0f} MiB |")
    return "\n".join(lines)


def plot(results):
    """One bar a case: the ratio against the best peer, with its spread and the line at 1."""
    row, left, scale = 26, 430, 130
    rows = [(case, *best_peer(case, samples)) for case, samples in results]
    largest = min(6.0, max([ratio[2] for _, _, ratio in rows] + [2.0]))
    width, height = left + int(largest * scale) + 150, row * len(rows) + 50
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           f'font-family="sans-serif" font-size="12">', f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="8" y="16">Ratio against the fastest peer (above 1: diskferry is faster); whiskers: smallest and '
           f'largest pair</text>']
    for mark in range(0, int(largest) + 1):
        x = left + mark * scale
        out.append(f'<line x1="{x}" y1="24" x2="{x}" y2="{height - 20}" stroke="{"#444" if mark == 1 else "#ddd"}"/>'
                   f'<text x="{x}" y="{height - 6}" text-anchor="middle">{mark}</text>')
    for index, (case, peer, (median, low, high)) in enumerate(rows):
        y = 30 + index * row
        bar, low, high = (min(value, largest) * scale for value in (median, low, high))
        colour = "#2a7d4f" if median >= 1 else "#b5482f"
        out.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{html.escape(case.title)}</text>'
                   f'<rect x="{left}" y="{y + 3}" width="{bar:.0f}" height="{row - 10}" fill="{colour}"/>'
                   f'<line x1="{left + low:.0f}" y1="{y + 11}" x2="{left + high:.0f}" y2="{y + 11}" stroke="black"/>'
                   f'<text x="{left + max(bar, high) + 6:.0f}" y="{y + 14}">{median:.2f} ({html.escape(peer)})</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def machine():
    """The machine and the versions, for the page."""
    with open("/proc/cpuinfo", encoding="utf-8") as cpus:
        model = next((line.split(":")[1].strip() for line in cpus if line.startswith("model name")), "?")
    return [f"{os.cpu_count()} cores ({model}), Linux {platform.release()}",
            ", ".join(first_line(*one) for one in (["qemu-img", "--version"], ["nbdkit", "--version"],
                                                   ["nbdcopy", "--version"], ["fio", "--version"]))]
