/* The tagged block that the guest writes and the host checks. Block number and content follow from the seed and the
 * sequence number alone, so that the checker can tell where write N went and what it must look like. */
#ifndef DISKFERRY_TESTBED_BLOCK_H
#define DISKFERRY_TESTBED_BLOCK_H
#include <stdint.h>
#include <string.h>

enum { BLOCK_BYTES = 4096, BLOCK_WORDS = BLOCK_BYTES / 8 };
static const uint64_t BLOCK_MAGIC = 0x64736b6665727279ULL; /* "dskferry" */

struct block_tag {
  uint64_t magic, sequence, block, seed, check;
};

static inline uint64_t mix(uint64_t x) { /* splitmix64 */
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

/* The block that write `sequence` goes to. */
static inline uint64_t block_of(uint64_t seed, uint64_t sequence, uint64_t blocks) {
  return mix(seed ^ sequence) % blocks;
}

static inline void fill_block(uint64_t *words, uint64_t seed, uint64_t sequence, uint64_t block) {
  uint64_t x = mix(seed ^ sequence * 0x10001 ^ block), sum = 0;
  for (unsigned i = sizeof(struct block_tag) / 8; i < BLOCK_WORDS; i++) sum ^= mix(words[i] = x += 0x9e3779b97f4a7c15ULL);
  struct block_tag tag = {BLOCK_MAGIC, sequence, block, seed, sum};
  memcpy(words, &tag, sizeof tag);
}

/* 1 when the block holds one whole write that belongs where it is. */
static inline int is_whole_block(const uint64_t *words, uint64_t seed, uint64_t block) {
  struct block_tag tag;
  uint64_t want[BLOCK_WORDS];
  memcpy(&tag, words, sizeof tag);
  if (tag.magic != BLOCK_MAGIC || tag.seed != seed || tag.block != block) return 0;
  fill_block(want, seed, tag.sequence, block);
  return memcmp(words, want, BLOCK_BYTES) == 0;
}
#endif
