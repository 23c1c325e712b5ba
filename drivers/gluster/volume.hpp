// Volume: one mounted GlusterFS volume and the threads that the library is called on. All devices on it share
// it (mounts.hpp). The library's calls block, some for as long as a brick hangs, and glfs_fini() for ten
// seconds: they are made here and nowhere else, so that no reactor and no thread of the BlockingPool ever
// waits for a volume. Whoever waits for a call may leave; the call goes on, and what it gives is dropped on
// its own thread.
#pragma once

#include "drivers/support/abandonable_call.hpp"

#include <functional>
#include <memory>
#include <string>

struct glfs;

namespace diskferry::gluster {

class Volume {
 public:
  using Work = std::function<void(glfs* fs)>;

  /// Takes over a volume that is mounted; the calling thread becomes one of its threads by calling serve().
  explicit Volume(glfs* fs);
  /// Ends the threads once all that was posted is done; the last one unmounts. Does not wait for it.
  ~Volume();
  Volume(const Volume&) = delete;
  Volume& operator=(const Volume&) = delete;

  /// Thread: any.
  void post(Work work);
  /// Posts `work` and waits for what it gives. Cancel: at once; `work` is then not begun, or ends unheard, so
  /// it must hold all that it uses.
  template <class T>
  Task<Result<T>> call(std::string operation, std::function<Result<T>(glfs* fs)> work);

  /// What the threads of a volume share; lives until the last one has unmounted it.
  struct Core;
  std::shared_ptr<Core> core() const { return core_; }
  /// Starts the other threads, as far as there can be more, and works as one of them, until the Volume is
  /// destroyed. Static, for the calling thread must not keep the Volume.
  static void serve(std::shared_ptr<Core> core);

 private:
  const std::shared_ptr<Core> core_;
};
using VolumePtr = std::shared_ptr<Volume>;

template <class T>
Task<Result<T>> Volume::call(std::string operation, std::function<Result<T>(glfs* fs)> work) {
  const auto pending = std::make_shared<AbandonableCall<Result<T>>>();
  post([pending, work = std::move(work)](glfs* fs) {
    if (!pending->is_abandoned()) pending->finish(work(fs));
  });
  auto value = co_await pending->wait();
  if (!value) co_return unexpected(cancelled_error(std::move(operation)));
  co_return *std::move(value);
}

}  // namespace diskferry::gluster
