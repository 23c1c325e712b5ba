// Flushing ahead of the switchover: while the guest still runs, what was sent to the targets is made durable
// again and again, so that little is left to flush in the pause, when everybody waits for it.
#pragma once

#include "diskferry/clock.hpp"
#include "diskferry/task.hpp"

#include <atomic>
#include <cstdint>
#include <functional>

namespace diskferry {

struct FlushAhead {
  /// Makes all targets durable; costs little where they are.
  std::function<Task<Result<void>>()> make_durable;
  /// Bytes sent to all targets so far.
  std::function<std::uint64_t()> sent_bytes;
  /// The guest may be stopped soon: whatever was sent is flushed. Before that only large amounts are, since
  /// each flush costs the copy time.
  std::function<bool()> is_near;
};

/// Until cancelled. Errors: cancelled, those of make_durable.
Task<Result<void>> flush_ahead(Clock& clock, FlushAhead what);

}  // namespace diskferry
