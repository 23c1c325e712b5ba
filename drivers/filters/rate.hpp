// A limit on bytes a second, and a device that keeps to it. One limit may be shared by several devices: then
// it is the sum of what they move.
#pragma once

#include "diskferry/driver.hpp"
#include "diskferry/sync.hpp"
#include "diskferry/task_group.hpp"

#include <cstdint>
#include <memory>
#include <mutex>

namespace diskferry {

/// A token bucket. A request goes ahead as soon as nothing is owed, and then owes what it is larger than the
/// bucket holds; so a single request larger than a second's worth is not held up by itself, what follows it
/// is, and the mean rate is exact.
/// Thread: any. Lifetime: `clock` outlives it; it outlives its users.
class RateLimit {
 public:
  /// `bytes_per_s`: 0 is no limit. `burst_bytes`: what may pass at once after a pause; 0 is a tenth of a
  /// second's worth.
  RateLimit(Clock& clock, std::uint64_t bytes_per_s, std::uint64_t burst_bytes = 0);
  RateLimit(const RateLimit&) = delete;
  RateLimit& operator=(const RateLimit&) = delete;

  /// Takes effect at once, also for whoever waits now. What is owed stays owed, in bytes.
  void set_rate(std::uint64_t bytes_per_s, std::uint64_t burst_bytes = 0);
  std::uint64_t bytes_per_s() const;

  /// Waits for its turn, first come first served, and not longer than it takes to pay what is owed. Errors:
  /// cancelled, at once; then nothing was taken.
  Task<Result<void>> take(std::uint64_t bytes);
  /// Takes without waiting, or not at all. No allocation.
  bool try_take(std::uint64_t bytes);
  /// Takes without waiting, whatever is owed already: for who learns only after it has begun how much it is.
  void owe(std::uint64_t bytes);
  /// Gives back what was taken and not used.
  void give_back(std::uint64_t bytes);

 private:
  void settle(TimePoint now);
  bool take_now(std::uint64_t bytes);
  TimePoint paid_at() const;

  Clock& clock_;
  mutable std::mutex guard_;
  std::uint64_t bytes_per_s_ = 0;
  double burst_bytes_ = 0;
  double balance_bytes_ = 0;  // below zero: owed
  TimePoint settled_;
  std::uint64_t waiting_ = 0;
  TaskGroup* sleeper_ = nullptr;  // the sleep of the first in the queue, while it sleeps
  AsyncMutex turn_;               // the queue
};

/// A filter that counts the bytes of reads and writes against `limit`; put it behind checked(). What moves no
/// bytes (zeroing, discard, flush, extents) passes, and zeroing by writing zeros counts as writing. Changes
/// nothing else. close() closes `inner`, which is behind checked().
DevicePtr make_rate_device(std::shared_ptr<BlockDevice> inner, std::shared_ptr<RateLimit> limit);

}  // namespace diskferry
