// The copy loop: takes units of work, keeps a bounded number of them in flight on all reactors, and passes
// once over each buffer while it is in cache: read, hash, look for zeros, write, read back. Everything that
// is moved goes through here, be it a cold copy or a live one. It does not plan, flush, record or decide when
// to stop.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/copy/block_scan.hpp"
#include "gateway/copy/piece.hpp"
#include "gateway/copy/rate.hpp"
#include "gateway/copy/salvage.hpp"
#include "gateway/copy/work.hpp"

#include <atomic>
#include <functional>

namespace diskferry {

struct EngineOptions {
  std::uint64_t request_bytes = 1u << 20;  ///< longest unit of kind copy
  unsigned requests = 16;                  ///< units in flight
  std::uint64_t bytes_per_s = 0;           ///< of reading; 0: as fast as it goes
  /// Zeros inside data are left out in whole multiples of this.
  std::uint64_t granularity_bytes = 4096;
  bool may_unmap = true;  ///< zeroing may give storage back; false keeps a preallocated target allocated
  /// Of so many units one is read from the target as soon as it is written, and compared: 1 is each, 0 none.
  unsigned read_back_every = 0;
};

/// Totals so far; each only grows.
struct EngineCounters {
  std::atomic<std::uint64_t> read_bytes = 0;      ///< from the source
  std::atomic<std::uint64_t> written_bytes = 0;   ///< data sent to the target
  std::atomic<std::uint64_t> zeroed_bytes = 0;    ///< zeros the target was told to make
  std::atomic<std::uint64_t> skipped_bytes = 0;   ///< zeros where the target had proved zeros
  std::atomic<std::uint64_t> verified_bytes = 0;  ///< read back and found equal
  std::atomic<std::uint64_t> done_bytes =
      0;  ///< of the disk: all of the above but verified, and what is left alone
  std::atomic<std::uint64_t> write_requests = 0;
  std::atomic<std::uint64_t> zero_requests = 0;
  std::atomic<std::uint64_t> read_back_ns = 0;  ///< spent in reading back, all tasks together
};

/// What the owner is told. Called from any reactor thread, often: they must be cheap and never block.
struct EngineHooks {
  /// A unit is written (not yet durable).
  std::function<void(const Piece&)> finished{};
  /// After every unit.
  std::function<void()> progress{};
  /// When set, each unit takes one of it first, and the owner gives it back: a bound on what is finished but
  /// not yet durable.
  AsyncSemaphore* room = nullptr;
  /// What cannot be read of the source is left to this; null: it is an error.
  Salvage* salvage = nullptr;
};

/// Thread: copy() from any reactor, many at once; run() once at a time. Lifetime: of context, devices and
/// what the hooks use.
class CopyEngine {
 public:
  struct Devices {
    BlockDevice& source;
    BlockDevice& target;
  };
  CopyEngine(DriverContext& context, Devices devices, EngineOptions options, EngineHooks hooks);

  /// Works off all of `work`. After the first error nothing new begins and what is in flight ends.
  /// Errors: of the devices; mismatch when what is read back differs; cancelled.
  Task<Result<void>> run(WorkSource& work);
  /// One unit.
  Task<Result<void>> copy(Work unit);

  const EngineCounters& counters() const noexcept { return counters_; }
  const EngineOptions& options() const noexcept { return options_; }

 private:
  Task<Result<void>> work_off(WorkSource& work);
  Task<Result<void>> copy_data(Work unit);
  Task<Result<void>> zero(Range range);
  Task<Result<void>> read_source(Range range, std::span<std::byte> into);
  Task<Result<void>> write_runs(Work unit, std::span<const std::byte> bytes, std::span<const DataRun> runs);
  Task<Result<void>> write_one(std::uint64_t offset, std::span<const std::byte> bytes);
  bool is_read_back() noexcept;
  Task<Result<void>> read_back_runs(Work unit, std::span<const std::byte> expected,
                                    std::span<std::byte> scratch, std::span<const DataRun> runs);
  Task<Result<void>> read_back(Range range, std::span<const std::byte> expected,
                               std::span<std::byte> scratch);

  DriverContext& context_;
  const Devices devices_;
  const EngineOptions options_;
  const EngineHooks hooks_;
  RateSchedule rate_;
  EngineCounters counters_;
  std::atomic<unsigned> units_;  // begun; begins anywhere, so that not each copy reads back the same ones
  std::atomic<bool> is_stopping_ = false;
};

/// Checks that the target reads as zeros there; takes the target's word where it promises zeros.
Task<Result<void>> check_zeros(DriverContext& context, BlockDevice& target, Range range);
/// The error of a re-read that differs at `offset`.
Error difference_at(const BlockDevice& target, std::uint64_t offset);
/// Where two spans of equal length differ first; their length when they do not.
std::size_t first_difference(std::span<const std::byte> a, std::span<const std::byte> b) noexcept;

}  // namespace diskferry
