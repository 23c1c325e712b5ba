"""Checks that every #include between rooms points down, along the table of layers in docs/ARCHITECTURE.md.

CMake checks the same arrows between targets (cmake/Room.cmake); this one also sees a header that is reached
without linking its room.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Layers are read from the document, so that it cannot go stale: rows "| 3 | `gateway/nbd`, `gateway/copy` | ..."
ROW = re.compile(r"^\|\s*(\d+)\s*\|([^|]*)\|")
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')


def read_layers():
    layers = {}
    for line in (ROOT / "docs/ARCHITECTURE.md").read_text().splitlines():
        if row := ROW.match(line):
            for folder in re.findall(r"`([^`]+)`", row.group(2)):
                layers[folder.removesuffix("*").rstrip("/")] = int(row.group(1))
    return layers


def room_of(path, layers):
    """The longest folder of the table that holds the path."""
    rooms = [room for room in layers if path == room or path.startswith(room + "/")]
    return max(rooms, key=len, default=None)


def main():
    layers = read_layers()
    if not layers:
        print("no table of layers in docs/ARCHITECTURE.md")
        return 1
    files = subprocess.run(["git", "ls-files", "*.cpp", "*.hpp"], cwd=ROOT, capture_output=True, text=True, check=True)
    problems = []
    arrows = 0
    for name in files.stdout.split():
        if name.startswith("tests/"):
            continue  # tests may use everything
        room = room_of(name, layers)
        if room is None:
            problems.append(f"{name}: lies in no room of docs/ARCHITECTURE.md")
            continue
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
            found = INCLUDE.match(line)
            if not found:
                continue
            target = found.group(1)
            target = "include/" + target if target.startswith("diskferry/") else target
            arrows += 1
            if target.startswith("tests/"):
                problems.append(f"{name}:{number}: includes {target}, but nothing uses tests")
                continue
            used = room_of(target, layers)
            if used is None:
                problems.append(f"{name}:{number}: {target} lies in no room")
            elif used != room and layers[used] >= layers[room]:
                problems.append(
                    f"{name}:{number}: {room} (layer {layers[room]}) includes {target} (layer {layers[used]}): "
                    "arrows point down only")
            if not (ROOT / target).is_file():
                problems.append(f"{name}:{number}: {target} is not there; include by path from the root")
    for problem in problems:
        print(problem)
    print(f"{arrows} includes between our own files, {len(problems)} wrong")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
