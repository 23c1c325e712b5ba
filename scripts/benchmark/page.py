"""A page of docs/ whose figures are between two marks, and what its tables have in common."""
import statistics
import subprocess

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def write_measured(page, facts, *parts):
    """Replaces what is between the marks of the file `page`: a list of facts, then each part."""
    with open(page, encoding="utf-8") as file:
        text = file.read()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    measured = "\n\n".join(["\n".join(f"* {fact}" for fact in facts), *parts])
    with open(page, "w", encoding="utf-8") as file:
        file.write(f"{text[:begin]}\n{measured}\n{text[end:]}")


def first_line(*words):
    """Of what a command says of itself."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[0] if done.stdout or done.stderr else "?"


def median(runs, name):
    """Of one figure of several runs."""
    return statistics.median(getattr(one, name) for one in runs)


def spread(values, unit, digits=0):
    """"median (smallest-largest)", or the figure alone when there is one."""
    middle = f"{statistics.median(values):.{digits}f} {unit}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"
