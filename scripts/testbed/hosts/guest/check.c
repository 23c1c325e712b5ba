/* check DISK IMAGE LOG [BEFORE]: looks in a raw image of the guest's disk number DISK for every write that
 * the console's log says was acknowledged. Ends with 0 when all is well, 1 when something is not, 2 when
 * there is nothing to compare.
 *
 * lost: the block holds an older write than the newest acknowledged one, or nothing. torn: a write that is
 * not whole. wrong: a write that belongs somewhere else, or something the guest never wrote where it did
 * write. future: a write that cannot have been made yet. changed (with BEFORE, a raw image from before the
 * guest started): a block that the guest did not write differs. again: numbers acknowledged twice, which is a
 * guest that ran in two places or went back in time. bad and failed: what the guest itself found (BAD, RERR;
 * WERR). */
#define _GNU_SOURCE
#include "pattern.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
  CHUNK_BLOCKS = 256,
  SHOWN_MAX = 4,              /* of each kind of problem */
  UNREPORTED_MAX = 4096,      /* writes on the disk whose report did not reach the log */
  ACKNOWLEDGED_MAX = 1000000, /* in one line; more is a damaged line */
};

enum kind { LOST, TORN, WRONG, FUTURE, CHANGED, AGAIN, BAD, FAILED, KINDS };
static const char* const kind_names[KINDS] = {"lost",    "torn",  "wrong", "future",
                                              "changed", "again", "bad",   "failed"};
static uint64_t found[KINDS];

struct log {
  struct workload load;
  uint64_t disk;
  uint64_t* want;     /* newest acknowledged write of each block of the disk, 0 for none */
  uint64_t prefilled; /* blocks of the disk */
  uint64_t acknowledged, newest;
};

static int shown(enum kind kind) {
  return found[kind]++ < SHOWN_MAX;
}

static void begin_workload(struct log* log, const struct workload* load) {
  if (log->want && memcmp(&log->load, load, sizeof *load) == 0) return; /* it goes on where it was */
  log->load = *load;
  free(log->want);
  log->want = calloc(load->region[log->disk] + 1, sizeof *log->want);
  if (!log->want) abort();
  log->prefilled = log->acknowledged = log->newest = 0;
}

static void acknowledge(struct log* log, uint64_t first, uint64_t last) {
  if (last < first || last - first >= ACKNOWLEDGED_MAX) return;
  if (first <= log->newest && shown(AGAIN)) {
    printf("writes %" PRIu64 " to %" PRIu64 " are acknowledged after %" PRIu64 " was\n", first, last,
           log->newest);
  }
  for (uint64_t sequence = first; sequence <= last; sequence++) {
    log->acknowledged++;
    if (disk_of(&log->load, sequence) != log->disk) continue;
    uint64_t at = place_of(&log->load, sequence);
    for (uint64_t i = 0; i < log->load.run; i++) {
      if (log->want[at + i] < sequence) log->want[at + i] = sequence;
    }
  }
  if (last > log->newest) log->newest = last;
}

/* One line of the console; `next` collects the workload that READY completes. */
static void read_line(struct log* log, struct workload* next, const char* line) {
  uint64_t a = 0, b = 0;
  char mode[16];
  if (sscanf(line, "DISK %" SCNu64 " name=%*s bytes=%*u region=%" SCNu64, &a, &b) == 2 && a < DISKS_MAX) {
    next->region[a] = b;
  } else if (sscanf(line, "READY mode=%15s disks=%" SCNu64 " run=%" SCNu64 " seed=%" SCNu64, mode,
                    &next->disks, &next->run, &next->seed) == 4) {
    next->mode = !strcmp(mode, "seq") ? SEQUENTIAL : !strcmp(mode, "rand") ? RANDOM : IDLE;
    if (log->disk < next->disks && next->disks <= DISKS_MAX && next->run) begin_workload(log, next);
  } else if (log->want && sscanf(line, "ACK %" SCNu64 " %" SCNu64 " w=", &a, &b) == 2) {
    acknowledge(log, a, b);
  } else if (log->want && sscanf(line, "PREFILLED %" SCNu64 " %" SCNu64, &a, &b) == 2 && a == log->disk) {
    log->prefilled = b <= log->load.region[a] ? b : log->load.region[a];
  } else if (!strncmp(line, "WERR ", 5)) {
    if (shown(FAILED)) printf("the guest says: %s", line);
  } else if (!strncmp(line, "BAD ", 4) || !strncmp(line, "RERR ", 5) || !strncmp(line, "FATAL ", 6)) {
    if (shown(BAD)) printf("the guest says: %s", line);
  }
}

static void read_log(struct log* log, const char* path) {
  FILE* file = fopen(path, "r");
  if (!file) {
    perror(path);
    exit(2);
  }
  struct workload next;
  memset(&next, 0, sizeof next);
  for (char line[512]; fgets(line, sizeof line, file);) {
    int text = 0; /* each line is TIME CONNECTION TEXT */
    if (sscanf(line, "%*u %*u %n", &text) == 0 && text > 0) read_line(log, &next, line + text);
  }
  fclose(file);
}

static int is_zero(const uint8_t* block) {
  return block[0] == 0 && memcmp(block, block + 1, BLOCK_BYTES - 1) == 0;
}

/* A block without a whole tag of this workload. */
static void check_untagged(const struct log* log, uint64_t at, const uint8_t* block, const uint8_t* before) {
  uint64_t want = log->want[at];
  if (want || at < log->prefilled) {
    if (is_zero(block) || (before && !memcmp(block, before, BLOCK_BYTES))) {
      if (shown(LOST)) printf("block %" PRIu64 ": lost: write %" PRIu64 " never arrived\n", at, want);
    } else if (shown(WRONG)) {
      printf("block %" PRIu64 ": wrong: holds no write of the guest, %" PRIu64 " was acknowledged\n", at,
             want);
    }
  } else if (before && memcmp(block, before, BLOCK_BYTES) != 0 && shown(CHANGED)) {
    printf("block %" PRIu64 ": changed: the guest never wrote it\n", at);
  }
}

static void check_block(const struct log* log, uint64_t at, const uint8_t* block, const uint8_t* before) {
  struct tag tag;
  if (!read_tag(block, &tag) || (tag.seed != log->load.seed && !log->want[at])) {
    check_untagged(log, at, block, before);
    return;
  }
  uint64_t want = log->want[at];
  int is_here = tag.seed == log->load.seed && tag.disk == log->disk && tag.block == at;
  if (is_here && tag.sequence) {
    uint64_t place = place_of(&log->load, tag.sequence);
    is_here = disk_of(&log->load, tag.sequence) == log->disk && place <= at && at < place + log->load.run;
  }
  if (!is_here) {
    if (shown(WRONG)) {
      printf("block %" PRIu64 ": wrong: write %" PRIu64 " belongs to block %" PRIu64 " of disk %" PRIu64 "\n",
             at, tag.sequence, tag.block, tag.disk);
    }
  } else if (!is_whole(block, &tag)) {
    if (shown(TORN)) printf("block %" PRIu64 ": torn: write %" PRIu64 " is not whole\n", at, tag.sequence);
  } else if (tag.sequence < want) {
    if (shown(LOST)) {
      printf("block %" PRIu64 ": lost: holds write %" PRIu64 ", %" PRIu64 " was acknowledged\n", at,
             tag.sequence, want);
    }
  } else if (tag.sequence > log->newest + UNREPORTED_MAX) {
    if (shown(FUTURE)) {
      printf("block %" PRIu64 ": future: write %" PRIu64 ", the last is %" PRIu64 "\n", at, tag.sequence,
             log->newest);
    }
  }
}

static int open_image(const char* path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    perror(path);
    exit(2);
  }
  return fd;
}

/* What is behind the end of an image reads as zeros: it is compared like everything else. */
static void read_blocks(int fd, uint8_t* into, uint64_t at) {
  memset(into, 0, (size_t)CHUNK_BLOCKS * BLOCK_BYTES);
  if (pread(fd, into, (size_t)CHUNK_BLOCKS * BLOCK_BYTES, (off_t)(at * BLOCK_BYTES)) < 0) {
    perror("reading an image");
    exit(2);
  }
}

static uint64_t check_image(const struct log* log, int image, int before) {
  static uint8_t now_data[CHUNK_BLOCKS * BLOCK_BYTES];
  static uint8_t before_data[CHUNK_BLOCKS * BLOCK_BYTES];
  uint64_t checked = 0;
  uint64_t region = log->load.region[log->disk];
  for (uint64_t chunk = 0; chunk < region; chunk += CHUNK_BLOCKS) {
    read_blocks(image, now_data, chunk);
    if (before >= 0) read_blocks(before, before_data, chunk);
    for (uint64_t i = 0; i < CHUNK_BLOCKS && chunk + i < region; i++) {
      size_t offset = i * BLOCK_BYTES;
      checked += log->want[chunk + i] != 0;
      check_block(log, chunk + i, now_data + offset, before >= 0 ? before_data + offset : NULL);
    }
  }
  return checked;
}

int main(int count, char** words) {
  if (count < 4 || count > 5) {
    fprintf(stderr, "usage: check DISK IMAGE LOG [BEFORE]\n");
    return 2;
  }
  struct log log;
  memset(&log, 0, sizeof log);
  log.disk = strtoull(words[1], NULL, 10);
  if (log.disk >= DISKS_MAX) return 2;
  read_log(&log, words[3]);
  if (!log.want) {
    printf("the log has no READY line of a guest with disk %" PRIu64 "\n", log.disk);
    return 2;
  }
  uint64_t checked = check_image(&log, open_image(words[2]), count == 5 ? open_image(words[4]) : -1);
  uint64_t problems = 0;
  printf("acknowledged=%" PRIu64 " newest=%" PRIu64 " blocks=%" PRIu64, log.acknowledged, log.newest,
         checked);
  for (int kind = 0; kind < KINDS; kind++) {
    printf(" %s=%" PRIu64, kind_names[kind], found[kind]);
    problems += found[kind];
  }
  printf("\n");
  return problems ? 1 : 0;
}
