"""Plants faults in images and expects the checker (scripts/testbed/hosts/guest/check.c) to name them.

Usage: check_test.py HOSTS CACHE. The pattern is written down a second time here: what writer and checker share could be
wrong in both in the same way.
"""

import pathlib
import struct
import sys
import tempfile
import unittest

HOSTS, CACHE = (pathlib.Path(word) for word in sys.argv[1:3])
sys.path[:0] = [str(HOSTS), str(HOSTS.parent)]

import guest  # noqa: E402
import guest_image  # noqa: E402
from report import Failed  # noqa: E402

BLOCK = 4096
MASK = (1 << 64) - 1
SEED = 7
REGION = 64
TAG = struct.Struct("<QQQQQI")
MAGIC = 0x5353455449524644


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def block_of(sequence, at, disk=0, seed=SEED):
    x = mix(mix(seed ^ ((sequence << 20) & MASK)) ^ (at << 2) ^ disk)
    words = []
    for _ in range((BLOCK - TAG.size - 4) // 8):
        x = (x + 0x9E3779B97F4A7C15) & MASK
        words.append(x)
    tag = TAG.pack(MAGIC, sequence, at, disk, seed, crc32c(struct.pack("<Q", x)))
    return tag + struct.pack("<I", crc32c(tag)) + struct.pack(f"<{len(words)}Q", *words)


class Workload:
    """An image and a log as a guest that was not disturbed leaves them; tests damage one or the other."""

    def __init__(self, mode="rand", writes=100, run=1, disks=1):
        self.mode, self.run, self.disks = mode, run, disks
        self.images = [bytearray(REGION * BLOCK) for _ in range(disks)]
        self.log = [f"DISK {disk} name=vd{'abcd'[disk]} bytes={REGION * BLOCK} region={REGION}" for disk in range(disks)]
        self.log.append(f"READY mode={mode} disks={disks} run={run} seed={SEED} start=1 rate=0 sync=1 t=0")
        self.newest = {}
        for sequence in range(1, writes + 1):
            self.write(sequence)
        self.log += [f"ACK {first} {min(first + 9, writes)} w=1 t=1" for first in range(1, writes + 1, 10)]

    def place(self, sequence):
        slots = REGION // self.run
        if self.mode == "rand":
            return mix(SEED ^ sequence) % slots * self.run
        return (sequence - 1) // self.disks % slots * self.run

    def write(self, sequence):
        disk, at = sequence % self.disks, self.place(sequence)
        for i in range(self.run):
            self.put(disk, at + i, block_of(sequence, at + i, disk))
            self.newest[(disk, at + i)] = sequence

    def put(self, disk, at, data):
        self.images[disk][at * BLOCK:at * BLOCK + len(data)] = data

    def get(self, at, disk=0):
        return bytes(self.images[disk][at * BLOCK:(at + 1) * BLOCK])

    def written(self):
        """A block of disk 0 that was written, and one that was not."""
        blocks = {at for disk, at in self.newest if disk == 0}
        return max(blocks), min(set(range(REGION)) - blocks, default=None)


class CheckTest(unittest.TestCase):
    def check(self, load, disk=0, before=None):
        with tempfile.TemporaryDirectory() as folder:
            image, log, old = (pathlib.Path(folder) / name for name in ("image", "log", "before"))
            image.write_bytes(load.images[disk])
            log.write_text("".join(f"1000 1 {line}\n" for line in load.log), encoding="utf-8")
            if before is not None:
                old.write_bytes(before)
            return guest.check_image(guest_image.build_check(CACHE), image, log, disk, old if before is not None else None)

    def expect(self, load, *words, **options):
        with self.assertRaises(Failed) as caught:
            self.check(load, **options)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_whatever_the_workload_what_was_written_is_found(self):
        for name, options in {"random": {}, "sequential": {"mode": "seq"}, "sequential twice around": {"mode": "seq", "writes": 150},
                              "runs": {"run": 8, "writes": 20}, "two disks": {"disks": 2}, "one write": {"writes": 1}}.items():
            with self.subTest(name):
                load = Workload(**options)
                for disk in range(load.disks):
                    counted = self.check(load, disk)
                    self.assertEqual(counted["blocks"], len([1 for d, _ in load.newest if d == disk]))
                    self.assertEqual(counted["acknowledged"], options.get("writes", 100))

    def test_writes_that_were_not_reported_may_be_there_or_not(self):
        load = Workload()
        load.write(101)
        self.check(load)

    def test_a_block_of_zeros_is_a_lost_write(self):
        load = Workload()
        at, _ = load.written()
        load.put(0, at, bytes(BLOCK))
        self.expect(load, f"block {at}: lost", "lost=1 torn=0 wrong=0")

    def test_an_older_write_is_a_lost_write(self):
        load = Workload(mode="seq", writes=100)  # blocks 0 to 35 were written twice
        load.put(0, 3, block_of(4, 3))
        self.expect(load, "block 3: lost: holds write 4, 68 was acknowledged")

    def test_a_block_half_old_and_half_new_is_torn(self):
        for half in (512, 2048, 4088):
            load = Workload(mode="seq", writes=100)
            load.put(0, 3, load.get(3)[:half] + block_of(4, 3)[half:])
            self.expect(load, "block 3: torn: write 68", "torn=1")
            load.put(0, 3, block_of(4, 3)[:half] + block_of(68, 3)[half:])
            self.expect(load, "block 3: torn: write 4", "torn=1")

    def test_a_flipped_bit_anywhere_is_seen(self):
        for offset in (0, 9, 20, 47, 48, 100, 4095):
            load = Workload()
            at, _ = load.written()
            load.images[0][at * BLOCK + offset] ^= 4
            self.expect(load, f"block {at}: ")

    def test_a_write_in_another_place_is_wrong(self):
        load = Workload(writes=30)
        at, free = load.written()
        load.put(0, free, load.get(at))
        self.expect(load, f"block {free}: wrong: write {load.newest[(0, at)]} belongs to block {at}", "wrong=1")

    def test_a_tag_that_claims_the_wrong_place_is_wrong(self):
        load = Workload(writes=30)
        _, free = load.written()
        load.put(0, free, block_of(5, free))
        self.expect(load, f"block {free}: wrong", "wrong=1")

    def test_a_write_of_the_other_disk_is_wrong(self):
        load = Workload(disks=2)
        at, _ = load.written()
        load.put(0, at, block_of(load.newest[(0, at)], at, disk=1))
        self.expect(load, f"block {at}: wrong")

    def test_exchanged_disks_are_seen(self):
        load = Workload(disks=2)
        load.images.reverse()
        self.expect(load, "wrong=")

    def test_foreign_data_is_wrong(self):
        load = Workload()
        at, _ = load.written()
        load.put(0, at, b"foreign " * 512)
        self.expect(load, f"block {at}: wrong: holds no write of the guest")

    def test_a_write_from_the_future_is_seen(self):
        load = Workload()
        load.write(100000)
        self.expect(load, "future: write 100000, the last is 100")

    def test_what_the_guest_did_not_write_must_be_as_it_was(self):
        load = Workload(writes=30)
        before = b"before! " * (REGION * BLOCK // 8)
        written, free = load.written()
        for at in range(REGION):
            if (0, at) not in load.newest:
                load.put(0, at, before[:BLOCK])
        self.check(load, before=before)
        load.images[0][free * BLOCK + 17] ^= 1
        self.expect(load, f"block {free}: changed", "changed=1", before=before)
        load.images[0][free * BLOCK + 17] ^= 1
        load.put(0, written, before[:BLOCK])
        self.expect(load, f"block {written}: lost", before=before)

    def test_a_prefilled_block_must_be_there(self):
        load = Workload(writes=5)
        load.log.insert(2, f"PREFILLED 0 {REGION} t=1")
        for at in range(REGION):
            if (0, at) not in load.newest:
                load.put(0, at, block_of(0, at))
        self.check(load)
        _, free = load.written()
        load.put(0, free, bytes(BLOCK))
        self.expect(load, f"block {free}: lost")

    def test_a_guest_that_runs_twice_is_seen(self):
        load = Workload()
        load.log.append("ACK 95 102 w=1 t=1")
        self.expect(load, "writes 95 to 102 are acknowledged after 100 was", "again=1")

    def test_what_the_guest_itself_found_counts(self):
        for line, word in (("BAD disk=0 block=1 want=2 got=1 whole=1", "bad=1"), ("RERR disk=0 block=1 EIO", "bad=1"),
                           ("WERR 55 Input/output error", "failed=1")):
            load = Workload()
            load.log.append(line)
            self.expect(load, line, word)

    def test_another_seed_is_another_workload(self):
        load = Workload()
        load.log.append(load.log[0])
        load.log.append(load.log[1].replace(f"seed={SEED}", "seed=8"))
        load.log.append("ACK 1 1 w=1 t=1")
        at = mix(8 ^ 1) % REGION
        self.expect(load, f"block {at}: ")
        load.put(0, at, block_of(1, at, seed=8))
        self.assertEqual(self.check(load)["blocks"], 1)

    def test_a_short_image_lost_its_end(self):
        load = Workload(mode="seq", writes=REGION)
        del load.images[0][-BLOCK:]
        self.expect(load, f"block {REGION - 1}: lost")

    def test_a_log_without_a_guest_is_no_success(self):
        load = Workload()
        load.log = ["ACK 1 100 w=1 t=1"]
        self.expect(load, "no READY line")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
