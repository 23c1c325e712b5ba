// The tables of one open image in memory: L2 tables (and, for the writer, refcount blocks) by slices of at
// most 64 KiB in one bounded cache, and the L1 table whole. There is exactly one of each per image, shared by
// every request of every connection on every reactor, so that a flush on one connection covers all.
//
// How the writer changes a table: load() the slice (or insert() a new one), lock `guard`, store the words,
// unlock, and keep the pointer in its list of dirty slices: what is pointed to is never evicted. Its ordering
// code then writes the slices and drops the pointers. Readers see a changed word at once.
#pragma once

#include "diskferry/block_device.hpp"
#include "diskferry/units.hpp"
#include "drivers/image/qcow2/loading_cache.hpp"

#include <atomic>
#include <bit>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace diskferry::qcow2 {

/// Part of a table, as it lies in the storage: big-endian words.
struct TableSlice {
  explicit TableSlice(std::uint64_t offset, std::size_t bytes) : host_offset(offset), words(bytes / 8) {}

  const std::uint64_t host_offset;
  /// Held for the time of looking at or changing words; never across co_await, never two at once.
  std::mutex guard;
  std::vector<std::uint64_t> words;  ///< big-endian; use word() and set_word()
  bool is_dirty = false;  ///< the writer's: guarded by `guard`; in the writer's list of dirty slices

  /// In host order. `guard` is held.
  std::uint64_t word(std::size_t index) const noexcept {
    return std::endian::native == std::endian::little ? std::byteswap(words[index]) : words[index];
  }
  void set_word(std::size_t index, std::uint64_t value) noexcept {
    words[index] = std::endian::native == std::endian::little ? std::byteswap(value) : value;
  }
  std::span<std::byte> bytes() noexcept { return std::as_writable_bytes(std::span(words)); }
  std::span<const std::byte> bytes() const noexcept { return std::as_bytes(std::span(words)); }
};

/// The slices of an image's tables. Thread: any.
class MetadataCache {
 public:
  using Pointer = std::shared_ptr<TableSlice>;
  /// Entries of 8 bytes: 24 MiB hold the L2 tables of 192 GiB of disk at clusters of 64 KiB.
  static constexpr std::uint64_t default_limit_bytes = 24 * mib;
  static constexpr std::uint64_t slice_bytes_max = 64 * kib;

  /// `storage`: where the tables lie; outlives the cache.
  MetadataCache(BlockDevice& storage, std::uint64_t cluster_bytes,
                std::uint64_t limit_bytes = default_limit_bytes)
      : storage_(storage), slice_bytes_(std::min(cluster_bytes, slice_bytes_max)), slices_(limit_bytes) {}

  std::uint64_t slice_bytes() const noexcept { return slice_bytes_; }
  /// The slice that holds host address `offset`.
  std::uint64_t slice_start(std::uint64_t offset) const noexcept { return align_down(offset, slice_bytes_); }

  /// The slice at `host_offset` (a multiple of slice_bytes()) if it is in memory.
  Pointer find(std::uint64_t host_offset) { return slices_.find(host_offset); }
  /// The same, read from the storage when needed; the storage is read once, however many ask.
  /// Errors: corrupt when it lies beyond the end of the storage; as BlockDevice::read.
  Task<Result<Pointer>> load(std::uint64_t host_offset);
  /// Puts a new slice there (of a table just allocated), replacing what was there.
  void insert(Pointer slice) {
    const auto offset = slice->host_offset;
    slices_.insert(offset, std::move(slice), slice_bytes_);
  }
  /// Drops the slice, when its cluster has been given up.
  void forget(std::uint64_t host_offset) { slices_.forget(host_offset); }
  std::uint64_t held_bytes() const { return slices_.held_bytes(); }

 private:
  BlockDevice& storage_;
  const std::uint64_t slice_bytes_;
  LoadingCache<TableSlice> slices_;
};

/// An L1 table in memory: raw entries in host order, readable while the writer changes one. Loaded in pieces
/// when first wanted, so that describing an image, or reading a little of it, does not read a table of 32
/// MiB. Thread: any.
class L1Table {
 public:
  static constexpr std::size_t piece_entries = 8192;  // 64 KiB

  /// `storage` outlives the table.
  L1Table(BlockDevice& storage, std::uint64_t host_offset, std::size_t entries);
  ~L1Table();
  L1Table(const L1Table&) = delete;
  L1Table& operator=(const L1Table&) = delete;

  std::size_t size() const noexcept { return size_; }
  std::uint64_t host_offset() const noexcept { return host_offset_; }
  bool is_loaded(std::size_t index) const noexcept { return piece(index) != nullptr; }
  /// Precondition: is_loaded(index).
  std::uint64_t get(std::size_t index) const noexcept {
    return piece(index)[index % piece_entries].load(std::memory_order_acquire);
  }
  /// Precondition: is_loaded(index). The writer stores the entry in the file itself.
  void set(std::size_t index, std::uint64_t raw) noexcept {
    piece(index)[index % piece_entries].store(raw, std::memory_order_release);
  }

  /// Loads the piece with `index`. Errors: corrupt when it does not lie inside the storage; as
  /// BlockDevice::read.
  Task<Result<void>> load(std::size_t index);
  /// Loads everything: the writer's start.
  Task<Result<void>> load_all();

 private:
  using Entry = std::atomic<std::uint64_t>;
  Entry* piece(std::size_t index) const noexcept {
    return pieces_[index / piece_entries].load(std::memory_order_acquire);
  }
  BlockDevice& storage_;
  const std::uint64_t host_offset_;
  const std::size_t size_;
  std::vector<std::atomic<Entry*>> pieces_;  // each owned, null until loaded
};

}  // namespace diskferry::qcow2
