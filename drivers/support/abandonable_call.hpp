// What a call on another thread gives, shared by who waits for it and the thread that makes it. Who waits may
// leave at once, whatever the call waits for; what it gives then is dropped on its own thread. Internal to
// drivers: BlockingPool, host_lookup and gluster/volume make such calls each on threads of their own.
#pragma once

#include "diskferry/sync.hpp"
#include "diskferry/task.hpp"

#include <mutex>
#include <optional>
#include <utility>

namespace diskferry {

/// Shared by std::shared_ptr, so that it outlives whoever leaves first.
template <class T>
class AbandonableCall {
 public:
  /// By the thread that calls, before it does: nobody waits any more.
  bool is_abandoned() const {
    std::lock_guard lock(guard_);
    return is_abandoned_;
  }
  /// By the thread that has called, once.
  void finish(T with) {
    std::optional<T> value(std::move(with));  // dropped after the lock where nobody waits
    std::lock_guard lock(guard_);
    if (is_abandoned_) return;
    value_.swap(value);
    waiting_.wake_all();
  }
  /// Cancel: at once, nullopt.
  Task<std::optional<T>> wait() {
    std::unique_lock lock(guard_);
    while (!value_) {
      const bool was_woken = co_await waiting_.wait(lock);
      lock.lock();
      if (was_woken || value_) continue;
      is_abandoned_ = true;
      co_return std::nullopt;
    }
    co_return std::move(value_);
  }

 private:
  mutable std::mutex guard_;
  WaitQueue waiting_;
  std::optional<T> value_;
  bool is_abandoned_ = false;
};

}  // namespace diskferry
