// The thread of libvirt's event loop, counted by its users.
#include "gateway/hypervisor/libvirt_event_loop.hpp"

#include "gateway/hypervisor/libvirt_error.hpp"

#include <atomic>
#include <mutex>
#include <system_error>
#include <thread>

#include <libvirt/libvirt.h>

namespace diskferry {
namespace {
/// libvirt frees what was closed in the loop itself, in rounds in which nothing else is to be done. This many
/// rounds are given to it at the end; two were enough with libvirt 9.
constexpr int closing_rounds = 8;
constexpr int closing_round_ms = 1;
constexpr int never_ms = -1;

struct EventLoop {
  std::mutex guard;  // held while the thread starts and ends, so that there are never two
  unsigned users = 0;
  bool is_registered = false;
  int waker = -1;  // a timer that makes the loop go round
  std::atomic<bool> is_stopping = false;
  std::thread thread;
};
/// Never destroyed: a thread that hangs in a call may still hold a lease when the process ends.
EventLoop& the_loop() {
  static auto* const loop = new EventLoop;
  return *loop;
}

void run_loop(EventLoop& loop) {
  while (!loop.is_stopping.load() && virEventRunDefaultImpl() == 0) {
  }
  virEventUpdateTimeout(loop.waker, closing_round_ms);
  for (int round = 0; round < closing_rounds; ++round) (void)virEventRunDefaultImpl();
}

Result<void> start(EventLoop& loop) {
  if (!loop.is_registered) {
    if (virInitialize() < 0 || virEventRegisterDefaultImpl() < 0)
      return unexpected(libvirt_error(nullptr, "start libvirt's event loop", {}));
    silence_libvirt();
    loop.is_registered = true;
  }
  loop.waker = virEventAddTimeout(never_ms, [](int, void*) {}, nullptr, nullptr);
  if (loop.waker < 0) return unexpected(libvirt_error(nullptr, "start libvirt's event loop", {}));
  loop.is_stopping = false;
  try {
    loop.thread = std::thread([&loop] { run_loop(loop); });
  } catch (const std::system_error& error) {
    virEventRemoveTimeout(loop.waker);
    return unexpected(fail(ErrorKind::too_large, "start libvirt's event loop").cause(error.code()));
  }
  return {};
}
}  // namespace

Result<std::unique_ptr<EventLoopLease>> EventLoopLease::take() {
  auto& loop = the_loop();
  std::lock_guard lock(loop.guard);
  if (loop.users == 0) DISKFERRY_CHECK(start(loop));
  ++loop.users;
  return std::unique_ptr<EventLoopLease>(new EventLoopLease);
}

EventLoopLease::~EventLoopLease() {
  auto& loop = the_loop();
  std::lock_guard lock(loop.guard);
  if (--loop.users > 0) return;
  loop.is_stopping = true;
  virEventUpdateTimeout(loop.waker, 0);
  loop.thread.join();
  virEventRemoveTimeout(loop.waker);
}

}  // namespace diskferry
