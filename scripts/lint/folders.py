"""Checks that a reader finds the way: a README in each folder of sources, files that are not too long."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINES_MAX = 600  # docs/STYLE.md, "Sizes"; tables of test cases excepted
LINES_TO_THINK = 400
SOURCES = {".cpp", ".hpp", ".c", ".py"}
FORBIDDEN_PARTS = ("/usr/local/google", "<<<<<<< ", ">>>>>>> ")


def main():
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    files = [pathlib.PurePosixPath(name) for name in names if name]
    problems = []
    long_files = []
    folders = {file.parent for file in files if file.suffix in SOURCES}
    for folder in sorted(folders):
        # tests mirror the tree: the README of the kind of test speaks for its folders.
        candidates = [folder, *folder.parents] if folder.parts[:1] == ("tests",) else [folder]
        candidates = [one for one in candidates if str(one) not in (".", "tests")]
        if not any((ROOT / one / "README.md").is_file() for one in candidates):
            problems.append(f"{folder}/: no README.md")
    for file in files:
        if file.suffix not in SOURCES:
            continue
        text = (ROOT / file).read_text()
        lines = text.count("\n")
        if lines > LINES_MAX and "tests" not in file.parts:
            problems.append(f"{file}: {lines} lines, split at {LINES_MAX}")
        elif lines > LINES_TO_THINK:
            long_files.append((lines, file))
        for part in FORBIDDEN_PARTS:
            if part in text and file.name != "folders.py":
                problems.append(f"{file}: contains {part!r}")
    for lines, file in sorted(long_files, reverse=True):
        print(f"note: {file} has {lines} lines")
    for problem in problems:
        print(problem)
    print(f"{len(folders)} folders, {len(files)} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
