// The byte rate of a copy, as a schedule: who wants to send is told when it may. Pure but for its mutex.
#pragma once

#include "diskferry/clock.hpp"

#include <cstdint>
#include <mutex>

namespace diskferry {

class RateSchedule {
 public:
  /// What may be sent at once after a pause.
  static constexpr Duration burst = std::chrono::milliseconds(100);

  /// `bytes_per_s` 0: no limit.
  explicit RateSchedule(std::uint64_t bytes_per_s) : bytes_per_s_(bytes_per_s) {}
  bool is_limited() const noexcept { return bytes_per_s_ != 0; }
  /// Books `bytes` and returns when they may go.
  TimePoint book(std::uint64_t bytes, TimePoint now) {
    std::lock_guard lock(guard_);
    const TimePoint start = std::max(next_, now - burst);
    next_ = start + Duration(static_cast<Duration::rep>(1e9 * static_cast<double>(bytes) /
                                                        static_cast<double>(bytes_per_s_)));
    return start;
  }

 private:
  const std::uint64_t bytes_per_s_;
  std::mutex guard_;
  TimePoint next_{};
};

}  // namespace diskferry
