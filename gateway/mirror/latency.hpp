// How long things took of late, as a distribution: buckets that grow by a quarter, of two periods. Pure.
#pragma once

#include "diskferry/clock.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace diskferry {

/// Microseconds, within an eighth.
struct LatencySummary {
  std::uint64_t count = 0;
  std::uint64_t p50_us = 0;
  std::uint64_t p99_us = 0;
  std::uint64_t max_us = 0;
};

/// Of the present period and the one before. Not thread-safe.
class LatencyMeter {
 public:
  explicit LatencyMeter(Duration period) : period_(period) {}

  void add(TimePoint now, Duration took) noexcept {
    move_to(now);
    const auto us = static_cast<std::uint64_t>(
        std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::microseconds>(took).count()));
    ++present_.buckets[index_of(us)];
    ++present_.count;
    present_.max_us = std::max(present_.max_us, us);
  }
  LatencySummary summary(TimePoint now) noexcept {
    move_to(now);
    const std::uint64_t count = present_.count + before_.count;
    const std::uint64_t max_us = std::max(present_.max_us, before_.max_us);
    return {count, quantile(count / 2, max_us), quantile(count - count / 100, max_us), max_us};
  }

 private:
  static constexpr unsigned steps = 8;  // to a power of two
  static constexpr unsigned bucket_count = 40 * steps;
  struct Period {
    std::array<std::uint32_t, bucket_count> buckets{};
    std::uint64_t count = 0;
    std::uint64_t max_us = 0;
  };

  static std::size_t index_of(std::uint64_t us) noexcept {
    if (us < steps) return static_cast<std::size_t>(us);
    const auto power = static_cast<unsigned>(std::bit_width(us)) - 4;  // us >> power is 8..15
    return std::min<std::size_t>(bucket_count - 1, (power + 1) * steps + ((us >> power) - steps));
  }
  /// The largest that belongs there.
  static std::uint64_t upper_us(std::size_t index) noexcept {
    if (index < steps) return index;
    const std::size_t power = index / steps - 1;
    return ((index % steps + steps + 1) << power) - 1;
  }
  std::uint64_t quantile(std::uint64_t rank, std::uint64_t max_us) const noexcept {
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < bucket_count; ++i) {
      seen += present_.buckets[i] + before_.buckets[i];
      if (seen != 0 && seen >= rank) return std::min(upper_us(i), max_us);
    }
    return max_us;
  }
  void move_to(TimePoint now) noexcept {
    const std::int64_t number = now.time_since_epoch() / period_;
    if (number == number_) return;
    before_ = number == number_ + 1 ? present_ : Period{};
    present_ = {};
    number_ = number;
  }

  const Duration period_;
  Period present_;
  Period before_;
  std::int64_t number_ = 0;
};

}  // namespace diskferry
