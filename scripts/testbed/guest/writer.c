/* Runs inside the guest: writes tagged blocks to /dev/vda all the time and says on the console which ones the disk
 * has acknowledged (O_DIRECT and O_DSYNC: acknowledged means durable). Settings on the kernel's command line:
 *   writer.rate=N    writes a second (default 300)
 *   writer.seed=N    where and what is written (default 1)
 *   writer.verify=N  reads back one of N writes and compares (default 4) */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "block.h"

static uint64_t microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t setting(const char *name, uint64_t otherwise) {
  static char line[4096];
  if (!line[0]) {
    int file = open("/proc/cmdline", O_RDONLY);
    if (file < 0 || read(file, line, sizeof line - 1) <= 0) return otherwise;
    close(file);
  }
  char *found = strstr(line, name);
  return found ? strtoull(found + strlen(name), NULL, 0) : otherwise;
}

static void say_acknowledged(uint64_t first, uint64_t last, uint64_t worst_us) {
  printf("ACK %llu %llu worst_us=%llu\n", (unsigned long long)first, (unsigned long long)last,
         (unsigned long long)worst_us);
  fflush(stdout);
}

int main(void) {
  uint64_t rate = setting("writer.rate=", 300), seed = setting("writer.seed=", 1), verify = setting("writer.verify=", 4);
  int disk = -1;
  for (int tries = 0; tries < 500 && disk < 0; tries++) {
    disk = open("/dev/vda", O_RDWR | O_DIRECT | O_DSYNC);
    if (disk < 0) usleep(10000);
  }
  uint64_t bytes = 0;
  if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes) != 0) {
    printf("FATAL /dev/vda: %s\n", strerror(errno));
    return 1;
  }
  const uint64_t blocks = bytes / BLOCK_BYTES;
  uint64_t *newest = calloc(blocks, sizeof *newest), *out, *back;
  if (!newest || posix_memalign((void **)&out, BLOCK_BYTES, BLOCK_BYTES) ||
      posix_memalign((void **)&back, BLOCK_BYTES, BLOCK_BYTES))
    return 1;
  printf("READY blocks=%llu seed=%llu rate=%llu\n", (unsigned long long)blocks, (unsigned long long)seed,
         (unsigned long long)rate);
  fflush(stdout);
  uint64_t first = 1, worst = 0, said = 0, due = microseconds();
  for (uint64_t sequence = 1;; sequence++) {
    const uint64_t now = microseconds();
    if (rate) {
      due += 1000000 / rate;
      if (now > due + 200000) due = now; /* after a pause: no burst to catch up */
      if (due > now) usleep((useconds_t)(due - now));
    }
    const uint64_t block = block_of(seed, sequence, blocks);
    fill_block(out, seed, sequence, block);
    const uint64_t began = microseconds();
    if (pwrite(disk, out, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) != BLOCK_BYTES) {
      if (first < sequence) say_acknowledged(first, sequence - 1, worst);
      printf("WERR %llu %s\n", (unsigned long long)sequence, strerror(errno));
      fflush(stdout);
      first = sequence + 1;
      continue;
    }
    const uint64_t ended = microseconds();
    newest[block] = sequence;
    if (ended - began > worst) worst = ended - began;
    if (ended - said >= 5000) {
      say_acknowledged(first, sequence, worst);
      first = sequence + 1;
      worst = 0;
      said = ended;
    }
    if (verify && sequence % verify == 0) {
      const uint64_t other = block_of(seed, 1 + mix(sequence) % sequence, blocks);
      if (!newest[other]) continue;
      if (pread(disk, back, BLOCK_BYTES, (off_t)(other * BLOCK_BYTES)) != BLOCK_BYTES ||
          !is_whole_block(back, seed, other) || ((struct block_tag *)back)->sequence != newest[other]) {
        printf("BAD block=%llu want=%llu\n", (unsigned long long)other, (unsigned long long)newest[other]);
        fflush(stdout);
      }
    }
  }
}
