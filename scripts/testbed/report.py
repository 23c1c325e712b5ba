"""What the demo says while it runs, and the report at its end."""

import sys
import time

START = time.monotonic()


class Failed(Exception):
    """A step did not do what it should; the text is for the person who ran the demo."""


def heading(text):
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def say(text):
    print(f"  [{time.monotonic() - START:6.1f} s] {text}", flush=True)


def size(count):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return ""


class Report:
    """Lines collected on the way and printed together."""

    def __init__(self):
        self.lines = []

    def add(self, name, value):
        self.lines.append((name, value))

    def show(self):
        width = max(len(name) for name, _ in self.lines)
        for name, value in self.lines:
            print(f"  {name:<{width}}  {value}")
