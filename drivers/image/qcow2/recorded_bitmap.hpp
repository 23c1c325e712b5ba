// A persistent bitmap in memory while its image is written: the writer sets bits, exports and tests look at
// them. Loading and storing are the tracker's (bitmap_tracker.hpp); it never touches the storage itself.
#pragma once

#include "drivers/image/qcow2/bitmaps.hpp"

#include <atomic>

namespace diskferry::qcow2 {

/// Lifetime: shared by the tracker and those who look; it stays readable after its image is closed.
class RecordedBitmap {
 public:
  /// All bits are clear. `size_bytes`: of the disk.
  RecordedBitmap(BitmapEntry entry, std::uint64_t size_bytes);

  const BitmapEntry& entry() const noexcept { return entry_; }
  std::size_t bytes() const noexcept { return bits_.size(); }
  std::uint8_t byte(std::size_t index) const noexcept { return bits_[index].load(std::memory_order_relaxed); }
  /// While loading.
  void set_byte(std::size_t index, std::uint8_t bits) noexcept { bits_[index] = bits; }
  bool is_changed() const noexcept { return is_changed_.load(); }

  /// Something in `range` (inside the disk) changes. Called before the change reaches the storage: no answer
  /// after a write shows less than that write did. Thread: any.
  void note(Range range) noexcept;
  /// What is recorded now: a contiguous prefix of `range` (inside the disk), merged, at most `ranges_max`.
  /// Thread: any.
  std::vector<DirtyRange> ranges(Range range, std::size_t ranges_max) const;

 private:
  const BitmapEntry entry_;
  std::vector<std::atomic<std::uint8_t>> bits_;
  std::atomic<bool> is_changed_ = false;
};

}  // namespace diskferry::qcow2
