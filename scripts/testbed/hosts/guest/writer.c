/* writer: the guest's only program. It writes numbered blocks to its disks and reports on the console, after
 * a write was completed by the disk and never before, which writes are done. Its orders are on the kernel's
 * command line:
 *
 *   wl.mode=idle|seq|rand   wl.disk=vda[,vdb...]  wl.rate=WRITES/S (0: as fast as it goes)   wl.run=BLOCKS of
 * each write wl.sync=0|1 (1: a write is complete when it is durable)   wl.seed=N   wl.start=NUMBER of the
 * first write wl.blocks=N of each disk (0: all)   wl.prefill=N blocks of each disk written before wl.verify=N
 * (reads 1 of N back) wl.dirty=KIB of memory rewritten each 10 ms   wl.ackms=N (milliseconds between reports,
 * at least) wl.times=0|1 (1: reports have the time of each write)
 *
 * Lines on the console: DISK, READY, PREFILLED, ACK FIRST LAST w=WORST_US t=US [l=US,US...], TICK N US
 * (idle), and what must never be seen: WERR (a write failed), RERR (a read failed), BAD (a read gave
 * something else than was written), FATAL. */
#define _GNU_SOURCE
#include "pattern.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { DIRTY_BYTES = 16 << 20, RATE_SLACK_US = 200000, TICK_US = 20000, NAME_BYTES = 16, TIMES_MAX = 32 };

struct options {
  char mode[NAME_BYTES];
  char disks[64];
  uint64_t rate, sync, start, blocks, prefill, verify, dirty, ack_ms, times;
};

struct disk {
  char name[NAME_BYTES];
  int fd;
  uint64_t bytes;
  uint64_t* newest; /* number of the newest completed write of each block */
};

static char command_line[4096];
static struct workload load;
static struct disk disks[DISKS_MAX];
static uint8_t* buffer;
static uint8_t* read_buffer;

static uint64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void fatal(const char* what) {
  printf("FATAL %s: %s\n", what, strerror(errno));
  for (;;) pause();
}

static void text_option(const char* key, const char* otherwise, char* into, size_t bytes) {
  const char* from = strstr(command_line, key);
  from = from ? from + strlen(key) : otherwise;
  size_t length = strcspn(from, " \n");
  if (length >= bytes) length = bytes - 1;
  memcpy(into, from, length);
  into[length] = 0;
}

static uint64_t number_option(const char* key, uint64_t otherwise) {
  char text[32];
  text_option(key, "", text, sizeof text);
  return text[0] ? strtoull(text, NULL, 0) : otherwise;
}

static struct options read_options(void) {
  struct options options;
  int fd = open("/proc/cmdline", O_RDONLY);
  if (fd < 0 || read(fd, command_line, sizeof command_line - 1) < 0) fatal("/proc/cmdline");
  close(fd);
  text_option("wl.mode=", "idle", options.mode, sizeof options.mode);
  text_option("wl.disk=", "vda", options.disks, sizeof options.disks);
  options.rate = number_option("wl.rate=", 100);
  options.sync = number_option("wl.sync=", 1);
  options.start = number_option("wl.start=", 1);
  options.blocks = number_option("wl.blocks=", 0);
  options.prefill = number_option("wl.prefill=", 0);
  options.verify = number_option("wl.verify=", 0);
  options.dirty = number_option("wl.dirty=", 0);
  options.ack_ms = number_option("wl.ackms=", 5);
  options.times = number_option("wl.times=", 0);
  load.mode = !strcmp(options.mode, "seq") ? SEQUENTIAL : !strcmp(options.mode, "rand") ? RANDOM : IDLE;
  load.seed = number_option("wl.seed=", 1);
  load.run = number_option("wl.run=", 1);
  if (load.run < 1 || load.run > RUN_BLOCKS_MAX) load.run = 1;
  return options;
}

static void open_disk(struct disk* disk, const struct options* options, uint64_t number) {
  char path[64];
  snprintf(path, sizeof path, "/dev/%s", disk->name);
  disk->fd = -1;
  for (int attempt = 0; attempt < 500 && disk->fd < 0; attempt++) {
    disk->fd = open(path, O_RDWR | O_DIRECT | (options->sync ? O_DSYNC : 0));
    if (disk->fd < 0) usleep(10000);
  }
  if (disk->fd < 0 || ioctl(disk->fd, BLKGETSIZE64, &disk->bytes) != 0) fatal(path);
  uint64_t region = disk->bytes / BLOCK_BYTES;
  if (options->blocks && options->blocks < region) region = options->blocks;
  region -= region % load.run;
  load.region[number] = region;
  disk->newest = calloc(region, sizeof *disk->newest);
  if (!region || !disk->newest) fatal("the region");
  printf("DISK %" PRIu64 " name=%s bytes=%" PRIu64 " region=%" PRIu64 "\n", number, disk->name, disk->bytes,
         region);
}

static void open_disks(struct options* options) {
  char* rest = options->disks;
  for (char* name; load.disks < DISKS_MAX && (name = strsep(&rest, ",")) != NULL; load.disks++) {
    struct disk* disk = &disks[load.disks];
    snprintf(disk->name, sizeof disk->name, "%s", name);
    open_disk(disk, options, load.disks);
  }
}

static void prefill(uint64_t blocks) {
  for (uint64_t d = 0; d < load.disks; d++) {
    uint64_t end = blocks < load.region[d] ? blocks : load.region[d];
    for (uint64_t at = 0, count; at < end; at += count) {
      count = end - at < RUN_BLOCKS_MAX ? end - at : RUN_BLOCKS_MAX;
      for (uint64_t i = 0; i < count; i++) fill_block(buffer + i * BLOCK_BYTES, load.seed, 0, d, at + i);
      size_t bytes = count * BLOCK_BYTES;
      if (pwrite(disks[d].fd, buffer, bytes, (off_t)(at * BLOCK_BYTES)) != (ssize_t)bytes) {
        fatal("prefill");
      }
    }
    printf("PREFILLED %" PRIu64 " %" PRIu64 " t=%" PRIu64 "\n", d, end, now_us());
  }
}

/* Rewrites memory, so that the migration of the guest's memory has something to do. */
static void* dirty_memory(void* argument) {
  uint64_t pages = (uint64_t)(uintptr_t)argument / 4;
  uint8_t* memory = malloc(DIRTY_BYTES);
  if (!memory) fatal("wl.dirty");
  memset(memory, 1, DIRTY_BYTES);
  for (uint64_t at = 0, number = 0;;) {
    for (uint64_t i = 0; i < pages; i++, at = (at + 4096) % DIRTY_BYTES) {
      uint64_t value = mix(++number);
      memcpy(memory + at, &value, sizeof value);
    }
    usleep(10000);
  }
  return NULL;
}

/* Reads one block that was written before and compares it with what must be there. */
static void verify(uint64_t sequence) {
  uint64_t chosen = 1 + mix(sequence) % sequence;
  uint64_t d = disk_of(&load, chosen);
  uint64_t at = place_of(&load, chosen);
  uint64_t want = disks[d].newest[at];
  if (!want) return;
  if (pread(disks[d].fd, read_buffer, BLOCK_BYTES, (off_t)(at * BLOCK_BYTES)) != BLOCK_BYTES) {
    printf("RERR disk=%" PRIu64 " block=%" PRIu64 " %s\n", d, at, strerror(errno));
    return;
  }
  struct tag tag;
  int whole = read_tag(read_buffer, &tag) && is_whole(read_buffer, &tag);
  if (!whole || tag.sequence != want || tag.block != at || tag.disk != d) {
    printf("BAD disk=%" PRIu64 " block=%" PRIu64 " want=%" PRIu64 " got=%" PRIu64 " whole=%d\n", d, at, want,
           tag.sequence, whole);
  }
}

/* What was completed and not yet reported. */
static struct {
  uint64_t first, worst_us, reported_us;
  uint64_t times_us[TIMES_MAX];
  size_t times; /* of those, how many are kept: 0 where they are not asked for */
} pending;

static void report(uint64_t last, uint64_t now) {
  if (pending.first <= last) {
    printf("ACK %" PRIu64 " %" PRIu64 " w=%" PRIu64 " t=%" PRIu64, pending.first, last, pending.worst_us,
           now);
    for (size_t i = 0; i < pending.times; i++) printf("%s%" PRIu64, i ? "," : " l=", pending.times_us[i]);
    printf("\n");
  }
  pending.times = 0;
  pending.first = last + 1;
  pending.worst_us = 0;
  pending.reported_us = now;
}

/* Writes number `sequence`; returns true when the disk completed it. */
static int write_once(uint64_t sequence, const struct options* options) {
  uint64_t d = disk_of(&load, sequence);
  uint64_t at = place_of(&load, sequence);
  for (uint64_t i = 0; i < load.run; i++)
    fill_block(buffer + i * BLOCK_BYTES, load.seed, sequence, d, at + i);
  size_t bytes = load.run * BLOCK_BYTES;
  uint64_t begin = now_us();
  ssize_t written = pwrite(disks[d].fd, buffer, bytes, (off_t)(at * BLOCK_BYTES));
  int error = errno;
  uint64_t end = now_us();
  if (end - begin > pending.worst_us) pending.worst_us = end - begin;
  if (options->times) pending.times_us[pending.times++] = end - begin;
  if (written != (ssize_t)bytes) {
    report(sequence - 1, end);
    printf("WERR %" PRIu64 " %s\n", sequence, written < 0 ? strerror(error) : "short");
    pending.first = sequence + 1;
    return 0;
  }
  for (uint64_t i = 0; i < load.run; i++) disks[d].newest[at + i] = sequence;
  return 1;
}

static void write_for_ever(const struct options* options) {
  uint64_t begin = now_us();
  uint64_t count = 0;
  pending.first = options->start;
  for (uint64_t sequence = options->start;; sequence++) {
    if (options->rate) {
      uint64_t due = begin + count * 1000000 / options->rate;
      uint64_t now = now_us();
      if (due > now) {
        if (due - now > 1000) report(sequence - 1, now); /* nothing comes for a while */
        now = now_us();
        if (due > now) usleep((useconds_t)(due - now));
      } else if (now > due + RATE_SLACK_US) { /* late by a stall: go on at the rate, do not catch up */
        begin = now;
        count = 0;
      }
    }
    count++;
    if (!write_once(sequence, options)) {
      usleep(100000);
      continue;
    }
    uint64_t now = now_us();
    if (now - pending.reported_us >= options->ack_ms * 1000 || pending.times == TIMES_MAX)
      report(sequence, now);
    if (options->verify && sequence % options->verify == 0) verify(sequence);
  }
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 512);
  struct options options = read_options();
  open_disks(&options);
  if (posix_memalign((void**)&buffer, BLOCK_BYTES, BLOCK_BYTES * RUN_BLOCKS_MAX) ||
      posix_memalign((void**)&read_buffer, BLOCK_BYTES, BLOCK_BYTES)) {
    fatal("memory");
  }
  printf("READY mode=%s disks=%" PRIu64 " run=%" PRIu64 " seed=%" PRIu64 " start=%" PRIu64 " rate=%" PRIu64
         " sync=%" PRIu64 " t=%" PRIu64 "\n",
         options.mode, load.disks, load.run, load.seed, options.start, options.rate, options.sync, now_us());
  if (options.dirty) {
    pthread_t thread;
    pthread_create(&thread, NULL, dirty_memory, (void*)(uintptr_t)options.dirty);
  }
  if (options.prefill) prefill(options.prefill);
  for (uint64_t tick = 1; load.mode == IDLE; tick++) {
    usleep(TICK_US);
    printf("TICK %" PRIu64 " %" PRIu64 "\n", tick, now_us());
  }
  write_for_ever(&options);
}
