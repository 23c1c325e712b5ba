// MirrorDevice: a disk that moves while it is used. What guests read and what is durable is the *primary*;
// a *target* follows it, through a window. Its owner has dirty granules copied, holds the guests' writes when
// both are the same, and has them change places. Guests never see an error or a wait because of the target,
// beyond the limit that the operator gave.
//
// No write waits for a copy and no copy for a write: where they meet, the granules are copied again.
// Invariant: a granule that is not dirty and that nothing in flight touches is the same on both, as far as
// the window has taken it in.
#pragma once

#include "diskferry/driver.hpp"
#include "gateway/mirror/copy_pace.hpp"
#include "gateway/mirror/difference_map.hpp"
#include "gateway/mirror/in_flight.hpp"
#include "gateway/mirror/latency.hpp"
#include "gateway/mirror/window.hpp"

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

namespace diskferry {

/// What becomes of a guest's write to bytes that the target has.
enum class MirrorMode : std::uint8_t {
  background,   ///< they are dirty again, and copied later
  bounded,      ///< acknowledged when the primary has them and the window has taken them in
  synchronous,  ///< acknowledged when both have them
};
std::string_view to_string(MirrorMode mode) noexcept;

struct MirrorOptions {
  MirrorMode mode = MirrorMode::bounded;
  /// What a write may wait for the target before its bytes are marked dirty instead; zero: as long as it
  /// takes.
  Duration latency_max = std::chrono::milliseconds(100);
  std::uint64_t guest_bytes_per_s = 0;  ///< of guests' writes; 0: no limit
  std::uint64_t granule_bytes = 0;      ///< 0: that of difference_shape()
  /// Bits of a file with difference_shape(size).granules() of them; empty: none is kept. Lifetime: the
  /// device's.
  std::span<std::uint64_t> kept = {};
  /// Of all copies that share this machine; empty: one of its own.
  std::shared_ptr<CopyPace> pace = {};
};

/// Counters only grow; the rest is of this moment.
struct MirrorStats {
  std::uint64_t guest_bytes = 0;  ///< written, zeroed and discarded by guests
  std::uint64_t guest_writes = 0;
  std::uint64_t mirrored_bytes = 0;   ///< of these, told to the target at once
  std::uint64_t left_bytes = 0;       ///< of these, marked dirty, or dirty before
  std::uint64_t spilled_bytes = 0;    ///< marked dirty because the target was too slow
  std::uint64_t overtaken_bytes = 0;  ///< marked dirty because a copy was under way
  std::uint64_t copied_bytes = 0;     ///< taken to be copied
  std::uint64_t dirty_bytes = 0;
  MirrorMode mode = MirrorMode::bounded;
  bool has_target = false;
  LatencySummary latency{};            ///< of guests' writes
  LatencySummary added{};              ///< of that, because of the mirror
  std::uint64_t added_p99_now_us = 0;  ///< the same of the last second or two
};

/// A driver's device: put it behind checked(), and keep a reference for what is beyond BlockDevice.
/// Thread: any; but attach(), detach(), hold() and switch_over() from one task at a time.
/// Lifetime: close() has completed before it is destroyed.
/// Errors of the verbs: the primary's, and never the target's.
class MirrorDevice final : public BlockDevice {
 public:
  /// Everything is dirty, or what `kept` says. `primary` is behind checked() and closed by close().
  MirrorDevice(DriverContext& context, std::shared_ptr<BlockDevice> primary, MirrorOptions options);
  ~MirrorDevice() override;

  const DeviceInfo& info() const noexcept override { return info_; }
  std::uint64_t size_bytes() const noexcept override { return size_bytes_; }
  Task<Result<void>> read(std::uint64_t offset, std::span<std::byte> into) override;
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags) override;
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags) override;
  /// Zeroes both where the primary unmaps; else discards on the primary, and what is left is copied.
  Task<Result<void>> discard(Range range) override;
  /// Of the primary alone: the target is made durable before they change places.
  Task<Result<void>> flush() override;
  Task<Result<std::vector<Extent>>> extents(Range range, std::size_t extents_max) override;
  /// Of primary and target.
  Task<Result<void>> close() override;
  std::optional<Result<void>> try_read(std::uint64_t offset, std::span<std::byte> into) override;
  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from) override;
  Task<Result<void>> prefetch(Range range) override;
  std::uint64_t repeated_requests() const noexcept override;
  void stop_waiting() noexcept override;

  // --- the target ---

  /// Has `target` follow, behind checked(), of the same size. What it lacks is dirty. Precondition: no
  /// target. Closed by close(), or given back by detach(); after a switchover it is the primary.
  void attach(std::shared_ptr<BlockDevice> target, WindowOptions options);
  /// The same for a target that holds what the primary does, durably.
  void attach_same(std::shared_ptr<BlockDevice> target, WindowOptions options);
  /// No target any more: what it was told and has not flushed is dirty. Returns it, open; null: there was
  /// none.
  Task<std::shared_ptr<BlockDevice>> detach();
  /// Why the target does not follow any more; it stays so until detach().
  std::optional<Error> target_failure() const;
  /// Its counters are of all targets there were, so that they only grow.
  WindowStats window_stats() const;
  /// Where copies are written; behind checked(). Null without a target.
  std::shared_ptr<BlockDevice> copy_target() const;
  std::shared_ptr<BlockDevice> primary() const;

  // --- copying: begin, read the primary, write copy_target(), end ---

  /// Dirty granules to be copied, from `from` on; they are not dirty any more. nullopt: none there.
  std::optional<Range> begin_next_copy(std::uint64_t from, std::uint64_t bytes_max, bool skip_recent);
  /// The first part of `bytes`, whole granules, that is still dirty: for who has a plan of what the primary
  /// holds.
  /// `is_planned` comes back false where a guest has written since, so that the plan is void; then it is at
  /// most `bytes_max`.
  struct PlannedCopy {
    Range range{};
    bool is_planned = true;
  };
  std::optional<PlannedCopy> begin_planned_copy(Range bytes, std::uint64_t bytes_max);
  /// `is_copied` false: it is dirty again.
  void end_copy(Range range, bool is_copied);
  /// Is copied (again), whatever the target has.
  void mark_dirty(Range range);
  /// What copies leave to guests, by whoever copies.
  CopyPace& copy_pace() noexcept { return *pace_; }
  /// Whether copies keep to the pace; false: guests have to pay for an end that is out of reach otherwise.
  /// Thread: any.
  bool makes_room() const noexcept { return makes_room_; }
  void set_makes_room(bool makes_room) noexcept { makes_room_ = makes_room; }
  /// What guests have written of late is left for later by `skip_recent`; call it every few seconds.
  void next_age();
  /// Makes the target durable, and forgets what is settled. Errors: those of the target; cancelled.
  Task<Result<void>> checkpoint();

  /// Marks what the target has been told and the window has not sent yet, and whether all of that is at the
  /// target: a wait that guests who go on writing do not make longer. Precondition: a target, the same one.
  std::uint64_t mark_pending();
  bool has_settled(std::uint64_t mark) const;

  // --- convergence ---

  void set_mode(MirrorMode mode);
  void set_latency_max(Duration limit);
  void set_guest_bytes_per_s(std::uint64_t bytes_per_s) { guest_limit_.set_rate(bytes_per_s); }
  void set_copy_bytes_per_s(std::uint64_t bytes_per_s);
  void set_window_bytes(std::uint64_t bytes);
  std::uint64_t dirty_bytes() const;
  MirrorStats stats() const;

  // --- switchover ---

  /// Guests' writes, zeroings, discards and flushes wait from now on; returns when none is in flight.
  /// Errors: cancelled, and then nobody waits any more.
  Task<Result<void>> hold();
  /// Those who wait go on.
  void let_go();
  /// The target takes the primary's place. Precondition: held, nothing is dirty, and a checkpoint has
  /// succeeded since: asserted.
  Task<void> switch_over();
  /// What was the primary before the last switchover, when nobody reads from it any more. Once for each;
  /// null: it was taken, or it follows.
  Task<std::shared_ptr<BlockDevice>> take_former();
  /// What was the primary before follows as a target, which holds the same, durably. Precondition: as
  /// attach_same(), and a switchover.
  void attach_former(WindowOptions options);
  /// The primary, which is nobody's but the caller's from now on; instead of close(). Precondition: nobody
  /// uses the mirror any more, and nothing follows.
  std::shared_ptr<BlockDevice> dissolve();

 private:
  enum class Verb : std::uint8_t { write, zero, discard };
  struct Change {
    Verb verb = Verb::write;
    Range range{};
    const std::byte* from = nullptr;
    WriteFlags write_flags{};
    ZeroFlags zero_flags{};
  };
  /// With who uses it, besides changes: reads and flushes.
  struct Primary {
    std::shared_ptr<BlockDevice> device{};
    std::size_t users = 0;
  };
  class PrimaryUse;
  class TargetUse;
  struct Target {
    std::shared_ptr<BlockDevice> device{};
    std::shared_ptr<BlockDevice> checked_window{};
    std::shared_ptr<Window> window{};  // the same
  };
  /// What was decided about a change when it began.
  struct Begun {
    GuestWrite write{};
    std::shared_ptr<BlockDevice> primary{};
    Target target{};             // null: nothing is mirrored
    std::vector<Range> parts{};  // mirrored
    MirrorMode mode = MirrorMode::bounded;
    Duration latency_max{};
    std::size_t told = 0;  // of the parts, those that the window has taken
    TimePoint since{};
    TimePoint entered{};
    Duration primary_took{};
    bool is_counted = true;
  };
  Task<Result<void>> change(Change change);
  Task<Result<void>> enter(const Change& change, Begun& begun);
  bool try_enter(const Change& change, Begun& begun);
  void begin(const Change& change, Begun& begun);
  void leave(const Change& change, Begun& begun, bool is_complete);
  static Task<Result<void>> change_primary(const Change& change, BlockDevice& primary);
  Task<void> mirror(const Change& change, Begun& begun);
  static Task<Result<void>> tell(const Change& change, Range part, BlockDevice& target);
  Task<Result<void>> tell_rest(const Change& change, Begun& begun);
  struct ChangeEnd;
  void note_not_mirrored(Range part, const Error& why);
  bool can_tell_at_once(Range range) const;
  static std::span<const std::byte> bytes_of(const Change& change, Range part) noexcept;
  void fail_target(const Error& error);
  void begin_copy_of(Range range);
  Range free_part(Range range) const noexcept;
  Task<Target> take_target();
  Target target() const;

  DriverContext& context_;
  const std::uint64_t size_bytes_;
  const DeviceInfo info_;
  RateLimit guest_limit_;
  const std::shared_ptr<CopyPace> pace_;
  std::atomic<bool> makes_room_ = true;

  mutable std::mutex guard_;  // all that follows
  std::shared_ptr<Primary> primary_;
  std::shared_ptr<Primary> former_;  // before the last switchover; null: taken
  bool former_follows_ = false;      // it is the target
  Target target_;
  std::shared_ptr<Window> ending_window_;  // of a target that is being taken
  WindowStats ended_windows_;              // counters of those before
  std::optional<Error> target_failure_;
  DifferenceMap differences_;
  InFlight in_flight_;
  std::size_t target_users_ = 0;  // changes that have begun with the target, or one before it
  bool is_held_ = false;
  MirrorMode mode_;
  Duration latency_max_;
  AsyncMutex checkpointing_;  // one at a time, or one's success would settle what another's flush covers
  WaitQueue entrance_;        // writes that wait for others, or because they are held
  WaitQueue exits_;           // hold() and take_target()
  MirrorStats counters_;
  mutable LatencyMeter latency_{std::chrono::seconds(5)};
  mutable LatencyMeter added_{std::chrono::seconds(5)};
  mutable LatencyMeter added_now_{std::chrono::seconds(1)};
};

}  // namespace diskferry
