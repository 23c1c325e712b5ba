// How fast copies may go beside guests that use their disks: as fast as leaves the machine room to answer
// them at once. One for all copies of a machine, whose processors they share. Pure but for its mutex.
//
// Processors that are busy with copies let others wait for milliseconds, and a guest's write needs several
// threads one after the other. So requests are spaced out, and the gateway sleeps in between; what wakes it
// late from that sleep is what a guest would have waited for too. Thread priorities do not do it: schedulers
// weigh them inside one service or session only.
#pragma once

#include "diskferry/clock.hpp"

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <optional>

namespace diskferry {

class CopyPace {
 public:
  /// A guest that has asked nothing for so long is none to make room for.
  static constexpr Duration guest_rests_after = std::chrono::milliseconds(250);
  /// Who wakes after this has waited for a processor.
  static constexpr Duration late = std::chrono::microseconds(400);
  static constexpr std::uint64_t bytes_per_s_max = std::uint64_t{8} << 30;
  static constexpr unsigned processors_min = 2;

  /// What copies have at least, and begin with, grows with the processors: the least of them takes about a
  /// hundredth of their time.
  explicit CopyPace(unsigned processors = processors_min)
      : bytes_per_s_min_((std::uint64_t{32} << 20) * std::max(processors, processors_min)),
        bytes_per_s_(6.0 * static_cast<double>(bytes_per_s_min_)) {}

  /// A guest reads, writes, or asks for anything else; may be told late.
  void guest_asks(TimePoint now) {
    std::lock_guard lock(guard_);
    guest_asked_ = std::max(guest_asked_.value_or(now), now);
  }
  /// When a copy of `bytes` may begin; nullopt: at once.
  std::optional<TimePoint> book(std::uint64_t bytes, TimePoint now) {
    std::lock_guard lock(guard_);
    if (!guest_asked_ || now - *guest_asked_ > guest_rests_after) return std::nullopt;
    const TimePoint begin = std::max(next_, now);
    next_ = begin + time_for(bytes);
    return begin;
  }
  /// What was booked was not needed.
  void give_back(std::uint64_t bytes) {
    std::lock_guard lock(guard_);
    next_ -= time_for(bytes);
  }
  /// Who has booked `begin` was woken at `now`.
  void woke(TimePoint begin, TimePoint now) {
    std::lock_guard lock(guard_);
    if (now - begin <= late) {
      set_rate(bytes_per_s_ * faster);
    } else if (begin >= slowed_) {
      // All that slept when the machine was busy wake late, which says it once.
      set_rate(bytes_per_s_ * slower);
      slowed_ = now;
    }
  }
  /// Copies are never slower for a guest's sake.
  std::uint64_t bytes_per_s_min() const noexcept { return bytes_per_s_min_; }
  std::uint64_t bytes_per_s() const {
    std::lock_guard lock(guard_);
    return static_cast<std::uint64_t>(bytes_per_s_);
  }

 private:
  /// In balance when 1 of 100 wakes late. With 500 us and 1000 writes a second, on two processors with guest
  /// and server: 1.1 ms for 99 of 100 writes, and 4 to 12 without.
  static constexpr double faster = 1.002;
  static constexpr double slower = 0.8;

  void set_rate(double bytes_per_s) {
    bytes_per_s_ = std::clamp(bytes_per_s, static_cast<double>(bytes_per_s_min_), double{bytes_per_s_max});
  }
  Duration time_for(std::uint64_t bytes) const {
    return Duration(static_cast<Duration::rep>(1e9 * static_cast<double>(bytes) / bytes_per_s_));
  }

  const std::uint64_t bytes_per_s_min_;
  mutable std::mutex guard_;
  double bytes_per_s_;
  std::optional<TimePoint> guest_asked_{};
  TimePoint next_{};
  TimePoint slowed_{};
};

}  // namespace diskferry
