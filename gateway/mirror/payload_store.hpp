// Memory for blocks that wait to be sent. Its own and not the process's buffer pool: what is acknowledged
// must never keep the memory that reads and other jobs work with, the pool's smallest piece and its two locks
// a lease are dear for 4 KiB, and the bound is the move's to change. Blocks taken one after the other tend to
// lie side by side, so that they can be sent from where they are.
#pragma once

#include "gateway/mirror/block_hash.hpp"

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

namespace diskferry {

/// Not thread-safe. What memory() returned stays where it is, and is the holder's alone, until given back.
class PayloadStore {
 public:
  using Slot = std::uint32_t;
  static constexpr unsigned slots_per_slab = 64;
  /// Slabs that are kept for reuse when nothing is in them.
  static constexpr std::size_t idle_slabs_max = 32;

  /// What is in a slot: content of [from, to) of the block, and its hash where that is all of it.
  struct Content {
    BlockHash hash = BlockHash::unknown();
    std::uint32_t from = 0;
    std::uint32_t to = 0;
  };

  explicit PayloadStore(std::uint32_t slot_bytes) : slot_bytes_(slot_bytes) {}
  PayloadStore(const PayloadStore&) = delete;
  PayloadStore& operator=(const PayloadStore&) = delete;

  /// Throws std::bad_alloc, and has then changed nothing.
  Slot take();
  void give_back(Slot slot) noexcept;
  /// The next 64 slots should lie side by side, if that does not waste memory.
  void prefer_whole_slab();
  std::byte* memory(Slot slot) const noexcept {
    return slabs_[slot / slots_per_slab].memory.get() + std::size_t{slot % slots_per_slab} * slot_bytes_;
  }
  Content& content(Slot slot) noexcept {
    return slabs_[slot / slots_per_slab].contents[slot % slots_per_slab];
  }
  std::uint64_t used() const noexcept { return used_; }
  std::uint64_t used_bytes() const noexcept { return used_ * slot_bytes_; }
  std::uint64_t held_bytes() const noexcept { return held_slabs_ * slots_per_slab * slot_bytes_; }

 private:
  struct FreeMemory {
    void operator()(std::byte* memory) const noexcept;
  };
  using Slabs = std::list<std::uint32_t>;
  struct Slab {
    std::unique_ptr<std::byte[], FreeMemory> memory;
    std::unique_ptr<Content[]> contents;
    std::uint64_t free = 0;  // a bit a slot
    Slabs::iterator place;   // in one of the lists below
  };
  std::uint32_t slab_with_room(bool whole);

  const std::uint32_t slot_bytes_;
  std::vector<Slab> slabs_;
  // Every slab is in one of these lists; moving it there allocates nothing.
  Slabs full_;
  Slabs partial_;  // some slots are free
  Slabs idle_;     // all are
  Slabs bare_;     // without memory
  std::uint32_t current_ = UINT32_MAX;
  std::uint64_t used_ = 0;
  std::uint64_t held_slabs_ = 0;
};

}  // namespace diskferry
