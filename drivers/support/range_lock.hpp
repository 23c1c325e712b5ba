// Locks on ranges of one device, for read-modify-write and for whoever must keep two overlapping operations
// apart. Shared holders may overlap each other; an exclusive one overlaps nobody. First come, first served
// among those that overlap, so a stream of shared holders cannot starve an exclusive one.
#pragma once

#include "diskferry/extent.hpp"
#include "diskferry/sync.hpp"

#include <cstddef>
#include <mutex>

namespace diskferry {

/// Thread: any. Lifetime: outlives its holds. Allocates only for those who have to wait.
class RangeLock {
 public:
  enum class Mode : bool { shared, exclusive };

  /// A place in the lock: lives in the frame of the operation it protects and lets go when destroyed.
  class Hold {
   public:
    Hold() = default;
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    ~Hold() { release(); }
    void release() noexcept;
    bool is_held() const noexcept { return lock_ != nullptr; }

   private:
    friend class RangeLock;
    RangeLock* lock_ = nullptr;
    Range range_;
    Mode mode_ = Mode::shared;
    bool is_granted_ = false;
    Hold* before_ = nullptr;
    Hold* after_ = nullptr;
    WaitQueue waiting_;  // guarded by the lock's mutex, as all of a hold
  };

  RangeLock() = default;
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;
  ~RangeLock() { DISKFERRY_ASSERT(first_ == nullptr, "a range lock is destroyed while ranges are held"); }

  /// Waits until the range is free. Errors: cancelled. Precondition: `hold` holds nothing. Lifetime: `hold`
  /// until the task ends and then for as long as it is held.
  Task<Result<void>> lock(Hold& hold, Range range, Mode mode);
  /// Takes the range if nobody is in the way. When nobody holds anything exclusively, a shared lock costs a
  /// mutex and a few stores.
  bool try_lock(Hold& hold, Range range, Mode mode);
  /// Holds and waiters.
  std::size_t size() const;

 private:
  void append(Hold& hold, Range range, Mode mode) noexcept;
  void unlink(Hold& hold) noexcept;
  bool is_blocked(const Hold& hold) const noexcept;
  void grant_waiting();

  mutable std::mutex guard_;
  Hold* first_ = nullptr;
  Hold* last_ = nullptr;
  std::size_t count_ = 0;
  std::size_t exclusive_ = 0;  // entries that are or want to be exclusive
  std::size_t waiting_ = 0;
};

}  // namespace diskferry
