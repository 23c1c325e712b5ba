// Time as a dependency: the system's, or a fake one that a test moves. Every wait has a deadline.
#pragma once

#include "diskferry/sync.hpp"
#include "diskferry/task.hpp"

#include <chrono>
#include <mutex>

namespace diskferry {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
  /// Returns when `time` has come. Errors: cancelled.
  virtual Task<Result<void>> sleep_until(TimePoint time) = 0;
  Task<Result<void>> sleep_for(Duration duration) { return sleep_until(after(now(), duration)); }

  /// `duration` after `time`, or the end of time where that is beyond it: Duration::max() means "never".
  static constexpr TimePoint after(TimePoint time, Duration duration) noexcept {
    return duration > TimePoint::max() - time ? TimePoint::max() : time + duration;
  }
};

/// std::chrono::steady_clock.
class SystemClock final : public Clock {
 public:
  TimePoint now() const override { return std::chrono::steady_clock::now(); }
  Task<Result<void>> sleep_until(TimePoint time) override;
};

/// A clock that stands still until advanced. For tests and simulation; thread-safe.
class FakeClock final : public Clock {
 public:
  TimePoint now() const override;
  Task<Result<void>> sleep_until(TimePoint time) override;
  /// Moves on and wakes those whose time has come, in the order of their times; the others sleep on.
  void advance(Duration by);
  /// How many tasks sleep now.
  std::size_t sleepers() const;
  /// When the first of them wants to be woken; nullopt when nobody sleeps.
  std::optional<TimePoint> first_wake() const;

 private:
  mutable std::mutex guard_;
  TimePoint now_{};
  WaitQueue waiting_;
};

/// Runs `task`, cancels it when `limit` passes and still waits for it to let go.
/// Errors: timed_out with `operation` when the limit passed first; else the task's. A task that completed in
/// spite of the limit or of a cancellation has completed: its result is returned.
template <class T>
Task<Result<T>> with_deadline(Clock& clock, Duration limit, std::string operation, Task<Result<T>> task);

}  // namespace diskferry

#include "diskferry/clock_impl.hpp"
