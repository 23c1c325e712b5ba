// Sending: which blocks go next, in one request, and what their arrival changes. See pending_blocks.hpp.
//
// Groups are served in the order in which they got something to send, and within a group from the cursor
// upwards, so that what waits is not passed over by what keeps coming.
#include "diskferry/assert.hpp"
#include "gateway/mirror/pending_blocks.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace diskferry {
namespace {

constexpr std::uint64_t bit_of(unsigned bit) noexcept {
  return std::uint64_t{1} << bit;
}
constexpr std::uint64_t bits_from(unsigned bit) noexcept {
  return bit >= group_blocks ? 0 : UINT64_MAX << bit;
}
constexpr std::uint64_t bits_of(unsigned from, unsigned count) noexcept {
  return bits_from(from) & ~bits_from(from + count);
}

}  // namespace

// --- the list of groups that have something to send -------------------------------------------------------

void PendingBlocks::push_ready(Group& group, bool in_front) noexcept {
  group.is_ready = true;
  group.ready_before = in_front ? nullptr : ready_last_;
  group.ready_after = in_front ? ready_first_ : nullptr;
  (group.ready_before != nullptr ? group.ready_before->ready_after : ready_first_) = &group;
  (group.ready_after != nullptr ? group.ready_after->ready_before : ready_last_) = &group;
}

void PendingBlocks::unlink_ready(Group& group) noexcept {
  (group.ready_before != nullptr ? group.ready_before->ready_after : ready_first_) = group.ready_after;
  (group.ready_after != nullptr ? group.ready_after->ready_before : ready_last_) = group.ready_before;
  group.is_ready = false;
}

// --- taking -----------------------------------------------------------------------------------------------

bool PendingBlocks::take(Flight& flight, bool may_gather) noexcept {
  if (ready_first_ == nullptr) return false;
  Group& group = *ready_first_;
  sync_barrier(group);
  const std::uint64_t sendable = group.sendable();
  DISKFERRY_ASSERT(sendable != 0, "a ready group has something to send");
  const std::uint64_t ahead = sendable & bits_from(group.cursor);
  const auto bit = static_cast<unsigned>(std::countr_zero(ahead != 0 ? ahead : sendable));
  flight = {};
  flight.first = group.number * group_blocks + bit;
  flight.since = group.since;
  if ((group.queued.partial & bit_of(bit)) != 0) {
    take_part(group, bit, flight);
  } else if ((group.queued.zero & bit_of(bit)) != 0) {
    take_zeros(group, bit, flight);
  } else {
    take_data(group, bit, flight, may_gather);
  }
  return true;
}

void PendingBlocks::take_part(Group& group, unsigned bit, Flight& flight) noexcept {
  const PayloadStore::Slot slot = group.queued.slot[bit];
  const PayloadStore::Content& content = store_.content(slot);
  flight.count = 1;
  flight.range = {flight.first * limits_.block_bytes + content.from, content.to - content.from};
  flight.content[0] = store_.memory(slot) + content.from;
  lift(group, bit_of(bit), flight);
  move_on(group, bit + 1);
}

/// How many zeros before the next data are better sent as data than as a request that cuts it in two.
unsigned PendingBlocks::zeros_to_fold(const Group& group, unsigned bit) const noexcept {
  const std::uint64_t sendable = group.sendable();
  const auto zeros = static_cast<unsigned>(std::countr_one((sendable & group.queued.zero) >> bit));
  if (zeros > limits_.folded_blocks || bit + zeros >= group_blocks) return 0;
  const bool data_follows =
      (sendable & ~group.queued.zero & ~group.queued.partial & bit_of(bit + zeros)) != 0;
  return data_follows ? zeros : 0;
}

void PendingBlocks::take_data(Group& group, unsigned bit, Flight& flight, bool may_gather) noexcept {
  const unsigned begin = bit;
  const std::uint64_t whole = group.sendable() & ~group.queued.partial;
  unsigned count = 0;
  while (bit < group_blocks && count < limits_.request_blocks && (whole & bit_of(bit)) != 0) {
    if ((group.queued.zero & bit_of(bit)) != 0) {
      const unsigned zeros = may_gather ? zeros_to_fold(group, bit) : 0;
      if (zeros == 0 || count + zeros >= limits_.request_blocks) break;
      flight.is_gathered = true;
      count += zeros;  // content stays nullptr
      bit += zeros;
      continue;
    }
    const std::byte* const memory = store_.memory(group.queued.slot[bit]);
    if (count > 0 && !flight.is_gathered && memory != flight.content[count - 1] + limits_.block_bytes) {
      if (!may_gather) break;
      flight.is_gathered = true;
    }
    flight.content[count++] = memory;
    ++bit;
  }
  flight.count = count;
  flight.range = {flight.first * limits_.block_bytes, length_of(flight.first, count)};
  lift(group, bits_of(begin, count), flight);
  move_on(group, bit);
}

void PendingBlocks::take_zeros(Group& first_group, unsigned bit, Flight& flight) noexcept {
  flight.is_zero = true;
  for (Group* group = &first_group; group != nullptr;) {
    const auto most = std::min<std::uint64_t>(group_blocks, limits_.zero_blocks - flight.count);
    const auto run = static_cast<unsigned>(std::countr_one((group->sendable() & group->queued.zero) >> bit));
    const auto count = static_cast<unsigned>(std::min<std::uint64_t>(run, most));
    if (count == 0) break;
    lift(*group, bits_of(bit, count), flight);
    flight.count += count;
    const std::uint64_t next_number = group->number + 1;
    const bool goes_on = bit + count == group_blocks && flight.count < limits_.zero_blocks;
    move_on(*group, bit + count);
    group = goes_on ? groups_.find(next_number) : nullptr;
    if (group != nullptr) sync_barrier(*group);
    bit = 0;
  }
  flight.range = {flight.first * limits_.block_bytes, length_of(flight.first, flight.count)};
}

/// From queued to flying.
void PendingBlocks::lift(Group& group, std::uint64_t mask, Flight& flight) noexcept {
  Group::Versions& from = group.queued;
  Group::Versions& to = group.flying;
  for (std::uint64_t rest = mask; rest != 0; rest &= rest - 1) {
    const auto bit = static_cast<unsigned>(std::countr_zero(rest));
    to.slot[bit] = from.slot[bit];
    if (table_.is_listed(group.number * group_blocks + bit))
      flight.resent_bytes += length_of(group.number * group_blocks + bit, 1);
  }
  to.all |= mask;
  to.zero |= from.zero & mask;
  to.partial |= from.partial & mask;
  to.old |= from.old & mask;
  from.all &= ~mask;
  from.zero &= ~mask;
  from.partial &= ~mask;
  from.old &= ~mask;
}

/// The cursor has passed; behind the last block the group goes to the end of the list.
void PendingBlocks::move_on(Group& group, unsigned next_bit) noexcept {
  group.cursor = next_bit;
  if ((group.sendable() & bits_from(next_bit)) != 0) return;
  group.cursor = 0;
  unlink_ready(group);
  if (group.sendable() != 0) push_ready(group, false);
}

// --- landing ----------------------------------------------------------------------------------------------

void PendingBlocks::landed(const Flight& flight, bool ok) noexcept {
  if (!ok) {
    table_.forget(flight.first, flight.count);
  } else if (flight.is_zero) {
    table_.set_zero(flight.first, flight.count);
  }
  if (ok) {
    (flight.is_zero ? counters_.sent_zero_bytes : counters_.sent_bytes) += flight.range.length;
    counters_.resent_bytes += flight.resent_bytes;
  }
  std::uint64_t block = flight.first;
  const std::uint64_t end = flight.first + flight.count;
  while (block < end) {
    const auto bit = static_cast<unsigned>(block % group_blocks);
    const auto count = static_cast<unsigned>(std::min<std::uint64_t>(group_blocks - bit, end - block));
    Group* const group = groups_.find(block / group_blocks);
    DISKFERRY_ASSERT(group != nullptr, "what is flying keeps its group");
    land_group(*group, bits_of(bit, count), flight.is_zero, ok);
    block += count;
  }
}

void PendingBlocks::land_group(Group& group, std::uint64_t mask, bool is_zero, bool ok) noexcept {
  DISKFERRY_ASSERT((group.flying.all & mask) == mask, "a block lands once");
  sync_barrier(group);
  for (std::uint64_t rest = mask; rest != 0; rest &= rest - 1) {
    const auto bit = static_cast<unsigned>(std::countr_zero(rest));
    const std::uint64_t block = group.number * group_blocks + bit;
    const std::uint64_t bytes = bytes_of(group, group.flying, bit);
    if ((group.flying.zero & bit_of(bit)) != 0) {
      counters_.zero_bytes -= bytes;
      if (ok && !is_zero) table_.set(block, BlockHash::zero());
      continue;
    }
    counters_.data_bytes -= bytes;
    const PayloadStore::Slot slot = group.flying.slot[bit];
    if (ok) {
      if ((group.flying.partial & bit_of(bit)) != 0) {
        table_.forget(block, 1);
      } else {
        table_.set(block, store_.content(slot).hash);
      }
    }
    store_.give_back(slot);
  }
  const auto landed_blocks = static_cast<std::uint64_t>(std::popcount(mask));
  pending_blocks_ -= landed_blocks;
  old_left_ -= static_cast<std::uint64_t>(std::popcount(group.flying.old & mask));
  group.flying.all &= ~mask;
  group.flying.zero &= ~mask;
  group.flying.partial &= ~mask;
  group.flying.old &= ~mask;
  // What waited for these blocks has waited longest.
  if (!group.is_ready && group.sendable() != 0) push_ready(group, true);
  retire_if_empty(group);
}

void PendingBlocks::drop_queued() noexcept {
  const std::uint64_t superseded_bytes = counters_.superseded_bytes;
  groups_.for_each([this](Group& group) {
    sync_barrier(group);
    for (std::uint64_t rest = group.queued.all; rest != 0; rest &= rest - 1)
      unqueue(group, static_cast<unsigned>(std::countr_zero(rest)));
    if (group.is_ready) unlink_ready(group);
    retire_if_empty(group);
  });
  counters_.superseded_bytes = superseded_bytes;  // nothing took its place
}

// --- reading ----------------------------------------------------------------------------------------------

PendingBlocks::Lookup PendingBlocks::read(Range range, std::byte* into) const noexcept {
  const std::uint64_t block = range.offset / limits_.block_bytes;
  const auto bit = static_cast<unsigned>(block % group_blocks);
  const Group* const group = groups_.find(block / group_blocks);
  if (group == nullptr) return Lookup::at_target;
  const bool is_queued = (group->queued.all & bit_of(bit)) != 0;
  if (!is_queued && (group->flying.all & bit_of(bit)) == 0) return Lookup::at_target;
  const Group::Versions& newest = is_queued ? group->queued : group->flying;
  if ((newest.partial & bit_of(bit)) != 0) return Lookup::wait;
  if ((newest.zero & bit_of(bit)) != 0) {
    std::memset(into, 0, range.length);
  } else {
    std::memcpy(into, store_.memory(newest.slot[bit]) + (range.offset - block * limits_.block_bytes),
                range.length);
  }
  return Lookup::copied;
}

}  // namespace diskferry
