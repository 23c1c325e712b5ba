// What is acknowledged and not yet at the target, and what goes next. Pure: no tasks, no clock of its own, no
// target; the window's mutex guards it.
//
// Blocks are compared when they are acknowledged, not when they are sent: a block that changes nothing then
// takes no memory and no place in the window, and one that is written back to what it was before it was sent
// is not sent at all. It is compared with what the target will hold when all that is on its way has arrived:
// the version that is flying, else what the table knows. So order matters only within a block, and there it
// is kept by having one queued version, which a later write replaces in place, behind at most one that is
// flying.
#pragma once

#include "gateway/mirror/block_table.hpp"
#include "gateway/mirror/group_map.hpp"
#include "gateway/mirror/payload_store.hpp"

#include <array>
#include <span>

namespace diskferry {

struct PendingLimits {
  std::uint64_t size_bytes = 0;
  std::uint32_t block_bytes = 4096;
  unsigned request_blocks = group_blocks;  ///< of data; at most group_blocks
  std::uint64_t zero_blocks = 8192;        ///< of one zeroing
  /// Zeros between data that are sent as data, since a request costs more than they do.
  unsigned folded_blocks = 4;
};

/// A request to the target.
struct Flight {
  std::uint64_t first = 0;
  std::uint64_t count = 0;  ///< blocks
  Range range;              ///< bytes
  bool is_zero = false;
  bool is_gathered = false;  ///< its content does not lie side by side
  /// Where the content of each block is, for data; nullptr: zeros. Valid until landed().
  std::array<const std::byte*, group_blocks> content{};
  std::uint64_t resent_bytes = 0;
  TimePoint since{};  ///< when the oldest of it was acknowledged
};

/// Whole blocks of one group on their way in, between choosing what is needed and publishing it.
struct Arrival {
  std::uint64_t first = 0;
  unsigned count = 0;
  const std::byte* from = nullptr;
  std::array<BlockHash, group_blocks> hash;
  std::uint64_t needed = 0;  ///< a bit for each block that has a slot
  std::array<PayloadStore::Slot, group_blocks> slot;
  std::array<std::byte*, group_blocks> memory;
};

struct PendingCounters {
  std::uint64_t unchanged_bytes = 0;
  std::uint64_t superseded_bytes = 0;
  std::uint64_t resent_bytes = 0;
  std::uint64_t sent_bytes = 0;
  std::uint64_t sent_zero_bytes = 0;
  std::uint64_t data_bytes = 0;  ///< pending now
  std::uint64_t zero_bytes = 0;  ///< pending now
  std::uint64_t data_bytes_peak = 0;
};

class PendingBlocks {
 public:
  PendingBlocks(BlockTable& table, PendingLimits limits);
  PendingBlocks(const PendingBlocks&) = delete;
  PendingBlocks& operator=(const PendingBlocks&) = delete;

  // Acknowledging (pending_put.cpp). All may throw std::bad_alloc and have then lost nothing.

  /// Finds which blocks have to be kept and takes slots for them, as far as `room_bytes` go; at least one
  /// block when nothing is pending. Returns how many blocks were looked at; arrival.count becomes that.
  /// Precondition: all lie in one group, and hash is filled.
  unsigned choose(Arrival& arrival, std::uint64_t room_bytes);
  /// Copies what is needed. The one call that needs no lock.
  void copy(const Arrival& arrival) const noexcept;
  /// The arrival's blocks are acknowledged now, in this order with whatever else is.
  void publish(Arrival& arrival, TimePoint now);
  /// Gives back what choose() took.
  void abandon(Arrival& arrival) noexcept;
  /// Whole blocks of one group become zero. False: no room.
  bool put_zeros(std::uint64_t first, unsigned count, std::uint64_t room_bytes, TimePoint now);
  /// A part of a block; `from` nullptr: zeros. False: no room, or a part of it waits that does not touch this
  /// one: then once that is flying.
  bool put_part(Range range, const std::byte* from, std::uint64_t room_bytes, TimePoint now);
  /// True when these blocks are zero already and nothing is pending there; looks at whole regions only.
  bool are_plain_zero(std::uint64_t first, std::uint64_t count) const noexcept;
  void count_unchanged(std::uint64_t bytes) noexcept { counters_.unchanged_bytes += bytes; }

  // Sending (pending_send.cpp).

  bool has_ready() const noexcept { return ready_first_ != nullptr; }
  /// The next request; false when there is none. With `may_gather` blocks are joined that do not lie side by
  /// side in memory.
  bool take(Flight& flight, bool may_gather) noexcept;
  /// The target has answered. Afterwards the table knows these blocks, or knows that it does not.
  void landed(const Flight& flight, bool ok) noexcept;
  /// Forgets what is queued: it will never be sent.
  void drop_queued() noexcept;

  // Waiting for what was acknowledged before a moment.

  void begin_barrier() noexcept;
  /// Blocks from before the barrier that are still pending. A block that was written again counts.
  std::uint64_t old_left() const noexcept { return old_left_; }

  // Reading.

  enum class Lookup : std::uint8_t { copied, at_target, wait };
  /// Copies one block's part if it is pending. `wait`: a part of the block is pending, so neither place has
  /// all of it.
  Lookup read(Range range, std::byte* into) const noexcept;

  bool is_empty() const noexcept { return groups_.size() == 0; }
  std::uint64_t used_bytes() const noexcept {
    return store_.used_bytes() + groups_.size() * GroupMap::group_bytes;
  }
  const PendingCounters& counters() const noexcept { return counters_; }
  /// When the first of the groups that wait was acknowledged; `now` when none waits.
  TimePoint oldest_ready(TimePoint now) const noexcept { return has_ready() ? ready_first_->since : now; }

 private:
  enum class Verdict : std::uint8_t { queued_already, at_target, needed };
  BlockHash base_of(const Group* group, std::uint64_t block) noexcept;
  Verdict judge(const Group* group, std::uint64_t block, BlockHash hash) noexcept;
  std::uint64_t length_of(std::uint64_t first, std::uint64_t count) const noexcept;
  std::uint64_t bytes_of(const Group& group, const Group::Versions& versions, unsigned bit) noexcept;
  void supersede(Group& group, unsigned bit) noexcept;
  void unqueue(Group& group, unsigned bit) noexcept;
  void occupy(Group& group, unsigned bit) noexcept;
  void queue_slot(Group& group, unsigned bit, PayloadStore::Slot slot, bool is_partial) noexcept;
  void queue_zero(Group& group, unsigned bit) noexcept;
  void queue_arrived(Group& group, Arrival& arrival, unsigned i);
  void merge_part(Group& group, unsigned bit, Range part, const std::byte* from);
  Group& group_for(std::uint64_t number);
  void sync_barrier(Group& group) noexcept;
  void settle_group(Group& group, bool was_queued, TimePoint now) noexcept;
  void retire_if_empty(Group& group) noexcept;
  void push_ready(Group& group, bool in_front) noexcept;
  void unlink_ready(Group& group) noexcept;
  unsigned zeros_to_fold(const Group& group, unsigned bit) const noexcept;
  void take_part(Group& group, unsigned bit, Flight& flight) noexcept;
  void take_data(Group& group, unsigned bit, Flight& flight, bool may_gather) noexcept;
  void take_zeros(Group& group, unsigned bit, Flight& flight) noexcept;
  void lift(Group& group, std::uint64_t mask, Flight& flight) noexcept;
  void move_on(Group& group, unsigned next_bit) noexcept;
  void land_group(Group& group, std::uint64_t mask, bool is_zero, bool ok) noexcept;

  BlockTable& table_;
  const PendingLimits limits_;
  PayloadStore store_;
  GroupMap groups_;
  Group* ready_first_ = nullptr;
  Group* ready_last_ = nullptr;
  PendingCounters counters_;
  std::uint64_t pending_blocks_ = 0;
  std::uint32_t barrier_ = 0;
  std::uint64_t old_left_ = 0;
};

}  // namespace diskferry
