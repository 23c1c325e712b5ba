// How fast the window sends, as seen over the last second. Pure.
#pragma once

#include "diskferry/clock.hpp"

#include <array>
#include <cstdint>

namespace diskferry {

/// Bytes a second over the last whole buckets. Not thread-safe.
class RateMeter {
 public:
  static constexpr Duration bucket = std::chrono::milliseconds(125);
  static constexpr std::int64_t buckets = 8;

  void add(TimePoint now, std::uint64_t bytes) noexcept {
    move_to(now);
    bytes_[index(now_)] += bytes;
  }
  /// What was added in the second before `now`; what came before that is forgotten.
  std::uint64_t bytes_per_s(TimePoint now) noexcept {
    move_to(now);
    std::uint64_t sum = 0;
    for (const std::uint64_t bytes : bytes_) sum += bytes;
    constexpr auto span_ms = std::chrono::duration_cast<std::chrono::milliseconds>(bucket).count() * buckets;
    return sum * 1000 / static_cast<std::uint64_t>(span_ms);
  }

 private:
  static std::size_t index(std::int64_t number) noexcept {
    return static_cast<std::size_t>(number % buckets);
  }
  void move_to(TimePoint now) noexcept {
    const std::int64_t number = now.time_since_epoch() / bucket;
    if (number - now_ >= buckets) bytes_ = {};
    for (; now_ < number && number - now_ < buckets; ++now_) bytes_[index(now_ + 1)] = 0;
    if (number > now_) now_ = number;
  }

  std::array<std::uint64_t, buckets> bytes_{};
  std::int64_t now_ = 0;
};

}  // namespace diskferry
