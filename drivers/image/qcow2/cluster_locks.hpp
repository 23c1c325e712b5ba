// Who changes the mapping of which part of the disk. Two requests that allocate, zero or discard the same
// cluster go one after the other, so that no cluster is allocated twice and nothing is copied from a cluster
// that is changing. Writes in place need no lock (see writer.hpp).
#pragma once

#include "diskferry/extent.hpp"
#include "diskferry/sync.hpp"

#include <list>
#include <mutex>

namespace diskferry::qcow2 {

/// Thread: any.
class ClusterLocks {
 public:
  /// Owns a range until destroyed.
  class Lock {
   public:
    Lock() = default;
    Lock(Lock&& other) noexcept : locks_(std::exchange(other.locks_, nullptr)), place_(other.place_) {}
    Lock& operator=(Lock&&) = delete;
    ~Lock() {
      if (locks_ != nullptr) locks_->release(place_);
    }

   private:
    friend class ClusterLocks;
    Lock(ClusterLocks& locks, std::list<Range>::iterator place) : locks_(&locks), place_(place) {}
    ClusterLocks* locks_ = nullptr;
    std::list<Range>::iterator place_;
  };

  /// `range`: whole clusters. A task holds one lock at a time. Errors: cancelled.
  Task<Result<Lock>> lock(Range range) {
    while (true) {
      std::unique_lock lock(guard_);
      bool is_free = true;
      for (const Range& held : held_) is_free &= !held.overlaps(range);
      if (is_free) co_return Lock(*this, held_.insert(held_.end(), range));
      if (!co_await released_.wait(lock)) co_return unexpected(cancelled_error("wait for a cluster"));
    }
  }

 private:
  void release(std::list<Range>::iterator place) {
    std::lock_guard lock(guard_);
    held_.erase(place);
    released_.wake_all();
  }
  std::mutex guard_;
  std::list<Range> held_;  // as many as requests are in flight
  WaitQueue released_;
};

}  // namespace diskferry::qcow2
