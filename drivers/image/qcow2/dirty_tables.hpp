// Which tables of an image differ from what the storage has, and the order in which they go there. All
// changes are made in memory first; take() copies what has changed and write() brings the copies to the
// storage such that a crash between any two writes, or the loss of any that no flush covers, leaks space at
// worst:
//
//   1  refcount blocks (which only ever count up before a commit, see Allocator), and L2 tables nobody points
//   to yet 2  flush, refcount table entries for new blocks                       (only when there are any) 3
//   flush: guest data, refcounts and new tables are durable before anything points to them 4  L2 tables, L1
//   entries 5  flush: only now is what was pointed to before free
//
// Nothing else may write a table of an open image.
#pragma once

#include "drivers/image/qcow2/image_state.hpp"

#include <map>
#include <set>
#include <vector>

namespace diskferry::qcow2 {

enum class TableKind : std::uint8_t {
  refcount_block,
  new_table,  ///< nothing in the storage points to it yet
  l2_table,
};

/// Part of a table as it shall be in the storage.
struct TablePiece {
  std::uint64_t offset = 0;
  std::vector<std::byte> bytes;
};

/// A consistent copy of all changes.
struct TableChanges {
  struct SliceChange {
    MetadataCache::Pointer slice;
    std::size_t first = 0;
    std::size_t end = 0;
    TableKind kind = TableKind::l2_table;
    TablePiece piece;
  };
  std::vector<SliceChange> slices;
  std::vector<TablePiece> refcount_table;
  std::vector<TablePiece> l1;
  std::set<std::uint64_t> l1_blocks;
  std::set<std::uint64_t> refcount_table_blocks;
  /// An earlier attempt failed, so that a "new" table may be pointed to already.
  bool is_retry = false;
  bool is_empty() const noexcept { return slices.empty() && refcount_table.empty() && l1.empty(); }
};

/// Thread: every call but write() under the writer's metadata lock.
class DirtyTables {
 public:
  /// Writes are of this size at least, so that a slice is not written whole for one entry.
  static constexpr std::size_t piece_bytes = 4096;

  explicit DirtyTables(ImageState& image) : image_(image) {}

  /// Bytes [first, end) of the slice have changed.
  void mark(const MetadataCache::Pointer& slice, std::size_t first, std::size_t end, TableKind kind);
  void mark_l1(std::size_t index) { l1_blocks_.insert(index * 8 / piece_bytes); }
  void mark_refcount_table(std::size_t index) { refcount_table_blocks_.insert(index * 8 / piece_bytes); }
  /// The refcount table was written whole, elsewhere.
  void forget_refcount_table() { refcount_table_blocks_.clear(); }
  bool empty() const noexcept {
    return slices_.empty() && l1_blocks_.empty() && refcount_table_blocks_.empty();
  }
  /// Memory that dirty slices keep from being evicted.
  std::uint64_t held_bytes() const noexcept { return slices_.size() * image_.tables.slice_bytes(); }

  /// Copies the changes and counts the tables as clean. `refcount_table`: in host order.
  TableChanges take(std::span<const std::uint64_t> refcount_table);
  /// After a failed write(): they are dirty still.
  void put_back(const TableChanges& changes);

 private:
  struct Dirty {
    MetadataCache::Pointer slice;
    std::size_t first = 0;
    std::size_t end = 0;
    TableKind kind = TableKind::l2_table;
  };
  ImageState& image_;
  std::map<std::uint64_t, Dirty> slices_;  // by host offset, so that they are written in order
  std::set<std::uint64_t> l1_blocks_;
  std::set<std::uint64_t> refcount_table_blocks_;
  bool is_retry_ = false;
};

/// Steps 1 to 5. One call at a time. Errors: no_space; as BlockDevice::write and flush. After an error any
/// part may have been written, which is safe, and the changes have to be written again.
Task<Result<void>> write_tables(ImageState& image, const TableChanges& changes);

/// Writes any bytes of the storage, also where it takes whole blocks only. Nobody else may write the same
/// blocks meanwhile. Lifetime: `from` until the task ends. Errors: as BlockDevice::write.
Task<Result<void>> write_storage(BlockDevice& storage, std::uint64_t offset, std::span<const std::byte> from);

/// Makes everything acknowledged so far durable, in the storage and the data file.
Task<Result<void>> flush_below(ImageState& image);

}  // namespace diskferry::qcow2
