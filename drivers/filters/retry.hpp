// A device that repeats what failed for a passing reason, and opens the storage again when the connection to
// it was lost.
//
// What is safe to repeat. Reading, writing, zeroing, discarding and mapping a range give the same result when
// done twice, and until the call has returned, no caller may rely on the order between it and another call on
// the same range. So these are repeated on every kind that may be retried (error_kinds.hpp): io, timed_out,
// gone.
//
// A flush is not like that. It promises that what was acknowledged before it is durable, and
//   * storage that failed one flush may answer the next one with success although the data is lost (the cache
//     marked it clean when it reported the error), so a failed flush is never repeated while anything that
//     was acknowledged is not yet durable;
//   * after the device was opened again, a flush says nothing about what was acknowledged before: the server
//     may have been restarted with its cache lost. Whatever was acknowledged and not yet flushed then counts
//     as lost.
// In both cases the flush fails with `io`, and so does every later one, because a caller that merely repeats
// it must not be told that all is well. Only opening a new device, and writing again what was not flushed,
// helps; a copy does that from its ledger. A write with FUA that was acknowledged is durable and never counts
// as lost. When nothing is unflushed, a flush has nothing to promise and is repeated like a read.
//
// Where the filter keeps what was acknowledged and not flushed (RetryPolicy::keep_bytes_max), nothing of it
// is lost: the storage that is opened again is given all of it once more and flushes it, before anybody else
// reaches it. Until then it is read from memory, because the storage may give what was there before. This is
// what the client of a server owes (RFC 1813, 4.8); a disk that a machine runs on wants it, a copy has its
// ledger. Changes that overlap then wait for each other, so that there is one order of them, and what is kept
// is flushed before it becomes more than it may.
//
// One danger remains that no client can rule out: a server may still carry out a request of the lost
// connection after the repeated one was answered. The old device is therefore closed, and its close awaited,
// before the next one is opened, except while calls still run on it.
#pragma once

#include "diskferry/driver.hpp"

#include <atomic>
#include <functional>
#include <memory>

namespace diskferry {

struct RetryPolicy {
  unsigned attempts_max = 10;  ///< of one call, the first included
  Duration first_delay = std::chrono::milliseconds(100);
  Duration delay_max = std::chrono::seconds(10);  ///< each delay is twice the last one, up to this
  /// Of one call, from its begin, or, where writes are kept, from the first loss that it meets: no attempt
  /// begins later, and no opening lasts longer.
  Duration limit = std::chrono::minutes(2);
  /// What failed with io or timed_out is repeated, too; false: only what was lost with its connection.
  bool repeats_failures = true;
  /// So much memory for what was acknowledged and not flushed; 0: it is not kept.
  std::uint64_t keep_bytes_max = 0;
  /// While this is false the device is as if there were no filter. It is changed while no call is under way
  /// and nothing is unflushed. Null: always on.
  std::shared_ptr<const std::atomic<bool>> is_on{};
  /// Told when lost storage is open again, with the bytes that it was given once more. Thread: any.
  std::function<void(std::uint64_t)> on_reopened{};
};

/// Delay after the attempt of that number (from 1). Pure.
Duration retry_delay(const RetryPolicy& policy, unsigned attempt) noexcept;

/// Opens the storage again; what it gives is behind checked(). Called by one task at a time.
using Reopen = std::function<Task<Result<DevicePtr>>()>;

/// A filter over `device`, which is behind checked(); put the filter behind checked(), too. A device that
/// comes back with another size, or that takes larger blocks only, or is read-only now, fails the calls with
/// `mismatch`. Errors: those of the last attempt, with how often it was tried. Cancel: at once, also between
/// attempts. Lifetime: `clock` outlives the device; so does what `reopen` refers to.
DevicePtr make_retry_device(DevicePtr device, Reopen reopen, RetryPolicy policy, Clock& clock);

}  // namespace diskferry
