// The persistent dirty bitmaps of an image: the directory, and reading one. Keeping them true on write is the
// writer's. A bitmap that cannot be trusted is listed with the reason and never read.
// Source: the qcow2 specification, "Bitmaps".
#pragma once

#include "diskferry/block_device.hpp"
#include "drivers/image/qcow2/header.hpp"
#include "drivers/image/qcow2/metadata_cache.hpp"

#include <memory>
#include <string>
#include <vector>

namespace diskferry::qcow2 {

namespace bitmap_flag {
inline constexpr std::uint32_t in_use = 1;
inline constexpr std::uint32_t is_auto = 2;
inline constexpr std::uint32_t extra_data_compatible = 4;
inline constexpr std::uint32_t known = 7;
}  // namespace bitmap_flag

/// One entry of the bitmap directory.
struct BitmapEntry {
  std::string name;
  std::uint64_t table_offset = 0;
  std::uint32_t table_entries = 0;
  std::uint32_t flags = 0;
  std::uint8_t type = 1;
  unsigned granularity_bits = 16;
  std::vector<std::byte> extra_data;
  std::string problem;  ///< why it cannot be read; empty when it can

  std::uint64_t granularity_bytes() const noexcept { return std::uint64_t{1} << granularity_bits; }
  bool is_in_use() const noexcept { return (flags & bitmap_flag::in_use) != 0; }
  bool is_auto() const noexcept { return (flags & bitmap_flag::is_auto) != 0; }
};

/// All bitmaps of an image. Never fails for what the directory says: an entry that cannot be believed carries
/// a problem, and where the directory ends early the last one says so. Errors: as BlockDevice::read.
Task<Result<std::vector<BitmapEntry>>> load_bitmap_directory(BlockDevice& storage, const Header& header);

/// Guest bytes with the same answer.
struct DirtyRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool is_dirty = false;
};

/// Reads one bitmap without problems. Thread: any. Lifetime: shares the storage, which its image closes: no
/// calls after that.
class BitmapReader {
 public:
  BitmapReader(std::shared_ptr<BlockDevice> storage, const Header& header, BitmapEntry entry);
  const BitmapEntry& entry() const noexcept { return entry_; }
  /// A contiguous prefix of `range` (inside the disk), merged, at most `ranges_max`.
  /// Errors: corrupt; as BlockDevice::read.
  Task<Result<std::vector<DirtyRange>>> ranges(Range range, std::size_t ranges_max);

 private:
  /// The host offset of the cluster with table entry `index`, or all zeros (0) or all ones (1).
  Task<Result<std::uint64_t>> table_entry(std::uint64_t index);

  const std::shared_ptr<BlockDevice> storage_;
  const BitmapEntry entry_;
  const std::uint64_t cluster_bytes_;
  MetadataCache slices_;  // of the bitmap's table and data
};

}  // namespace diskferry::qcow2
