/* The demo's guest workload: writes numbered 4 KiB blocks to a partition, for ever, and says on the console
 * how far the disk has acknowledged them. Static; run by init.sh inside the guest.
 *
 *   writer DEVICE WRITES_PER_SECOND
 *
 * Write number n goes to block mix(n) % blocks, so that a checker that knows the last acknowledged number
 * knows what every block must hold. The device is opened with O_DIRECT | O_DSYNC: a write that returned is
 * durable as far as the guest can tell. "ACKED n us" means: writes 1..n have returned. It is cumulative, so a
 * line that is lost on the console loses nothing. Now and then a block is read back and compared; a
 * difference is a "BADREAD" line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, VERIFY_EVERY = 8, SAY_EVERY_US = 10000 };
static const char MAGIC[8] = "DFTAGGED";

struct tag {
  char magic[8];
  uint64_t number;
  uint64_t block;
  uint32_t crc; /* CRC-32 of the whole block with this field zero */
  uint32_t reserved;
};

static uint32_t crc_table[256];
static void crc_prepare(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; bit++) c = (c & 1) ? 0xedb88320u ^ (c >> 1) : c >> 1;
    crc_table[i] = c;
  }
}
static uint32_t crc_of(const unsigned char* bytes, size_t length) {
  uint32_t c = 0xffffffffu;
  while (length--) c = crc_table[(c ^ *bytes++) & 255] ^ (c >> 8);
  return ~c;
}

/* SplitMix64's output function: spreads consecutive numbers over the disk. */
static uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

static void fill(unsigned char* into, uint64_t number, uint64_t block) {
  uint64_t* words = (uint64_t*)into;
  uint64_t state = number;
  for (size_t i = 0; i < BLOCK / 8; i++)
    words[i] = state = state * 6364136223846793005ull + 1442695040888963407ull;
  struct tag* tag = (struct tag*)into;
  memcpy(tag->magic, MAGIC, sizeof MAGIC);
  tag->number = number;
  tag->block = block;
  tag->crc = 0;
  tag->reserved = 0;
  tag->crc = crc_of(into, BLOCK);
}

static uint64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

int main(int count, char** arguments) {
  if (count != 3) return 2;
  const uint64_t per_second = strtoull(arguments[2], NULL, 10);
  setvbuf(stdout, NULL, _IOLBF, 0);
  crc_prepare();
  const int disk = open(arguments[1], O_RDWR | O_DIRECT | O_DSYNC);
  if (disk < 0) return printf("WRITER cannot open %s: %s\n", arguments[1], strerror(errno)), 1;
  uint64_t bytes = 0;
  if (ioctl(disk, BLKGETSIZE64, &bytes) != 0) return printf("WRITER cannot ask the size\n"), 1;
  const uint64_t blocks = bytes / BLOCK;
  uint64_t* newest = calloc(blocks, sizeof *newest);
  unsigned char *out, *in;
  if (!newest || posix_memalign((void**)&out, BLOCK, BLOCK) || posix_memalign((void**)&in, BLOCK, BLOCK))
    return 1;
  printf("WRITER blocks=%llu\n", (unsigned long long)blocks);

  uint64_t said = now_us(), due = said;
  for (uint64_t number = 1;; number++) {
    const uint64_t block = mix(number) % blocks;
    fill(out, number, block);
    if (pwrite(disk, out, BLOCK, (off_t)(block * BLOCK)) != BLOCK) {
      printf("WRITEERROR %llu %s\n", (unsigned long long)number, strerror(errno));
      for (;;) pause(); /* what follows would not be what the checker expects */
    }
    newest[block] = number;
    if (number % VERIFY_EVERY == 0) {
      const uint64_t other = mix(1 + mix(number) % number) % blocks;
      const struct tag* tag = (const struct tag*)in;
      if (pread(disk, in, BLOCK, (off_t)(other * BLOCK)) != BLOCK) {
        printf("BADREAD block %llu: %s\n", (unsigned long long)other, strerror(errno));
      } else {
        fill(out, newest[other], other);
        if (memcmp(in, out, BLOCK) != 0)
          printf("BADREAD block %llu: has %llu, wrote %llu\n", (unsigned long long)other,
                 (unsigned long long)tag->number, (unsigned long long)newest[other]);
      }
    }
    const uint64_t now = now_us();
    if (now - said >= SAY_EVERY_US) {
      printf("ACKED %llu %llu\n", (unsigned long long)number, (unsigned long long)now);
      said = now;
    }
    due += 1000000u / per_second;
    if (due > now)
      usleep((useconds_t)(due - now));
    else if (now - due > 200000)
      due = now; /* after a stall go on at the same rate, do not catch up */
  }
}
