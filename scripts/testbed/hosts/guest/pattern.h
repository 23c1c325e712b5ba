/* What the guest writes and where: pure functions of the workload and the number of the write, shared by the
 * writer in the guest (writer.c) and the checker on the host (check.c), so that every block of every write
 * can be recomputed. */
#ifndef PATTERN_H
#define PATTERN_H

#include <stdint.h>
#include <string.h>

enum { BLOCK_BYTES = 4096, DISKS_MAX = 8, RUN_BLOCKS_MAX = 256 };
enum mode { IDLE, SEQUENTIAL, RANDOM };

/* One workload. Write number n (the first is 1) goes to disk n % disks and covers `run` blocks. */
struct workload {
  enum mode mode;
  uint64_t seed;
  uint64_t run;
  uint64_t disks;
  uint64_t region[DISKS_MAX]; /* blocks of each disk that are written, a multiple of run */
};

/* The first bytes of every block. `tag_crc` is of the fields before it: a block whose tag is whole but whose
 * body is another write's is torn, one whose tag is not whole was never written by us or is torn in its first
 * bytes. */
struct tag {
  uint64_t magic;
  uint64_t sequence; /* number of the write; 0 is the prefill */
  uint64_t block;
  uint64_t disk;
  uint64_t seed;
  uint32_t body_crc;
  uint32_t tag_crc;
};
#define TAG_MAGIC 0x5353455449524644ULL /* "DFRITESS" on the disk */

static inline uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

static inline uint32_t crc32c(const void* data, size_t bytes) {
  static uint32_t table[256];
  if (!table[1]) {
    for (uint32_t i = 0; i < 256; i++) {
      uint32_t c = i;
      for (int k = 0; k < 8; k++) c = c & 1 ? 0x82f63b78U ^ (c >> 1) : c >> 1;
      table[i] = c;
    }
  }
  uint32_t crc = ~0U;
  for (const uint8_t* byte = data; bytes > 0; bytes--, byte++) crc = table[(crc ^ *byte) & 255] ^ (crc >> 8);
  return ~crc;
}

static inline uint64_t disk_of(const struct workload* load, uint64_t sequence) {
  return sequence % load->disks;
}

/* The first block of a write, on its disk. */
static inline uint64_t place_of(const struct workload* load, uint64_t sequence) {
  uint64_t slots = load->region[disk_of(load, sequence)] / load->run;
  if (load->mode == RANDOM) return mix(load->seed ^ sequence) % slots * load->run;
  return (sequence - 1) / load->disks % slots * load->run;
}

/* The body is cheap to make under emulation and cannot be compressed; its CRC is of its last word, which
 * depends on all that determines the body. */
static inline void fill_block(uint8_t* block, uint64_t seed, uint64_t sequence, uint64_t disk, uint64_t at) {
  struct tag tag = {TAG_MAGIC, sequence, at, disk, seed, 0, 0};
  uint64_t x = mix(mix(seed ^ (sequence << 20)) ^ (at << 2) ^ disk);
  for (size_t i = sizeof tag; i < BLOCK_BYTES; i += sizeof x) {
    x += 0x9e3779b97f4a7c15ULL;
    memcpy(block + i, &x, sizeof x);
  }
  tag.body_crc = crc32c(&x, sizeof x);
  tag.tag_crc = crc32c(&tag, sizeof tag - sizeof tag.tag_crc);
  memcpy(block, &tag, sizeof tag);
}

/* True when the first bytes of the block are a whole tag, which is then in `tag`. */
static inline int read_tag(const uint8_t* block, struct tag* tag) {
  memcpy(tag, block, sizeof *tag);
  return tag->magic == TAG_MAGIC && tag->tag_crc == crc32c(tag, sizeof *tag - sizeof tag->tag_crc);
}

/* True when the whole block is what its tag says. */
static inline int is_whole(const uint8_t* block, const struct tag* tag) {
  uint8_t expected[BLOCK_BYTES];
  fill_block(expected, tag->seed, tag->sequence, tag->disk, tag->block);
  return memcmp(block, expected, BLOCK_BYTES) == 0;
}

#endif
