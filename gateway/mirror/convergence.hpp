// Whether a disk that is written to will ever be in step, and what to do when it will not: a pure function of
// rates and of the operator's limits, asked once a second. It steps up one mode when the end is out of reach,
// down when guests pay more than they should, and slows guests down last of all; and it says why. Before all
// that, copies do not make room for guests any more.
#pragma once

#include "diskferry/clock.hpp"
#include "gateway/mirror/mirror_device.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace diskferry {

struct ConvergenceLimits {
  /// What a guest's write may wait for the mirror, for 99 of 100.
  Duration latency_max = std::chrono::milliseconds(10);
  Duration pause_max = std::chrono::milliseconds(100);
  /// From now on; nullopt: whenever.
  std::optional<Duration> deadline{};
  bool may_slow_guests = true;
  std::uint64_t guest_bytes_per_s_min = 1u << 20;  ///< never slower than that
};

/// Of the last second.
struct ConvergenceSample {
  std::uint64_t left_bytes = 0;     ///< of the disk, to be copied
  std::uint64_t copied_bytes = 0;   ///< taken to be copied
  std::uint64_t dirtied_bytes = 0;  ///< made dirty by guests
  std::uint64_t guest_bytes = 0;    ///< written by guests
  std::uint64_t sent_bytes = 0;     ///< to the target, by copies and guests
  std::uint64_t pending_bytes = 0;  ///< in the window, now
  std::uint64_t added_p99_us = 0;   ///< what guests' writes wait for the mirror
  std::uint64_t rounds = 0;         ///< that came to their end: all that was dirty when one began was copied
};

struct ConvergenceStep {
  MirrorMode mode = MirrorMode::bounded;
  std::uint64_t guest_bytes_per_s = 0;  ///< 0: guests are not slowed down
  bool makes_room = true;               ///< copies go only as fast as leaves guests room (CopyPace)
  std::uint64_t window_bytes_max = 0;   ///< so much drains within the pause; 0: not known yet
  /// Until all is at the target, at these rates; nullopt: never.
  std::optional<Duration> eta{};
  Duration pause{};      ///< of a switchover now, as far as it is the disk's
  std::string reason{};  ///< of what has changed; empty: nothing has
};

class ConvergenceController {
 public:
  explicit ConvergenceController(ConvergenceLimits limits, MirrorMode mode = MirrorMode::bounded)
      : limits_(limits), mode_(mode) {}

  void set_limits(const ConvergenceLimits& limits) { limits_ = limits; }
  /// What follows from a second more; call it once a second.
  ConvergenceStep observe(const ConvergenceSample& sample);

 private:
  void judge(const ConvergenceSample& sample, ConvergenceStep& step);
  std::string judge_room(const ConvergenceSample& sample, const ConvergenceStep& step);
  bool is_behind(const ConvergenceSample& sample, const ConvergenceStep& step) const;
  std::string step_up(const ConvergenceSample& sample);
  std::string step_down(const ConvergenceSample& sample);

  /// A change waits for so many seconds that ask for it, and stays for so many.
  static constexpr unsigned seconds_up = 3;
  static constexpr unsigned seconds_down = 5;

  ConvergenceLimits limits_;
  MirrorMode mode_;
  std::uint64_t guest_bytes_per_s_ = 0;
  bool makes_room_ = true;
  double net_bytes_per_s_ = 0;   // smoothed
  double sent_bytes_per_s_ = 0;  // what the target takes: of seconds in which there was enough to send
  bool has_rates_ = false;
  unsigned behind_ = 0;  // seconds in a row
  unsigned dear_ = 0;
  unsigned ahead_ = 0;
};

}  // namespace diskferry
