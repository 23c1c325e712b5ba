/* check RAW-IMAGE CONSOLE-LOG: proves on the host that no acknowledged write was lost. Every block must hold one whole
 * write that belongs there and is at least as new as the newest acknowledged one. Exit status 0: all there. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block.h"

int main(int count, char **arguments) {
  FILE *log = count == 3 ? fopen(arguments[2], "r") : NULL;
  int image = count == 3 ? open(arguments[1], O_RDONLY) : -1;
  if (!log || image < 0) {
    fprintf(stderr, "usage: check RAW-IMAGE CONSOLE-LOG\n");
    return 2;
  }
  char line[4096];
  unsigned long long blocks = 0, seed = 0, first, last, acknowledged = 0, errors = 0, bad_reads = 0;
  uint64_t *newest = NULL;
  while (fgets(line, sizeof line, log)) {
    const char *at;
    if ((at = strstr(line, "READY ")) && sscanf(at, "READY blocks=%llu seed=%llu", &blocks, &seed) == 2) {
      free(newest);
      newest = calloc(blocks, sizeof *newest);
      acknowledged = 0;
    } else if (newest && (at = strstr(line, "ACK ")) && sscanf(at, "ACK %llu %llu worst", &first, &last) == 2) {
      for (uint64_t sequence = first; sequence <= last; sequence++, acknowledged++)
        newest[block_of(seed, sequence, blocks)] = sequence;
    } else if (strstr(line, "WERR ")) {
      errors++;
    } else if (strstr(line, "BAD ")) {
      bad_reads++;
    }
  }
  if (!newest || !acknowledged) {
    printf("check: the log has no acknowledged write\n");
    return 2;
  }
  uint64_t words[BLOCK_WORDS], checked = 0, lost = 0, wrong = 0;
  for (uint64_t block = 0; block < blocks; block++) {
    if (!newest[block]) continue;
    checked++;
    if (pread(image, words, BLOCK_BYTES, (off_t)(block * BLOCK_BYTES)) != BLOCK_BYTES ||
        !is_whole_block(words, seed, block))
      wrong++;
    else if (((struct block_tag *)words)->sequence < newest[block])
      lost++;
  }
  const int is_good = !lost && !wrong && !errors && !bad_reads;
  printf("acknowledged writes %llu, blocks checked %llu, lost %llu, wrong %llu, write errors in the guest %llu, bad reads "
         "in the guest %llu: %s\n", acknowledged, (unsigned long long)checked, (unsigned long long)lost,
         (unsigned long long)wrong, errors, bad_reads, is_good ? "OK" : "FAILED");
  return is_good ? 0 : 1;
}
