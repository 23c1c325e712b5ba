// See block_table.hpp. A slot is found by its set and a tag; which slot is given up is decided by a clock:
// one that was used since it was last passed over stays. What a full copy streams through the table is never
// used again and goes first, so the blocks that a guest keeps writing stay.
#include "gateway/mirror/block_table.hpp"

#include "diskferry/assert.hpp"
#include "diskferry/units.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>

namespace diskferry {
namespace {

constexpr std::uint64_t region_bytes_min = 4 * mib;
/// Regions take at most this part of the memory; the rest is for slots.
constexpr std::uint64_t regions_part = 16;

}  // namespace

void BlockTable::FreeMemory::operator()(Slot* slots) const noexcept {
  std::free(slots);  // NOLINT(cppcoreguidelines-no-malloc): calloc gives zeroed memory without touching it
}

BlockTable::BlockTable(TableShape shape, std::uint64_t seed, bool starts_zeroed)
    : shape_(shape), seed_(seed), blocks_(divide_up(shape.size_bytes, shape.block_bytes)) {
  DISKFERRY_ASSERT(std::has_single_bit(shape.block_bytes), "a block is a power of two");
  const std::uint64_t bytes = std::max(shape.bytes_max, bytes_min);
  const std::uint64_t regions_max = bytes / regions_part / sizeof(Region);
  region_blocks_ = std::bit_ceil(
      std::max({std::uint64_t{1}, region_bytes_min / shape.block_bytes, divide_up(blocks_, regions_max)}));
  regions_.resize(divide_up(blocks_, region_blocks_));
  for (Region& region : regions_) region.is_zero = starts_zeroed;
  const std::uint64_t sets_max = (bytes - bytes / regions_part) / (ways * sizeof(Slot));
  sets_ = std::clamp<std::uint64_t>(divide_up(blocks_, ways), 1, sets_max);
  slots_.reset(static_cast<Slot*>(std::calloc(sets_ * ways, sizeof(Slot))));  // NOLINT
  if (slots_ == nullptr) throw std::bad_alloc();
}

BlockTable::~BlockTable() = default;

// --- slots ------------------------------------------------------------------------------------------------

/// Neighbours share a set, and there are as many ways as neighbours: a disk that fits loses nothing.
BlockTable::Slot* BlockTable::set_of(std::uint64_t block) const noexcept {
  return &slots_[block / ways % sets_ * ways];
}

std::uint64_t BlockTable::tag_of(std::uint64_t block) const noexcept {
  return block / ways / sets_ * ways + block % ways + 1;
}

std::uint64_t BlockTable::block_of(std::uint64_t set, std::uint32_t tag) const noexcept {
  const std::uint64_t from_zero = std::uint64_t{tag} - 1;
  return (from_zero / ways * sets_ + set) * ways + from_zero % ways;
}

BlockTable::Slot* BlockTable::find(std::uint64_t block) const noexcept {
  const std::uint64_t tag = tag_of(block);
  Slot* const set = set_of(block);
  for (unsigned way = 0; way < ways; ++way) {
    if (set[way].tag == tag) return &set[way];
  }
  return nullptr;
}

void BlockTable::unlist(Slot& slot, Region& region) noexcept {
  --region.listed;
  if (slot.hash().is_zero()) --region.zero_listed;
  slot = {};
}

/// Gives up what is known of a block. Then its region must not say that it is zero; and where it is, must not
/// say that it is durable before it is.
void BlockTable::evict(Slot& slot, std::uint64_t block) noexcept {
  Region& region = region_of(block);
  if (slot.hash().is_zero()) {
    region.stamp = std::max<std::uint32_t>(region.stamp, slot.stamp);
  } else {
    region.is_zero = false;
  }
  unlist(slot, region);
}

/// An empty slot for this block; nullptr where its tag does not fit.
BlockTable::Slot* BlockTable::make_room(std::uint64_t block) noexcept {
  if (tag_of(block) > UINT32_MAX) return nullptr;
  Slot* const set = set_of(block);
  for (unsigned way = 0; way < ways; ++way) {
    if (set[way].tag == 0) return &set[way];
  }
  const std::uint64_t index = block / ways % sets_;
  hand_ = (hand_ + 1) % ways;
  for (unsigned step = 0; step < 2 * ways; ++step) {
    Slot& slot = set[(hand_ + step) % ways];
    if (slot.used == 0) {
      evict(slot, block_of(index, slot.tag));
      return &slot;
    }
    slot.used = 0;
  }
  DISKFERRY_ASSERT(false, "a second round finds a slot that was not used");
}

void BlockTable::list(std::uint64_t block, BlockHash hash, std::uint32_t stamp) noexcept {
  Slot* slot = find(block);
  const bool is_new = slot == nullptr;
  if (is_new) slot = make_room(block);
  Region& region = region_of(block);
  if (slot == nullptr) {
    region.is_zero = false;  // what cannot be listed must not be taken for zero
    return;
  }
  if (is_new) {
    ++region.listed;
  } else if (slot->hash().is_zero()) {
    --region.zero_listed;
  }
  if (hash.is_zero()) ++region.zero_listed;
  *slot = {.high = hash.high,
           .low = hash.low,
           .tag = static_cast<std::uint32_t>(tag_of(block)),
           .stamp = stamp & stamp_max,
           .used = is_new ? 0u : 1u};
}

// --- what is known ----------------------------------------------------------------------------------------

BlockHash BlockTable::known(std::uint64_t block) noexcept {
  if (Slot* const slot = find(block)) {
    slot->used = 1;
    return slot->hash();
  }
  return region_of(block).is_zero ? BlockHash::zero() : BlockHash::unknown();
}

std::uint64_t BlockTable::known_zero(std::uint64_t first, unsigned count) noexcept {
  std::uint64_t mask = 0;
  for (unsigned i = 0; i < count; ++i) {
    const Region& region = region_of(first + i);
    const bool is_zero = region.listed == 0 ? region.is_zero : known(first + i).is_zero();
    mask |= std::uint64_t{is_zero} << i;
  }
  return mask;
}

bool BlockTable::is_plain_zero(std::uint64_t first, std::uint64_t count) const noexcept {
  for (std::uint64_t region = first / region_blocks_; region * region_blocks_ < first + count; ++region) {
    if (!regions_[region].is_zero || regions_[region].listed != 0) return false;
  }
  return true;
}

bool BlockTable::is_listed(std::uint64_t block) noexcept {
  return region_of(block).listed != 0 && find(block) != nullptr;
}

void BlockTable::set(std::uint64_t block, BlockHash hash) noexcept {
  list(block, hash, stamp_);
  const std::uint64_t region = block / region_blocks_;
  if (!regions_[region].is_zero && regions_[region].zero_listed == blocks_in_region(region))
    make_zero(region, stamp_);
}

void BlockTable::set_zero(std::uint64_t first, std::uint64_t count) noexcept {
  while (count > 0) {
    const std::uint64_t region = first / region_blocks_;
    const std::uint64_t now = std::min(count, (region + 1) * region_blocks_ - first);
    if (now == blocks_in_region(region)) {
      make_zero(region, stamp_);
    } else {
      for (std::uint64_t block = first; block < first + now; ++block) set(block, BlockHash::zero());
    }
    first += now;
    count -= now;
  }
}

void BlockTable::forget(std::uint64_t first, std::uint64_t count) noexcept {
  for (std::uint64_t block = first; block < first + count; ++block) {
    Region& region = region_of(block);
    if (region.is_zero) {
      list(block, BlockHash::unknown(), stamp_);
    } else if (region.listed != 0) {
      if (Slot* const slot = find(block)) unlist(*slot, region);
    }
  }
}

std::uint64_t BlockTable::blocks_in_region(std::uint64_t region) const noexcept {
  return std::min(region_blocks_, blocks_ - region * region_blocks_);
}

void BlockTable::make_zero(std::uint64_t index, std::uint32_t stamp) noexcept {
  Region& region = regions_[index];
  const std::uint64_t first = index * region_blocks_;
  for (std::uint64_t i = 0; i < blocks_in_region(index) && region.listed != 0; ++i) {
    if (Slot* const slot = find(first + i)) unlist(*slot, region);
  }
  region.is_zero = true;
  region.stamp = stamp;
}

// --- what is durable --------------------------------------------------------------------------------------

std::uint32_t BlockTable::flush_begins() noexcept {
  const std::uint32_t ticket = stamp_;
  // At the end of the numbers nothing becomes durable any more: less is known then, and nothing wrong.
  if (stamp_ < stamp_max) ++stamp_;
  return ticket;
}

void BlockTable::flush_done(std::uint32_t ticket) noexcept {
  if (ticket < stamp_) durable_ = std::max(durable_, ticket);
}

std::vector<Range> BlockTable::durable_zero_blocks() const {
  std::vector<Range> ranges;
  for (std::uint64_t region = 0; region < regions_.size(); ++region) {
    if (!regions_[region].is_zero || regions_[region].stamp > durable_) continue;
    const Range blocks{region * region_blocks_, blocks_in_region(region)};
    if (!ranges.empty() && ranges.back().end() == blocks.offset) {
      ranges.back().length += blocks.length;
    } else {
      ranges.push_back(blocks);
    }
  }
  return ranges;
}

bool BlockTable::durable_entries(std::uint64_t& cursor, std::size_t most, std::vector<Entry>& into) const {
  for (; cursor < sets_ * ways && most > 0; ++cursor) {
    const Slot& slot = slots_[cursor];
    if (slot.tag == 0) continue;
    const std::uint64_t block = block_of(cursor / ways, slot.tag);
    const Region& region = regions_[block / region_blocks_];
    const bool zero_is_saved = region.is_zero && region.stamp <= durable_;
    const BlockHash hash = slot.stamp <= durable_ ? slot.hash() : BlockHash::unknown();
    if (!hash.is_known() && !zero_is_saved) continue;  // no entry says the same
    into.push_back({block, hash});
    --most;
  }
  return cursor < sets_ * ways;
}

void BlockTable::load_zero(Range blocks) noexcept {
  const std::uint64_t first = divide_up(blocks.offset, region_blocks_);
  for (std::uint64_t region = first; region < regions_.size(); ++region) {
    if (region * region_blocks_ + blocks_in_region(region) > blocks.end()) return;
    regions_[region].is_zero = true;
    regions_[region].stamp = 0;
  }
}

void BlockTable::load_entry(const Entry& entry) noexcept {
  if (entry.hash.is_known() || region_of(entry.block).is_zero) list(entry.block, entry.hash, 0);
}

}  // namespace diskferry
