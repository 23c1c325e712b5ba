"""Checks what the guest's writer (guest/writer.c) left on the disk against what it said was acknowledged."""

import re
import struct
import zlib

BLOCK = 4096
TAG = struct.Struct("<8sQQII")
MAGIC = b"DFTAGGED"
MASK = (1 << 64) - 1
ACKED = re.compile(r"^ACKED (\d+) (\d+)$")
# Writes may have reached the disk that the console did not report any more: one at a time, every 10 ms a line.
UNREPORTED_MAX = 1000


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def acknowledgements(lines):
    """[(host time, connection, last acknowledged number)]"""
    found = []
    for time, connection, text in lines:
        if match := ACKED.match(text):
            found.append((time, connection, int(match.group(1))))
    return found


def longest_gap_ms(acks, since=0.0, until=float("inf")):
    times = [time for time, _, _ in acks if since <= time <= until]
    return max(((b - a) * 1000 for a, b in zip(times, times[1:])), default=0.0)


def check(image, at, length, acked):
    """Returns (blocks that were checked, [what is wrong])."""
    blocks = length // BLOCK
    newest = {}
    for number in range(1, acked + 1):
        newest[mix(number) % blocks] = number
    problems = []
    with open(image, "rb") as disk:
        for block in range(blocks):
            disk.seek(at + block * BLOCK)
            data = disk.read(BLOCK)
            expected = newest.get(block, 0)
            problem = problem_of(data, block, blocks, expected, acked)
            if problem:
                problems.append(f"block {block}: {problem}")
    return len(newest), problems


def problem_of(data, block, blocks, expected, acked):
    if len(data) != BLOCK:
        return "the image ends here"
    if not any(data):
        return f"lost: holds zeros, write {expected} was acknowledged" if expected else None
    magic, number, where, crc, _ = TAG.unpack_from(data)
    if magic != MAGIC:
        return "holds something that the guest never wrote"
    if zlib.crc32(data[:24] + bytes(4) + data[28:]) != crc:
        return f"torn: write {number} is not whole"
    if where != block or mix(number) % blocks != block:
        return f"misplaced: write {number} belongs to block {where}"
    if number < expected:
        return f"lost: holds write {number}, write {expected} was acknowledged"
    if number > acked + UNREPORTED_MAX:
        return f"holds write {number}, the last acknowledged is {acked}"
    return None
