// Slabs of 64 slots. Slots are taken from one slab, lowest first, until it is full.
#include "gateway/mirror/payload_store.hpp"

#include "diskferry/assert.hpp"

#include <bit>
#include <new>

namespace diskferry {
namespace {
constexpr std::align_val_t alignment{4096};
}

void PayloadStore::FreeMemory::operator()(std::byte* memory) const noexcept {
  ::operator delete[](memory, alignment);
}

/// A slab with a free slot, in the list `partial_`; with all of them free where `whole`.
std::uint32_t PayloadStore::slab_with_room(bool whole) {
  if (!whole && !partial_.empty()) return partial_.front();
  if (idle_.empty() && bare_.empty()) {
    const auto index = static_cast<std::uint32_t>(slabs_.size());
    slabs_.reserve(slabs_.size() + 1 + slabs_.size() / 2);
    bare_.push_front(index);
    slabs_.emplace_back().place = bare_.begin();
  }
  Slabs& from = idle_.empty() ? bare_ : idle_;
  Slab& slab = slabs_[from.front()];
  if (!slab.memory) {
    slab.contents = std::make_unique<Content[]>(slots_per_slab);
    slab.memory.reset(
        static_cast<std::byte*>(::operator new[](std::size_t{slots_per_slab} * slot_bytes_, alignment)));
    ++held_slabs_;
  }
  slab.free = UINT64_MAX;
  partial_.splice(partial_.begin(), from, slab.place);
  return partial_.front();
}

void PayloadStore::prefer_whole_slab() {
  if (current_ != UINT32_MAX && slabs_[current_].free == UINT64_MAX) return;
  // Memory that is held stays near twice what is used, whatever the order in which slots are given back.
  const bool is_wasteful = held_slabs_ * slots_per_slab > 2 * used_ + std::uint64_t{4} * slots_per_slab;
  if (!is_wasteful || !idle_.empty()) current_ = slab_with_room(true);
}

PayloadStore::Slot PayloadStore::take() {
  if (current_ == UINT32_MAX || slabs_[current_].free == 0) current_ = slab_with_room(false);
  Slab& slab = slabs_[current_];
  const auto index = static_cast<unsigned>(std::countr_zero(slab.free));
  slab.free &= slab.free - 1;
  if (slab.free == 0) full_.splice(full_.begin(), partial_, slab.place);
  ++used_;
  return current_ * slots_per_slab + index;
}

void PayloadStore::give_back(Slot slot) noexcept {
  const std::uint32_t index = slot / slots_per_slab;
  Slab& slab = slabs_[index];
  const std::uint64_t bit = std::uint64_t{1} << (slot % slots_per_slab);
  DISKFERRY_ASSERT((slab.free & bit) == 0, "a slot is given back once");
  if (slab.free == 0) partial_.splice(partial_.begin(), full_, slab.place);
  slab.free |= bit;
  --used_;
  if (slab.free != UINT64_MAX || index == current_) return;
  if (idle_.size() < idle_slabs_max) {
    idle_.splice(idle_.begin(), partial_, slab.place);
    return;
  }
  slab.memory.reset();
  slab.contents.reset();
  --held_slabs_;
  bare_.splice(bare_.begin(), partial_, slab.place);
}

}  // namespace diskferry
