#include "drivers/gluster/volume.hpp"

#include "drivers/support/detached_thread.hpp"

#include <condition_variable>
#include <deque>
#include <glusterfs/api/glfs.h>
#include <mutex>
#include <system_error>

namespace diskferry::gluster {
namespace {
/// One hands requests over (some 100 us each: the library copies what is written and sends it) while another
/// waits for a call that has no asynchronous form.
constexpr unsigned threads_per_volume = 2;
}  // namespace

struct Volume::Core {
  explicit Core(glfs* mounted) : fs(mounted) {}

  glfs* const fs;
  std::mutex guard{};
  std::condition_variable wake{};
  std::deque<Work> queue{};
  bool is_ending = false;
  unsigned threads = threads_per_volume;

  void work();
};

Volume::Volume(glfs* fs) : core_(std::make_shared<Core>(fs)) {}

Volume::~Volume() {
  std::lock_guard lock(core_->guard);
  core_->is_ending = true;
  core_->wake.notify_all();
}

void Volume::post(Work work) {
  {
    std::lock_guard lock(core_->guard);
    core_->queue.push_back(std::move(work));
  }
  core_->wake.notify_one();
}

void Volume::Core::work() {
  std::unique_lock lock(guard);
  while (true) {
    wake.wait(lock, [this] { return is_ending || !queue.empty(); });
    if (queue.empty()) break;
    Work next = std::move(queue.front());
    queue.pop_front();
    lock.unlock();
    next(fs);
    next = nullptr;  // it may hold the last reference to the Volume
    lock.lock();
  }
  if (--threads > 0) return;
  lock.unlock();
  glfs_fini(fs);
}

void Volume::serve(std::shared_ptr<Core> core) {
  for (unsigned i = 1; i < threads_per_volume; ++i) {
    try {
      start_detached([core] { core->work(); });
    } catch (const std::system_error&) {
      // With fewer threads all is done too, one after the other, and the last of them unmounts.
      std::lock_guard lock(core->guard);
      --core->threads;
    }
  }
  core->work();
}

}  // namespace diskferry::gluster
