// Writing to an open image: one Writer per image, shared by every connection, so that a flush on one covers
// the acknowledged writes of all. docs/qcow2.md tells the whole story; in short:
//
//   in place     The cluster is ours alone: the data are written there, without any lock. The writer counts
//   as a
//                reader (readers.hpp) meanwhile, so that the cluster is not reused under it.
//   else         Lock the clusters (ClusterLocks), allocate under the metadata lock, write the data without
//   it, then
//                enter the new place into the L2 table, in memory.
//   raw data     A raw data file must read right without the tables, so zeros go into both. Writes hold their
//   file         range shared and zeroing exclusively, or what is written in place meanwhile would be left
//                where the tables say zero.
//   commit       A flush, or too much dirty memory, brings the tables to the storage in a safe order
//   (DirtyTables);
//                then what is free now is given up (readers first, then the storage's holes) and may be
//                reused.
//
// Lock order: range of a raw data file, cluster lock, commit_, metadata_, header_, then the mutexes of slices
// and maps, which are never held while waiting.
#pragma once

#include "drivers/image/qcow2/allocator.hpp"
#include "drivers/image/qcow2/bitmap_tracker.hpp"
#include "drivers/image/qcow2/cluster_locks.hpp"
#include "drivers/image/qcow2/device.hpp"
#include "drivers/support/range_lock.hpp"

namespace diskferry::qcow2 {

class Writer {
 public:
  /// Makes the image writable: checks that it may be written, loads the refcount table, finds where its
  /// metadata lie, counts anew what a dirty image did not, clears autoclear bits nobody here knows. Errors:
  /// read_only (corrupt image), corrupt, too_large.
  static Task<Result<std::shared_ptr<Writer>>> open(ImageState& image, bool compress_writes);
  Writer(ImageState& image, bool compress_writes);
  ~Writer();

  std::vector<std::shared_ptr<const RecordedBitmap>> recorded_bitmaps() const { return bitmaps_.recorded(); }
  Task<Result<void>> write(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags);
  std::optional<Result<void>> try_write(std::uint64_t offset, std::span<const std::byte> from);
  Task<Result<void>> write_zeroes(Range range, ZeroFlags flags);
  Task<Result<void>> discard(Range range);
  Task<Result<void>> flush();
  /// The last commit: also what is freed by it is written. Nothing is called afterwards.
  Task<Result<void>> finish();
  /// Allocates the whole disk, its clusters in a row; all of it reads as zeros before and after.
  /// `reserve`: the storage reserves the space, too.
  Task<Result<void>> preallocate(bool reserve);

 private:
  /// What dirty tables may hold in memory before they are written without a flush being asked for.
  static constexpr std::uint64_t dirty_bytes_max = 8 * mib;
  /// A stretch of guest clusters inside one slice of an L2 table, held for changing.
  struct Entries {
    MetadataCache::Pointer slice{};
    std::uint64_t first_cluster = 0;  ///< guest address of the first entry
    std::size_t first_index = 0;      ///< entry number in the slice
    std::size_t count = 0;
  };
  /// Where a stretch of data goes and what has to be done around it.
  struct Target {
    Entries entries{};
    std::uint64_t host_offset = 0;  ///< of entries.first_cluster
    HostRun allocated{};            ///< clusters == 0: nothing was
    Range guest{};  ///< what is valid after the write: the payload and what is copied around it
    Range payload{};
    bool fill_is_zero = false;   ///< guest less payload reads as zeros in the new place already
    bool needs_entries = false;  ///< the table does not say so yet
    bool is_whole_copy = false;  ///< extended L2: all subclusters become data
  };
  /// What a commit gives up, once it is durable.
  struct Freed {
    std::vector<std::uint64_t> clusters;    ///< one reference each
    std::vector<std::uint64_t> compressed;  ///< host offsets, as the cache of inflated clusters knows them
  };
  using Lock = AsyncMutex::Lock;

  // writer_open.cpp
  Task<Result<void>> check_and_load();
  Task<Result<void>> find_metadata();
  Task<Result<void>> add_metadata(Range host, std::string_view what);
  Task<Result<void>> count_anew();
  Task<Result<void>> correct_copied_flags(const Recount& recount);
  Task<Result<void>> patch_header(std::uint64_t offset, std::uint64_t value);

  // writer.cpp: locks, tables and commit
  Task<Lock> lock_metadata() { return lock_always(metadata_lock_); }
  static Task<Lock> lock_always(AsyncMutex& mutex);
  Result<void> check_usable() const;
  /// Remembers that the image is damaged: in the header too, so that nobody writes it before a repair.
  Task<void> condemn(const Error& error);
  /// The entries of `range` in one slice; the L2 table is made, or copied when it is shared. metadata lock
  /// held. nullopt: the refcount table must grow first.
  Task<Result<std::optional<Entries>>> entries_for_writing(Range range);
  Task<Result<std::optional<std::uint64_t>>> own_l2_table(std::uint64_t l1_index);
  L2Entry entry(const Entries& entries, std::size_t i) const;
  void set_entry(const Entries& entries, std::size_t i, const L2Entry& value);
  void free_entry(const L2Entry& old);
  /// Makes the refcount table larger than `entries_seen`, unless somebody else has done so meanwhile. Takes
  /// the commit and metadata locks. `entries_seen`: its size when an allocation found it too small.
  Task<Result<void>> make_room(std::size_t entries_seen);
  /// After a failed allocation: true when trying again may help.
  Task<Result<void>> after_full(const Error& error, bool& tried);
  Task<Result<void>> commit();
  Task<Result<void>> commit_locked();
  Task<Result<void>> release(Freed freed);
  Task<Result<void>> commit_if_full();
  bool is_zero_below(Range guest) const;

  // writer_data.cpp
  struct InPlace {
    std::uint64_t host_offset = 0;
    std::uint64_t length = 0;
  };
  InPlace find_in_place(std::uint64_t offset, std::uint64_t length);
  Task<Result<std::size_t>> write_in_place(std::uint64_t offset, std::span<const std::byte> from,
                                           WriteFlags flags);
  Task<Result<std::size_t>> write_allocating(std::uint64_t offset, std::span<const std::byte> from,
                                             WriteFlags flags);
  Task<Result<std::optional<Target>>> choose_target(Range payload);
  Result<void> check_host(Range host, std::uint64_t guest) const;
  void plan_edges(Target& target) const;
  Task<Result<void>> write_target(const Target& target, std::span<const std::byte> from, WriteFlags flags);
  Task<Result<void>> read_old(std::uint64_t offset, std::span<std::byte> into);
  void enter_target(const Target& target);
  Task<Result<void>> write_data(std::uint64_t offset, std::span<const std::byte> from, WriteFlags flags);

  // writer_zero.cpp
  enum class Zeroing : std::uint8_t { keep_space, give_space_back, forget };
  Task<Result<void>> zero_units(Range units, Zeroing how);
  Task<Result<std::uint64_t>> zero_some(Range units, Zeroing how);
  Task<Result<void>> zero_as_data(Range range);
  bool reads_zero(const L2Entry& entry, std::uint64_t guest) const;
  std::optional<L2Entry> zeroed(const L2Entry& old, Range guest, Zeroing how) const;

  // writer_compress.cpp
  Task<Result<std::size_t>> write_compressed(std::uint64_t offset, std::span<const std::byte> from);
  struct Packed;
  Task<Result<bool>> store_packed(Packed& packed);
  Task<Result<std::optional<bool>>> place_packed(Packed& packed);
  Task<Result<void>> write_packed(const Packed& packed, std::span<const std::byte> bytes);

  ImageState& image_;
  const Geometry& geometry_;
  const bool compress_;
  const bool has_raw_data_file_;
  MetadataMap metadata_;
  DirtyTables dirty_;
  Allocator allocator_;
  RangeLock raw_data_;  // guest ranges; only where there is a raw data file
  ClusterLocks clusters_;
  BitmapTracker bitmaps_;
  AsyncMutex metadata_lock_;
  AsyncMutex commit_lock_;
  AsyncMutex header_lock_;
  BufferPool edges_;  // for copying around a write; separate from what reading uses, so that neither waits
                      // for the other
  BufferPool
      deflated_;  // of batches that wait for their clusters, which a write that waits for edges_ may hold
  std::atomic<bool> is_condemned_ = false;
  std::atomic<bool> is_full_of_dirt_ = false;
  std::atomic<std::uint64_t> commits_started_ = 0;
  std::atomic<std::uint64_t> commits_done_ = 0;  // the number of the last that succeeded
  std::vector<std::uint64_t> freed_compressed_;  // metadata lock
  std::uint64_t packed_at_ = 0;  // where the next compressed cluster may go; 0: nowhere yet. Metadata lock.
};

}  // namespace diskferry::qcow2
