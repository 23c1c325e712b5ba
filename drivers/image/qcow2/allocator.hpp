// Host clusters: finding free ones and counting references. All of it happens in memory, in the slices of
// refcount blocks that DirtyTables writes later; so a batch of allocations costs one write of a block.
//
// Two rules make refcount blocks safe to write at any moment: a reference is counted before anything can
// point there, and it is taken back only after what pointed there is durably gone (free_later() until the
// next commit).
#pragma once

#include "drivers/image/qcow2/dirty_tables.hpp"
#include "drivers/image/qcow2/metadata_map.hpp"
#include "drivers/image/qcow2/recount.hpp"

#include <atomic>
#include <optional>
#include <vector>

namespace diskferry::qcow2 {

/// Host clusters in a row, each with one reference.
struct HostRun {
  std::uint64_t offset = 0;
  std::uint64_t clusters = 0;
  bool is_fresh = false;  ///< beyond everything that was ever written: reads as zeros
};

/// Thread: every call under the writer's metadata lock, but for end_bytes(). Lifetime: less than the image's.
class Allocator {
 public:
  Allocator(ImageState& image, DirtyTables& dirty, MetadataMap& metadata)
      : image_(image), dirty_(dirty), metadata_(metadata) {}

  /// Reads the refcount table. Errors: corrupt; as BlockDevice::read.
  Task<Result<void>> load();
  std::span<const std::uint64_t> table() const noexcept { return table_; }
  /// Where everything that was ever written or allocated ends.
  std::uint64_t end_bytes() const noexcept { return end_bytes_.load(std::memory_order_relaxed); }

  /// Takes up to `clusters_max` clusters in a row, as many as there are at the first free place; with `exact`
  /// all of them. nullopt: the refcount table must grow first (grow_table()). Precondition for exact: at most
  /// half of what a refcount block counts. Errors: no_space (storage of a fixed size is full); corrupt; as
  /// BlockDevice::read.
  Task<Result<std::optional<HostRun>>> allocate(std::uint64_t clusters_max, bool exact);
  /// Takes exactly these, if they are free.
  Task<Result<bool>> allocate_at(std::uint64_t offset, std::uint64_t clusters);
  /// Undoes an allocation that nothing has pointed to.
  Task<Result<void>> give_back(HostRun run);
  /// Adds references to a cluster. Precondition: the sum is at most refcount_max.
  Task<Result<void>> add_references(std::uint64_t offset, std::uint64_t count);
  Task<Result<std::uint64_t>> references(std::uint64_t offset);

  /// One reference less to the cluster at `offset`, once the next commit is durable.
  void free_later(std::uint64_t offset) { freed_.push_back(image_.geometry.cluster_start(offset)); }
  std::size_t freed_count() const noexcept { return freed_.size(); }
  /// What was freed before now; give it back with put_back_freed() when the commit fails.
  std::vector<std::uint64_t> take_freed() { return std::exchange(freed_, {}); }
  void put_back_freed(const std::vector<std::uint64_t>& freed) {
    freed_.insert(freed_.end(), freed.begin(), freed.end());
  }
  /// After the commit: takes references back, and returns the clusters that have none left but still count as
  /// taken, until forget_cluster(). `freed`: sorted. Errors: corrupt (fewer references than we had).
  Task<Result<std::vector<std::uint64_t>>> drop_references(const std::vector<std::uint64_t>& freed);
  /// The cluster may be allocated again.
  Task<Result<void>> forget_clusters(const std::vector<std::uint64_t>& clusters);

  /// Gives the refcount table the blocks it lacks for what was counted. Errors: corrupt (something lies
  /// beyond what the table reaches).
  Result<void> add_missing_blocks(Recount& recount);
  /// Makes one block's refcounts those that were counted. Precondition: add_missing_blocks() was called.
  /// Errors: as BlockDevice::read.
  Task<Result<void>> correct_block(const Recount& recount, std::uint64_t block);

  /// Moves the refcount table to a larger place. Precondition: no commit runs and no table is dirty.
  /// Errors: too_large (the format's limit is reached); no_space; as BlockDevice::write. When it is the write
  /// of the header that fails, the new table is in use and settle_header() has to succeed before any other
  /// table is written.
  Task<Result<void>> grow_table();
  /// Brings the header up to the refcount table in use. A failed write of it may have happened or not; both
  /// tables say the same as long as nothing else is written. Errors: as BlockDevice::write.
  Task<Result<void>> settle_header();

 private:
  struct Place {
    MetadataCache::Pointer slice;  // null: no refcount block, all its refcounts are zero
    std::uint64_t index = 0;       // in the slice
    std::uint64_t left = 0;        // refcounts from index to the end of the slice
  };
  Task<Result<Place>> place_of(std::uint64_t cluster);
  Task<Result<void>> set_references(std::uint64_t first, std::uint64_t clusters, std::uint64_t value);
  Result<void> add_block(std::uint64_t block);
  void put_block_in_cache(std::uint64_t offset, std::uint64_t references_from_start);
  Task<Result<void>> take(HostRun& run);
  std::uint64_t room_for(std::uint64_t first, std::uint64_t clusters) const;
  Error full() const;
  Error overlap(std::uint64_t cluster) const;

  ImageState& image_;
  DirtyTables& dirty_;
  MetadataMap& metadata_;
  std::vector<std::uint64_t> table_;  // host order
  std::uint64_t search_from_ = 1;     // no free cluster lies before
  std::atomic<std::uint64_t> end_bytes_ = 0;
  std::vector<std::uint64_t> freed_;
  bool is_header_behind_ = false;  // under the writer's commit lock
};

}  // namespace diskferry::qcow2
