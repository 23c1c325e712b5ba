// Acknowledging: what a new version of a block does to what is pending of it. See pending_blocks.hpp.
#include "diskferry/assert.hpp"
#include "diskferry/units.hpp"
#include "gateway/mirror/pending_blocks.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace diskferry {
namespace {

constexpr std::uint64_t bit_of(unsigned bit) noexcept {
  return std::uint64_t{1} << bit;
}
constexpr std::uint64_t bits_of(unsigned from, unsigned count) noexcept {
  return count == group_blocks ? UINT64_MAX : (bit_of(count) - 1) << from;
}
constexpr unsigned bit_in_group(std::uint64_t block) noexcept {
  return static_cast<unsigned>(block % group_blocks);
}
/// Calls visit(bit) for each bit of the mask.
template <class Visit>
void for_bits(std::uint64_t mask, Visit visit) {
  for (; mask != 0; mask &= mask - 1) visit(static_cast<unsigned>(std::countr_zero(mask)));
}
void copy_or_zero(std::byte* to, const std::byte* from, std::uint64_t bytes) noexcept {
  if (from != nullptr) {
    std::memcpy(to, from, bytes);
  } else {
    std::memset(to, 0, bytes);
  }
}

}  // namespace

PendingBlocks::PendingBlocks(BlockTable& table, PendingLimits limits)
    : table_(table), limits_(limits), store_(limits.block_bytes) {
  DISKFERRY_ASSERT(limits.request_blocks > 0 && limits.request_blocks <= group_blocks,
                   "a request lies in one group");
  DISKFERRY_ASSERT(limits.block_bytes == table.shape().block_bytes, "the table is of the same blocks");
}

std::uint64_t PendingBlocks::length_of(std::uint64_t first, std::uint64_t count) const noexcept {
  return std::min((first + count) * limits_.block_bytes, limits_.size_bytes) - first * limits_.block_bytes;
}

// --- one block --------------------------------------------------------------------------------------------

/// What the target will hold of the block when what is flying has arrived.
BlockHash PendingBlocks::base_of(const Group* group, std::uint64_t block) noexcept {
  const std::uint64_t bit = bit_of(bit_in_group(block));
  if (group == nullptr || (group->flying.all & bit) == 0) return table_.known(block);
  if ((group->flying.partial & bit) != 0) return BlockHash::unknown();
  if ((group->flying.zero & bit) != 0) return BlockHash::zero();
  return store_.content(group->flying.slot[bit_in_group(block)]).hash;
}

PendingBlocks::Verdict PendingBlocks::judge(const Group* group, std::uint64_t block,
                                            BlockHash hash) noexcept {
  const std::uint64_t bit = bit_of(bit_in_group(block));
  if (group != nullptr && (group->queued.all & ~group->queued.partial & bit) != 0) {
    const bool is_zero = (group->queued.zero & bit) != 0;
    const BlockHash queued =
        is_zero ? BlockHash::zero() : store_.content(group->queued.slot[bit_in_group(block)]).hash;
    if (queued == hash) return Verdict::queued_already;
  }
  return base_of(group, block) == hash ? Verdict::at_target : Verdict::needed;
}

std::uint64_t PendingBlocks::bytes_of(const Group& group, const Group::Versions& versions,
                                      unsigned bit) noexcept {
  if ((versions.partial & bit_of(bit)) == 0) return length_of(group.number * group_blocks + bit, 1);
  const PayloadStore::Content& content = store_.content(versions.slot[bit]);
  return content.to - content.from;
}

/// Lets go of the content of a queued version; it still is queued, for a newer content to take its place.
void PendingBlocks::supersede(Group& group, unsigned bit) noexcept {
  const std::uint64_t bytes = bytes_of(group, group.queued, bit);
  counters_.superseded_bytes += bytes;
  if ((group.queued.zero & bit_of(bit)) != 0) {
    counters_.zero_bytes -= bytes;
  } else {
    counters_.data_bytes -= bytes;
    store_.give_back(group.queued.slot[bit]);
  }
  group.queued.zero &= ~bit_of(bit);
  group.queued.partial &= ~bit_of(bit);
}

/// The queued version will not be sent.
void PendingBlocks::unqueue(Group& group, unsigned bit) noexcept {
  supersede(group, bit);
  group.queued.all &= ~bit_of(bit);
  if ((group.queued.old & bit_of(bit)) != 0) --old_left_;
  group.queued.old &= ~bit_of(bit);
  --pending_blocks_;
}

/// Makes place for a version: that of the one which is queued, or one of its own.
void PendingBlocks::occupy(Group& group, unsigned bit) noexcept {
  if ((group.queued.all & bit_of(bit)) != 0) return supersede(group, bit);
  group.queued.all |= bit_of(bit);
  ++pending_blocks_;
}

void PendingBlocks::queue_slot(Group& group, unsigned bit, PayloadStore::Slot slot,
                               bool is_partial) noexcept {
  occupy(group, bit);
  group.queued.slot[bit] = slot;
  if (is_partial) group.queued.partial |= bit_of(bit);
  counters_.data_bytes += bytes_of(group, group.queued, bit);
  counters_.data_bytes_peak = std::max(counters_.data_bytes_peak, counters_.data_bytes);
}

void PendingBlocks::queue_zero(Group& group, unsigned bit) noexcept {
  occupy(group, bit);
  group.queued.zero |= bit_of(bit);
  counters_.zero_bytes += bytes_of(group, group.queued, bit);
}

// --- groups -----------------------------------------------------------------------------------------------

Group& PendingBlocks::group_for(std::uint64_t number) {
  Group* group = groups_.find(number);
  if (group == nullptr) {
    group = &groups_.add(number);
    group->barrier = barrier_;
  }
  sync_barrier(*group);
  return *group;
}

/// A barrier marks all that is pending without visiting it: a group looks at its number when it is touched.
void PendingBlocks::sync_barrier(Group& group) noexcept {
  if (group.barrier == barrier_) return;
  group.barrier = barrier_;
  group.queued.old = group.queued.all;
  group.flying.old = group.flying.all;
}

void PendingBlocks::begin_barrier() noexcept {
  DISKFERRY_ASSERT(old_left_ == 0, "one barrier at a time");
  ++barrier_;
  old_left_ = pending_blocks_;
}

/// After a change of what is queued.
void PendingBlocks::settle_group(Group& group, bool was_queued, TimePoint now) noexcept {
  if (!was_queued) group.since = now;
  if (group.sendable() != 0) {
    if (!group.is_ready) push_ready(group, false);
  } else if (group.is_ready) {
    unlink_ready(group);
  }
  retire_if_empty(group);
}

void PendingBlocks::retire_if_empty(Group& group) noexcept {
  if (!group.is_empty()) return;
  if (group.is_ready) unlink_ready(group);
  groups_.remove(group);
}

// --- whole blocks -----------------------------------------------------------------------------------------

unsigned PendingBlocks::choose(Arrival& arrival, std::uint64_t room_bytes) {
  DISKFERRY_ASSERT(arrival.count > 0 && bit_in_group(arrival.first) + arrival.count <= group_blocks,
                   "an arrival lies in one group");
  const Group* const group = groups_.find(arrival.first / group_blocks);
  const bool has_all_room = used_bytes() == 0;
  arrival.needed = 0;
  std::uint64_t cost_bytes = group == nullptr ? GroupMap::group_bytes : 0;
  bool is_first = true;
  if (arrival.count == group_blocks) store_.prefer_whole_slab();
  try {
    for (unsigned i = 0; i < arrival.count; ++i) {
      if (judge(group, arrival.first + i, arrival.hash[i]) != Verdict::needed) continue;
      const bool is_zero = arrival.hash[i].is_zero();
      if (!is_zero) cost_bytes += limits_.block_bytes;
      if (cost_bytes > room_bytes && !(has_all_room && is_first)) {
        arrival.count = i;
        break;
      }
      is_first = false;
      if (is_zero) continue;  // zeros need no memory, however they were written
      arrival.slot[i] = store_.take();
      arrival.memory[i] = store_.memory(arrival.slot[i]);
      arrival.needed |= bit_of(i);
    }
  } catch (...) {
    abandon(arrival);
    throw;
  }
  return arrival.count;
}

void PendingBlocks::abandon(Arrival& arrival) noexcept {
  for_bits(arrival.needed, [&](unsigned i) { store_.give_back(arrival.slot[i]); });
  arrival.needed = 0;
}

void PendingBlocks::copy(const Arrival& arrival) const noexcept {
  for_bits(arrival.needed, [&](unsigned i) {
    std::memcpy(arrival.memory[i], arrival.from + std::size_t{i} * limits_.block_bytes,
                length_of(arrival.first + i, 1));
  });
}

void PendingBlocks::queue_arrived(Group& group, Arrival& arrival, unsigned i) {
  const std::uint64_t block = arrival.first + i;
  const std::uint64_t length = length_of(block, 1);
  if ((arrival.needed & bit_of(i)) == 0) {  // another write came between, and what was needless is needed now
    arrival.slot[i] = store_.take();
    std::memcpy(store_.memory(arrival.slot[i]), arrival.from + std::size_t{i} * limits_.block_bytes, length);
  }
  arrival.needed &= ~bit_of(i);
  store_.content(arrival.slot[i]) = {
      .hash = arrival.hash[i], .from = 0, .to = static_cast<std::uint32_t>(length)};
  queue_slot(group, bit_in_group(block), arrival.slot[i], false);
}

void PendingBlocks::publish(Arrival& arrival, TimePoint now) {
  Group* group = groups_.find(arrival.first / group_blocks);
  if (group != nullptr) sync_barrier(*group);
  bool was_queued = group != nullptr && group->queued.all != 0;
  try {
    for (unsigned i = 0; i < arrival.count; ++i) {
      const std::uint64_t block = arrival.first + i;
      const Verdict verdict = judge(group, block, arrival.hash[i]);
      if (verdict == Verdict::needed) {
        if (group == nullptr) group = &group_for(arrival.first / group_blocks);
        if (arrival.hash[i].is_zero()) {
          queue_zero(*group, bit_in_group(block));
        } else {
          queue_arrived(*group, arrival, i);
        }
        continue;
      }
      counters_.unchanged_bytes += length_of(block, 1);
      if (verdict == Verdict::at_target && group != nullptr &&
          (group->queued.all & bit_of(bit_in_group(block))) != 0)
        unqueue(*group, bit_in_group(block));
    }
  } catch (...) {
    abandon(arrival);
    if (group != nullptr) settle_group(*group, was_queued, now);
    throw;
  }
  abandon(arrival);  // slots that turned out to be needless
  if (group != nullptr) settle_group(*group, was_queued, now);
}

bool PendingBlocks::put_zeros(std::uint64_t first, unsigned count, std::uint64_t room_bytes, TimePoint now) {
  const unsigned from = bit_in_group(first);
  DISKFERRY_ASSERT(count > 0 && from + count <= group_blocks, "the blocks lie in one group");
  Group* group = groups_.find(first / group_blocks);
  const std::uint64_t mask = bits_of(from, count);
  std::uint64_t base_zero = table_.known_zero(first, count) << from;
  if (group != nullptr) base_zero = (base_zero & ~group->flying.all) | group->flying.zero;
  const std::uint64_t needed = mask & ~base_zero;
  if (group == nullptr) {
    if (needed != 0 && room_bytes < GroupMap::group_bytes && used_bytes() != 0) return false;
    for_bits(mask & base_zero,
             [&](unsigned bit) { counters_.unchanged_bytes += length_of(first - from + bit, 1); });
    if (needed == 0) return true;
    group = &group_for(first / group_blocks);
    for_bits(needed, [&](unsigned bit) { queue_zero(*group, bit); });
    settle_group(*group, false, now);
    return true;
  }
  sync_barrier(*group);
  const bool was_queued = group->queued.all != 0;
  const std::uint64_t repeated = needed & group->queued.zero;
  for_bits(mask & (base_zero | repeated),
           [&](unsigned bit) { counters_.unchanged_bytes += length_of(first - from + bit, 1); });
  for_bits(mask & base_zero & group->queued.all, [&](unsigned bit) { unqueue(*group, bit); });
  for_bits(needed & ~repeated, [&](unsigned bit) { queue_zero(*group, bit); });
  settle_group(*group, was_queued, now);
  return true;
}

bool PendingBlocks::are_plain_zero(std::uint64_t first, std::uint64_t count) const noexcept {
  if (!table_.is_plain_zero(first, count)) return false;
  if (groups_.size() == 0) return true;
  for (std::uint64_t group = first / group_blocks; group * group_blocks < first + count; ++group) {
    if (groups_.find(group) != nullptr) return false;
  }
  return true;
}

// --- parts of blocks --------------------------------------------------------------------------------------

bool PendingBlocks::put_part(Range range, const std::byte* from, std::uint64_t room_bytes, TimePoint now) {
  const std::uint64_t block = range.offset / limits_.block_bytes;
  const unsigned bit = bit_in_group(block);
  const std::uint64_t begin = range.offset - block * limits_.block_bytes;
  Group* group = groups_.find(block / group_blocks);
  const bool is_queued = group != nullptr && (group->queued.all & bit_of(bit)) != 0;
  const bool is_zero = is_queued && (group->queued.zero & bit_of(bit)) != 0;
  if (from == nullptr && (is_zero || (!is_queued && base_of(group, block).is_zero()))) {
    counters_.unchanged_bytes += range.length;
    return true;
  }
  if (is_queued && (group->queued.partial & bit_of(bit)) != 0) {
    const PayloadStore::Content& part = store_.content(group->queued.slot[bit]);
    if (begin > part.to || begin + range.length < part.from) return false;
  }
  if (!is_queued || is_zero) {
    const std::uint64_t cost_bytes = limits_.block_bytes + (group == nullptr ? GroupMap::group_bytes : 0);
    if (cost_bytes > room_bytes && used_bytes() != 0) return false;
  }
  group = &group_for(block / group_blocks);
  const bool was_queued = group->queued.all != 0;
  try {
    merge_part(*group, bit, {begin, range.length}, from);
  } catch (...) {
    retire_if_empty(*group);
    throw;
  }
  settle_group(*group, was_queued, now);
  return true;
}

/// Puts a part into the queued version: into its slot, where it has one. `part` counts from the block's
/// begin.
void PendingBlocks::merge_part(Group& group, unsigned bit, Range part, const std::byte* from) {
  const std::uint64_t block = group.number * group_blocks + bit;
  const auto length = static_cast<std::uint32_t>(length_of(block, 1));
  const auto begin = static_cast<std::uint32_t>(part.offset);
  const auto end = static_cast<std::uint32_t>(part.end());
  const bool is_queued = (group.queued.all & bit_of(bit)) != 0;
  const bool is_zero = (group.queued.zero & bit_of(bit)) != 0;
  if (!is_queued || is_zero) {
    const PayloadStore::Slot slot = store_.take();
    if (is_zero) {
      std::memset(store_.memory(slot), 0, length);
      store_.content(slot) = {.from = 0, .to = length};
    } else {
      store_.content(slot) = {.from = begin, .to = end};
    }
    const std::uint64_t superseded_before = counters_.superseded_bytes;
    queue_slot(group, bit, slot, !is_zero);
    // The zeros around the part are still to be sent.
    counters_.superseded_bytes = superseded_before + (is_zero ? part.length : 0);
  } else {
    PayloadStore::Content& content = store_.content(group.queued.slot[bit]);
    const std::uint32_t grown_from = std::min(content.from, begin);
    const std::uint32_t grown_to = std::max(content.to, end);
    const std::uint64_t grown = (grown_to - grown_from) - (content.to - content.from);
    counters_.superseded_bytes += part.length - grown;
    counters_.data_bytes += grown;
    counters_.data_bytes_peak = std::max(counters_.data_bytes_peak, counters_.data_bytes);
    content.from = grown_from;
    content.to = grown_to;
  }
  const PayloadStore::Slot slot = group.queued.slot[bit];
  std::byte* const memory = store_.memory(slot);
  copy_or_zero(memory + begin, from, part.length);
  PayloadStore::Content& content = store_.content(slot);
  if (content.from != 0 || content.to != length) return;
  group.queued.partial &= ~bit_of(bit);
  content.hash = table_.hash({memory, length});
  if (base_of(&group, block) == content.hash) unqueue(group, bit);
}

}  // namespace diskferry
