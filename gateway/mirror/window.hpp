// Window: the one bounded write-behind, in front of the target of a move. It acknowledges a write as soon as
// it has copied it, sends what differs from what the target is known to hold, with many requests in flight,
// and is durable where the client asks: at a flush.
//
// Only right while somebody else still has the truth: until the move's commit that is the source. After it,
// the target is served without a window.
#pragma once

#include "diskferry/driver.hpp"
#include "diskferry/task_group.hpp"
#include "drivers/filters/rate.hpp"
#include "gateway/mirror/block_table.hpp"
#include "gateway/mirror/pacing.hpp"
#include "gateway/mirror/pending_blocks.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace diskferry {

struct WindowOptions {
  /// Memory for what is acknowledged and not yet at the target, with what it takes to keep account of it.
  std::uint64_t window_bytes = 64ull << 20;
  /// Memory for what is known of the target.
  std::uint64_t table_bytes_max = 64ull << 20;
  /// What is compared and sent; a power of two. The target's block where that is larger.
  std::uint32_t block_bytes = 4096;
  unsigned requests_max = 64;
  /// Largest request with data. Larger ones were measured slower over NBD.
  std::uint32_t request_bytes_max = 256u << 10;
  std::uint64_t bytes_per_s = 0;  ///< towards the target; 0: no limit
  /// What is known from an earlier attempt (load_block_table()), of a disk of the same size and block_bytes;
  /// empty: what the target's starts_zeroed says.
  std::unique_ptr<BlockTable> table = {};
  /// The target reads as zero everywhere, whatever its own starts_zeroed says (NBD does not tell).
  bool starts_zeroed = false;
  /// The target was written to since it was opened, so that nothing is known of it.
  bool is_used = false;
  /// Called by each flush when the target has flushed; its result is the flush's. May wait.
  std::function<Task<Result<void>>()> before_flush_returns = {};
};

/// Counters only grow; the rest is of this moment. Without failures, and where all requests are whole blocks:
/// acknowledged + zeroed = sent + sent_zero + unchanged + superseded + pending + pending_zero.
struct WindowStats {
  std::uint64_t acknowledged_bytes = 0;  ///< written by the client
  std::uint64_t zeroed_bytes = 0;        ///< zeroed or discarded by the client
  std::uint64_t sent_bytes = 0;          ///< written to the target
  std::uint64_t sent_zero_bytes = 0;     ///< zeroed at the target
  std::uint64_t resent_bytes = 0;     ///< of these two, blocks that were sent before, as far as is remembered
  std::uint64_t unchanged_bytes = 0;  ///< not sent: the target holds them, or will by what is on its way
  std::uint64_t superseded_bytes = 0;  ///< not sent: a later write came first
  std::uint64_t pending_bytes = 0;     ///< data that the target has not acknowledged
  std::uint64_t pending_bytes_peak = 0;
  std::uint64_t pending_zero_bytes = 0;
  std::uint64_t window_bytes = 0;
  unsigned requests_in_flight = 0;
  std::uint64_t flushes = 0;
  std::uint64_t oldest_pending_ms = 0;
  std::uint64_t bytes_per_s = 0;  ///< sent in the last second

  /// What a window before this one has counted.
  void add_counters_of(const WindowStats& ended) noexcept;
};

/// A driver's device: put it behind checked(), and keep a reference for what is beyond BlockDevice.
/// Thread: any, but where said. Lifetime: close() has completed before it is destroyed.
/// Errors of write, write_zeroes, discard, read and flush: when a request to the target has failed, its
/// error, from then on and for ever; `gone` after stop().
class Window final : public BlockDevice {
 public:
  /// `target` is behind checked() and closed by close(). Lifetime: the context's.
  Window(DriverContext& context, std::shared_ptr<BlockDevice> target, WindowOptions options);
  ~Window() override;

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return target_->size_bytes(); }
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override;
  /// Completes when the content is copied: waits only while the window is full, first come first served. For
  /// large writes, which are copies as a rule, it is full a little earlier.
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override;
  /// The target may give the storage back whatever the flags say: only content is mirrored.
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override;
  /// Zeroes where the target does that quickly, else does nothing.
  Task<Result<void>> discard(Range range) override;
  /// Everything acknowledged before is at the target and flushed there, and before_flush_returns has agreed.
  Task<Result<void>> flush() override;
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override;
  /// Stops where stop() was not called, drops what is pending, and closes the target.
  Task<Result<void>> close() override;
  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from) override;
  std::uint64_t repeated_requests() const noexcept override { return target_->repeated_requests(); }
  void stop_waiting() noexcept override { target_->stop_waiting(); }

  /// Smaller than what is pending: new writes wait until enough has been sent. However small, a block gets
  /// through when nothing else is pending.
  void set_window_bytes(std::uint64_t bytes);
  /// Takes effect at once. 0: no limit.
  void set_bytes_per_s(std::uint64_t bytes_per_s) { limit_.set_rate(bytes_per_s); }

  /// Waits until everything acknowledged before is at the target; does not flush it. Errors: cancelled, those
  /// of the class.
  Task<Result<void>> settle();
  /// The same for who does not wait: a mark behind everything acknowledged before.
  std::uint64_t mark();
  /// Whether all before the mark is at the target; never once the window has failed or was stopped.
  bool has_settled(std::uint64_t mark) const;
  /// Whether try_write() would take such a write, as it looks now.
  bool can_take(Range range) const;
  /// Waits until nothing is pending; does not flush the target. Errors: cancelled, those of the class.
  Task<Result<void>> drain();
  /// As flush(), without before_flush_returns: for whoever holds that barrier, and for flushing ahead of it.
  /// The target is not asked again where it has flushed all that it was sent.
  Task<Result<void>> make_durable();
  /// Reads what the target is known to hold and compares; writes go on meanwhile, and what they concern is
  /// left out. Counts what was found right. The target's own caches are its owner's matter. Errors: mismatch,
  /// naming the block, which also ends the window; cancelled, those of the class. Lifetime: ends before
  /// close() does; stop() makes it end.
  Task<Result<void>> verify(std::atomic<std::uint64_t>& verified_bytes);
  /// Sends nothing any more and drops what is pending; every call fails with `gone` from now on. Completes
  /// when the target has let go. Call from one task at a time; a second call does nothing.
  Task<Result<void>> stop();
  /// Flushes the target for what was sent when stop() came, so that the table may be kept with it.
  /// Precondition: stop() has completed. Errors: the window's, and those of flushing.
  Task<Result<void>> flush_sent();
  /// Writes what is known and durable at the target to a file that replaces `path`, for a later attempt at a
  /// target of that identity. Precondition: stop() has completed, since a table is only true while nobody
  /// writes. Errors: permission, no_space, io.
  Task<Result<void>> save_table(std::string path, std::string target_identity);

  std::uint64_t pending_bytes() const;
  /// The error that ended it; nullopt while it works.
  std::optional<Error> failure() const;
  WindowStats stats() const;

 private:
  enum class Size : std::uint8_t { small, large };
  /// What is left to do of one write or zeroing.
  struct Put {
    Range left;
    const std::byte* from = nullptr;  ///< of the first byte left; nullptr: zeros
    Size size = Size::small;          ///< as it began
    bool is_turn = false;             ///< first of those that wait for room
    std::uint64_t changes = 0;        ///< as they were when there was no room
  };

  // window_write.cpp: acknowledging
  Task<Result<void>> put(Put put);
  Result<bool> accept(Put& put);
  Result<bool> accept_data(Put& put, unsigned blocks);
  Result<bool> accept_edge(Put& put, std::uint64_t bytes);
  Result<bool> accept_zeros(Put& put);
  bool may_put(Put& put) const noexcept;
  void advance(Put& put, std::uint64_t bytes) noexcept;
  std::uint64_t room_bytes(Size size) const noexcept;
  static Size size_of(std::uint64_t bytes) noexcept;
  bool has_to_queue(Size size) const noexcept;
  bool is_fitting(std::uint64_t bytes) const noexcept;
  Result<bool> copy_pending(std::uint64_t offset, std::span<std::byte> into, std::vector<Range>& at_target,
                            std::uint64_t& changes) const;

  // window_verify.cpp: reading back
  struct Verification;
  struct Expected;
  Expected expect(std::uint64_t first, unsigned count);
  std::uint64_t find_wrong(const Expected& before, std::span<const std::byte> bytes);
  Task<Result<void>> verify_group(std::uint64_t first, std::span<std::byte> buffer,
                                  const std::vector<Extent>& extents, Verification& shared);
  Task<Result<void>> verify_loop(Verification& shared);

  // window_send.cpp: sending
  Task<Result<void>> send_loop(std::size_t sender);
  Task<Result<void>> send(const Flight& flight, std::span<std::byte> buffer);
  void landed(const Flight& flight, const Result<void>& result, std::size_t sender);
  void advance_barriers();
  std::uint64_t want_barrier();
  void fail_with(const Error& error);
  void wake_everybody();
  Result<void> check_usable() const;
  Result<void> check_usable_now() const;

  DriverContext& context_;
  const std::shared_ptr<BlockDevice> target_;
  const std::uint32_t block_bytes_;
  const std::uint64_t size_bytes_;
  const bool zero_is_free_;  // zeroing moves no bytes to the target
  const DeviceInfo info_;
  const std::function<Task<Result<void>>()> before_flush_returns_;
  RateLimit limit_;
  const std::uint64_t request_bytes_;

  const std::unique_ptr<BlockTable> table_;  // guarded, as all that follows
  const std::uint64_t seed_;
  mutable std::mutex guard_;
  PendingBlocks pending_;
  std::uint64_t window_bytes_;
  std::uint64_t acknowledged_bytes_ = 0;
  std::uint64_t zeroed_bytes_ = 0;
  std::uint64_t flushes_ = 0;
  std::uint64_t landings_ = 0;  // requests that the target has answered
  std::optional<std::uint64_t>
      durable_to_;  // how many of these it has flushed; nothing before its first flush
  std::optional<Error> failure_;
  bool is_stopped_ = false;
  mutable RateMeter meter_;
  std::vector<TimePoint> flying_since_;  // a sender each; the end of time when it sends nothing
  WaitQueue work_;                       // senders
  WaitQueue changes_queue_;              // the writer whose turn it is, readers, drain()
  std::uint64_t changes_ = 0;  // landings and the like, so that nobody misses one between looking and waiting
  std::uint64_t small_waiting_ = 0;  // writers
  std::uint64_t large_waiting_ = 0;
  WaitQueue barriers_;  // flushes
  std::uint64_t barrier_begun_ = 0;
  std::uint64_t barrier_done_ = 0;
  std::uint64_t barrier_wanted_ = 0;

  // The queue of writers that wait for room, of which small ones have a lane of their own: a guest's write
  // waits for one of a copy's long ones, not for all that are under way.
  AsyncMutex turn_;
  AsyncMutex small_lane_;
  AsyncMutex large_lane_;
  TaskGroup senders_;
  bool is_joined_ = false;
};

}  // namespace diskferry
