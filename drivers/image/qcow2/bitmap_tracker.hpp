// Keeps the persistent bitmaps of an image true while it is written: those marked "auto" get a bit for
// whatever changes. In the storage they count as in use meanwhile, so that a crash makes them invalid rather
// than wrong; they are stored when the image is closed. Source: the qcow2 specification, "Bitmaps", flags
// in_use and auto.
#pragma once

#include "drivers/image/qcow2/allocator.hpp"
#include "drivers/image/qcow2/recorded_bitmap.hpp"

#include <memory>
#include <vector>

namespace diskferry::qcow2 {

/// Thread: note() from any; the rest at open and close of the image.
class BitmapTracker {
 public:
  /// Bits held in memory for one image; bitmaps beyond are left marked as in use.
  static constexpr std::uint64_t bits_bytes_max = 16 * mib;
  static constexpr std::uint64_t directory_bytes_max = 1 * mib;

  /// Loads the bitmaps that record writes and marks them as in use. False: the directory cannot be followed,
  /// and the bitmaps are to be given up (the autoclear bit). Errors: as BlockDevice::read and write.
  Task<Result<bool>> open(ImageState& image, MetadataMap& metadata);
  /// Something in `range` has changed.
  void note(Range range) noexcept {
    for (const auto& one : tracked_) one->bitmap->note(range);
  }
  /// Those that are kept true. What records writes and is not among them stays marked as in use.
  std::vector<std::shared_ptr<const RecordedBitmap>> recorded() const;
  /// First half of storing: places for the data, and the data. The allocator's changes must be durable before
  /// finish().
  Task<Result<void>> store_data(ImageState& image, Allocator& allocator);
  /// Second half: tables, then the flags. Errors: as BlockDevice::write.
  Task<Result<void>> finish(ImageState& image);

 private:
  struct Tracked {
    std::shared_ptr<RecordedBitmap> bitmap;
    std::uint64_t flags_offset = 0;  ///< in the storage
    std::vector<std::uint64_t> table{};
  };
  /// False: what the bitmap's table names cannot be its data, and must not be written as such.
  Task<Result<bool>> load(ImageState& image, MetadataMap& metadata, Tracked& one);
  static Task<Result<void>> write_flags(ImageState& image, std::uint64_t offset, std::uint32_t flags);

  std::vector<std::unique_ptr<Tracked>> tracked_;
};

}  // namespace diskferry::qcow2
