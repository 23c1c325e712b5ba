// Decides whether a buffered write may be done at once on a reactor thread. Such a write is a copy of memory
// and takes microseconds, until the kernel has too many dirty pages and makes writers sleep for up to 200 ms
// (balance_dirty_pages), or a part of a page must be read first. Linux tells neither beforehand, and most
// file systems refuse RWF_NOWAIT for buffered writes; so we watch the time writes take. Used by FileDevice.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace diskferry {

/// After a slow write, writes go to other threads for eight times as long as it took: a reactor sleeps for a
/// ninth of its time at most, and a storage that is slow now and then does not keep writes away from it in
/// between. Pure but for its own state: time is a parameter. Thread: any; a lost update only shifts a pause a
/// little.
class InlineGate {
 public:
  /// A write of this many bytes should take less, or something other than copying took the time.
  static constexpr std::int64_t slow_ns(std::size_t bytes) noexcept {
    return 1'000'000 +
           static_cast<std::int64_t>(bytes);  // 1 ms and 1 GB/s: far from any copy, near any sleep
  }
  static constexpr std::int64_t pause_factor = 8;
  static constexpr std::int64_t pause_max_ns = 1'000'000'000;

  bool is_open(std::int64_t now_ns) const noexcept {
    return now_ns >= closed_until_ns_.load(std::memory_order_relaxed);
  }
  /// Tells of a write that was done at once.
  void wrote(std::size_t bytes, std::int64_t started_ns, std::int64_t ended_ns) noexcept {
    const std::int64_t took_ns = ended_ns - started_ns;
    if (took_ns < slow_ns(bytes)) [[likely]]
      return;
    closed_until_ns_.store(ended_ns + std::min(took_ns * pause_factor, pause_max_ns),
                           std::memory_order_relaxed);
  }

 private:
  std::atomic<std::int64_t> closed_until_ns_ = INT64_MIN / 2;
};

}  // namespace diskferry
