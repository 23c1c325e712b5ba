/* delay_line FD MILLISECONDS [large]: carries Ethernet frames between two hosts and keeps each for some time,
 * for kernels without netem (link.py decides). It makes a tap device `delay0` in the network it is started in
 * and one in the network that the file FD is; what goes into one comes out of the other. Prints a line when
 * both are there, then goes into the background, and ends when a device does. With `large` the kernel hands
 * over what TCP sends in pieces of up to 64 KiB, each with a header that says how to cut it: ten times as
 * much passes (2 GB/s), and a frame here is no frame of a real wire any more. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum {
  FRAME_BYTES_MAX = 66 * 1024, /* a large one with its headers */
  FRAMES_MAX = 16384,          /* on the way in one direction; further ones are lost, as in a switch */
  LARGE_FRAMES_MAX = 2048,
};

struct frame {
  uint64_t due_ns;
  size_t bytes;
  uint8_t* data; /* of the ring's own memory */
};

struct direction {
  int from, to;
  struct frame* frames; /* a ring; all wait equally long, so the oldest is due first */
  uint64_t head, tail;
  size_t each;    /* bytes that a frame may have */
  uint64_t count; /* of frames that the ring holds */
};

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void fatal(const char* what) {
  perror(what);
  exit(1);
}

static int open_tap(int large) {
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  struct ifreq request;
  memset(&request, 0, sizeof request);
  strcpy(request.ifr_name, "delay0");
  request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (large ? IFF_VNET_HDR : 0));
  if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0) fatal("making a tap device");
  if (large && ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0)
    fatal("taking large frames");
  return fd;
}

/* Takes what has come. */
static void take_in(struct direction* way, uint64_t delay_ns) {
  for (;;) {
    struct frame* frame = &way->frames[way->head % way->count];
    static uint8_t lost[FRAME_BYTES_MAX];
    int full = way->head - way->tail == way->count;
    ssize_t bytes = read(way->from, full ? lost : frame->data, way->each);
    if (bytes < 0) {
      if (errno == EAGAIN || errno == EINTR || errno == EIO)
        return; /* EIO: the device is down at the moment */
      exit(0);
    }
    if (full) continue;
    frame->bytes = (size_t)bytes;
    frame->due_ns = now_ns() + delay_ns;
    way->head++;
  }
}

/* Gives out what is due. Returns when the next one is, or UINT64_MAX. */
static uint64_t give_out(struct direction* way) {
  for (; way->tail != way->head; way->tail++) {
    struct frame* frame = &way->frames[way->tail % way->count];
    if (frame->due_ns > now_ns()) return frame->due_ns;
    if (write(way->to, frame->data, frame->bytes) < 0 && errno == EBADFD) exit(0);
  }
  return UINT64_MAX;
}

int main(int words_count, char** words) {
  int large = words_count == 4 && strcmp(words[3], "large") == 0;
  if (words_count != 3 && !large) {
    fprintf(stderr, "usage: delay_line FD MILLISECONDS [large]\n");
    return 2;
  }
  uint64_t delay_ns = (uint64_t)(strtod(words[2], NULL) * 1e6);
  int here = open_tap(large);
  if (setns(atoi(words[1]), CLONE_NEWNET) != 0) fatal("entering the other network");
  int there = open_tap(large);
  close(atoi(words[1]));
  struct direction ways[2] = {{.from = here, .to = there}, {.from = there, .to = here}};
  for (int i = 0; i < 2; i++) {
    size_t each = large ? FRAME_BYTES_MAX : 2048;
    size_t count = large ? LARGE_FRAMES_MAX : FRAMES_MAX;
    ways[i].frames = calloc(count, sizeof *ways[i].frames);
    uint8_t* memory = malloc(count * each); /* pages that are never used take no memory */
    if (!ways[i].frames || !memory) fatal("memory");
    for (size_t k = 0; k < count; k++) ways[i].frames[k].data = memory + k * each;
    ways[i].each = each;
    ways[i].count = count;
  }
  if (daemon(0, 0) != 0) fatal("going into the background");
  for (;;) {
    uint64_t next = UINT64_MAX;
    for (int i = 0; i < 2; i++) {
      take_in(&ways[i], delay_ns);
      uint64_t due = give_out(&ways[i]);
      if (due < next) next = due;
    }
    struct pollfd devices[2] = {{.fd = here, .events = POLLIN}, {.fd = there, .events = POLLIN}};
    uint64_t now = now_ns();
    uint64_t wait = next <= now ? 0 : next - now;
    struct timespec time = {(time_t)(wait / 1000000000), (long)(wait % 1000000000)};
    ppoll(devices, 2, next == UINT64_MAX ? NULL : &time, NULL);
    if ((devices[0].revents | devices[1].revents) & (POLLERR | POLLNVAL))
      usleep(1000); /* a device that is down */
  }
}
