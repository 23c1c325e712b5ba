// Makes finished work durable while copying goes on: flush the target, re-read what that made durable where
// it is to be verified from storage, then append to the ledger. In this order, so that a record is a promise.
// Flushing in the background also starts writeback early, which is why the last flush is short.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/copy/ledger.hpp"
#include "gateway/copy/piece.hpp"

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

namespace diskferry {

struct CheckpointOptions {
  /// A checkpoint is due when this much is finished: what a crash costs, against the price of a flush
  /// (measured in docs/decisions/0005-verification.md).
  std::uint64_t bytes = 256u << 20;
  Duration interval = std::chrono::seconds(2);
  /// Re-read after the flush, before the ledger says so. Not for targets that cannot be read while they are
  /// written.
  bool verify = false;
  /// The file behind the target: its cached pages are dropped before the re-read. Empty: none.
  std::string cache_path;
  /// Offsets of the disk are those of the file: only what is re-read is dropped.
  bool is_raw = false;
};

/// Thread: finished() from any; the rest from one task at a time. Lifetime: run() has ended before
/// destruction.
class Checkpointer {
 public:
  /// Finished pieces that are not durable yet; the engine waits beyond that. 40 bytes each.
  static constexpr std::uint64_t pending_pieces_max = 65536;

  /// `ledger` may be nullptr: then flushing and verifying is all.
  Checkpointer(DriverContext& context, BlockDevice& target, Ledger* ledger, CheckpointOptions options);

  void finished(const Piece& piece);
  AsyncSemaphore& room() noexcept { return room_; }
  /// Checkpoints when one is due, until cancelled. Errors: of flush, verification and ledger; never
  /// cancelled.
  Task<Result<void>> run();
  /// One checkpoint now, of everything finished before.
  Task<Result<void>> commit();

  std::uint64_t durable_bytes() const noexcept { return durable_bytes_; }
  const std::atomic<std::uint64_t>& verified_bytes() const noexcept { return verified_bytes_; }
  std::uint64_t commits() const noexcept { return commits_; }
  Duration time_flushing() const noexcept { return Duration(flush_ns_.load()); }
  Duration time_verifying() const noexcept { return Duration(verify_ns_.load()); }
  Duration time_recording() const noexcept { return Duration(record_ns_.load()); }

 private:
  /// How often run() looks; a fraction of the time a checkpoint of that size takes anywhere.
  static constexpr Duration look_interval = std::chrono::milliseconds(20);
  bool is_due(TimePoint now) const;

  DriverContext& context_;
  BlockDevice& target_;
  Ledger* const ledger_;
  const CheckpointOptions options_;
  AsyncSemaphore room_{pending_pieces_max};
  AsyncMutex committing_;
  mutable std::mutex guard_;
  std::vector<Piece> pending_;
  std::uint64_t pending_bytes_ = 0;
  TimePoint last_;
  std::atomic<std::uint64_t> durable_bytes_ = 0;
  std::atomic<std::uint64_t> verified_bytes_ = 0;
  std::atomic<std::uint64_t> commits_ = 0;
  std::atomic<Duration::rep> flush_ns_ = 0;
  std::atomic<Duration::rep> verify_ns_ = 0;
  std::atomic<Duration::rep> record_ns_ = 0;
};

}  // namespace diskferry
