// What the target is known to hold: a hash for each block, in bounded memory. The window asks it before it
// sends a block and tells it after the target has answered. It may forget and must never be wrong.
//
// Blocks that are listed have a slot in a set-associative cache; a disk that fits has a slot for every block.
// Of all others a coarse map of regions says either "zero" or nothing: a target that starts zeroed costs no
// memory that grows with what it will hold.
#pragma once

#include "diskferry/extent.hpp"
#include "gateway/mirror/block_hash.hpp"

#include <cstdint>
#include <memory>
#include <vector>

namespace diskferry {

struct TableShape {
  std::uint64_t size_bytes = 0;
  std::uint32_t block_bytes = 4096;       ///< a power of two
  std::uint64_t bytes_max = 64ull << 20;  ///< memory of the table; at least bytes_min
  bool operator==(const TableShape&) const noexcept = default;
};

/// Not thread-safe: the window's mutex guards it. Every call is a few memory accesses, but where said.
class BlockTable {
 public:
  static constexpr std::uint64_t bytes_min = 4096;

  /// `starts_zeroed`: every block of the target is known to be zero, durably; else nothing is known.
  BlockTable(TableShape shape, std::uint64_t seed, bool starts_zeroed);
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;
  ~BlockTable();

  const TableShape& shape() const noexcept { return shape_; }
  std::uint64_t seed() const noexcept { return seed_; }
  std::uint64_t blocks() const noexcept { return blocks_; }
  std::uint64_t region_blocks() const noexcept { return region_blocks_; }
  BlockHash hash(std::span<const std::byte> block) const noexcept { return hash_block(block, seed_); }

  /// What the target holds there; unknown() when the table cannot tell.
  BlockHash known(std::uint64_t block) noexcept;
  /// Bit i is set when block first + i is known to be zero. Precondition: count <= 64.
  std::uint64_t known_zero(std::uint64_t first, unsigned count) noexcept;
  /// True when all of these blocks are zero by what regions say and none is listed: looks at regions only.
  bool is_plain_zero(std::uint64_t first, std::uint64_t count) const noexcept;
  /// True when the block was told of by set(), as far as that is remembered.
  bool is_listed(std::uint64_t block) noexcept;

  /// The target has written this block. Precondition: hash.is_known().
  void set(std::uint64_t block, BlockHash hash) noexcept;
  /// The target has zeroed these blocks. Whole regions cost little where nothing is listed in them.
  void set_zero(std::uint64_t first, std::uint64_t count) noexcept;
  /// Nobody knows what the target holds there now.
  void forget(std::uint64_t first, std::uint64_t count) noexcept;

  /// A flush of the target begins; what was told before is covered by it. The ticket goes to flush_done().
  std::uint32_t flush_begins() noexcept;
  /// That flush has succeeded.
  void flush_done(std::uint32_t ticket) noexcept;

  /// A block whose content at the target is durable, or durably nothing that is known.
  struct Entry {
    std::uint64_t block = 0;
    BlockHash hash;
  };
  /// For a file: what is durable. Zero ranges first hold for every block that has no entry; an entry may be
  /// unknown(). Slow: walks the whole table.
  std::vector<Range> durable_zero_blocks() const;
  /// Appends the entries of the next slots to `into`, at most `most` of them, from `cursor` on, which moves;
  /// false at the end.
  bool durable_entries(std::uint64_t& cursor, std::size_t most, std::vector<Entry>& into) const;
  /// For a file that is read: as told by durable_zero_blocks() and durable_entries(), in this order.
  void load_zero(Range blocks) noexcept;
  void load_entry(const Entry& entry) noexcept;

 private:
  static constexpr unsigned ways = 8;
  static constexpr std::uint32_t stamp_max = (1u << 31) - 1;
  struct Slot {
    std::uint64_t high;
    std::uint64_t low;
    std::uint32_t tag;         // 0: empty; memory that was never touched is empty slots
    std::uint32_t stamp : 31;  // which flush covers it
    std::uint32_t used : 1;    // since it was last passed over when a slot was needed
    BlockHash hash() const noexcept { return {high, low}; }
  };
  static_assert(sizeof(Slot) == 24);
  struct Region {
    std::uint32_t stamp = 0;
    std::uint32_t listed = 0;       // slots of its blocks
    std::uint32_t zero_listed = 0;  // of those, zeros
    bool is_zero = false;           // whatever is not listed
  };
  struct FreeMemory {
    void operator()(Slot* slots) const noexcept;
  };

  Slot* set_of(std::uint64_t block) const noexcept;
  std::uint64_t tag_of(std::uint64_t block) const noexcept;
  std::uint64_t block_of(std::uint64_t set, std::uint32_t tag) const noexcept;
  Slot* find(std::uint64_t block) const noexcept;
  Region& region_of(std::uint64_t block) noexcept { return regions_[block / region_blocks_]; }
  std::uint64_t blocks_in_region(std::uint64_t region) const noexcept;
  void list(std::uint64_t block, BlockHash hash, std::uint32_t stamp) noexcept;
  Slot* make_room(std::uint64_t block) noexcept;
  void unlist(Slot& slot, Region& region) noexcept;
  void evict(Slot& slot, std::uint64_t block) noexcept;
  void make_zero(std::uint64_t region, std::uint32_t stamp) noexcept;

  const TableShape shape_;
  const std::uint64_t seed_;
  const std::uint64_t blocks_;
  std::uint64_t region_blocks_ = 1;
  std::vector<Region> regions_;
  std::uint64_t sets_ = 1;
  std::unique_ptr<Slot[], FreeMemory> slots_;
  std::uint32_t stamp_ = 1;    // of what is told now
  std::uint32_t durable_ = 0;  // stamps up to this are
  unsigned hand_ = 0;          // where the search for a slot to reuse begins
};

}  // namespace diskferry
