// Waiting for each other between tasks on any threads: a wait queue and, made of it, a mutex, a counting
// semaphore and a one-way event. A waiting task is resumed by a post to its own executor, in the order of
// arrival. No waiter is forgotten on cancellation. Nothing here blocks a thread for longer than a list
// operation.
#pragma once

#include "diskferry/assert.hpp"
#include "diskferry/task.hpp"

#include <cstdint>
#include <list>
#include <mutex>
#include <optional>

#include <boost/asio/any_completion_handler.hpp>

namespace diskferry {

/// Tasks waiting for something that is guarded by the caller's std::mutex. The mutex is released while
/// waiting and is NOT held again on return.
/// Lifetime: the queue and its mutex outlive the wait() calls on them, and nothing more: when wait() returns,
/// whoever woke this task has left the mutex, so the last waiter may destroy both.
class WaitQueue {
 public:
  WaitQueue() = default;
  WaitQueue(const WaitQueue&) = delete;
  WaitQueue& operator=(const WaitQueue&) = delete;
  ~WaitQueue() { DISKFERRY_ASSERT(waiters_.empty(), "a wait queue is destroyed while tasks wait on it"); }

  /// Waits until woken. `lock` holds the guarding mutex on entry; it is unlocked once this task is queued.
  /// Returns true when woken, false when cancelled. A cancellation that comes after the wake-up has no effect
  /// here: what was handed over with the wake-up belongs to this task. `tag` is for first_tag and
  /// wake_lowest.
  Task<bool> wait(std::unique_lock<std::mutex>& lock, std::uint64_t tag = 0);
  /// The same, but a cancellation does not end the wait. It is not lost: is_cancelled() tells of it
  /// afterwards. For clean-up that must be waited for, and will come.
  Task<void> wait_uncancelled(std::unique_lock<std::mutex>& lock);
  /// Wakes the first waiter, if any; true when there was one. The guarding mutex is held by the caller.
  bool wake_one();
  void wake_all();
  /// Wakes the waiter with the lowest tag, if that is at most `tag_max`; of equals the first that came.
  bool wake_lowest(std::uint64_t tag_max);
  /// The lowest tag; nullopt when nobody waits.
  std::optional<std::uint64_t> lowest_tag() const noexcept;
  bool empty() const noexcept { return waiters_.empty(); }
  std::size_t size() const noexcept { return waiters_.size(); }
  /// The tag of the first waiter. Precondition: not empty.
  std::uint64_t first_tag() const noexcept { return waiters_.front().tag; }

 private:
  using Handler = boost::asio::any_completion_handler<void(bool)>;
  struct Waiter {
    std::uint64_t id;
    std::uint64_t tag;
    Executor executor;
    Handler handler;
  };
  enum class Cancellation : bool { ends_wait, ignored };
  Task<bool> wait_in_queue(std::unique_lock<std::mutex>& lock, std::uint64_t tag, Cancellation cancellation);
  void cancel_waiter(std::mutex& mutex, std::uint64_t id);
  static void resume(Waiter waiter, bool woken);

  std::list<Waiter> waiters_;
  std::uint64_t next_id_ = 1;
};

/// A mutex that may be held across co_await. Fair.
class AsyncMutex {
 public:
  /// Owns the mutex until destroyed or unlocked; may be destroyed on any thread.
  class Lock {
   public:
    Lock() = default;
    explicit Lock(AsyncMutex& mutex) : mutex_(&mutex) {}
    Lock(Lock&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Lock& operator=(Lock&& other) noexcept {
      unlock();
      mutex_ = std::exchange(other.mutex_, nullptr);
      return *this;
    }
    ~Lock() { unlock(); }
    void unlock() noexcept {
      if (auto* held = std::exchange(mutex_, nullptr)) held->release();
    }
    bool owns() const noexcept { return mutex_ != nullptr; }

   private:
    AsyncMutex* mutex_ = nullptr;
  };

  /// Errors: cancelled.
  Task<Result<Lock>> lock();
  std::optional<Lock> try_lock();

 private:
  void release() noexcept;
  std::mutex guard_;
  bool held_ = false;
  WaitQueue waiting_;
};

/// Counts units (bytes, requests). FIFO: a large request is not starved by small ones.
class AsyncSemaphore {
 public:
  explicit AsyncSemaphore(std::uint64_t units) : capacity_(units), free_(units) {}
  /// Takes `units`, waiting until they are free. More than the capacity counts as the capacity.
  /// Errors: cancelled.
  Task<Result<void>> acquire(std::uint64_t units);
  bool try_acquire(std::uint64_t units);
  void release(std::uint64_t units);
  std::uint64_t capacity() const noexcept { return capacity_; }
  std::uint64_t available() const;

 private:
  const std::uint64_t capacity_;
  mutable std::mutex guard_;
  std::uint64_t free_;
  WaitQueue waiting_;
};

/// Set once; everybody who waits or will wait goes on.
class AsyncEvent {
 public:
  void set();
  bool is_set() const;
  /// Errors: cancelled.
  Task<Result<void>> wait();

 private:
  mutable std::mutex guard_;
  bool set_ = false;
  WaitQueue waiting_;
};

}  // namespace diskferry
