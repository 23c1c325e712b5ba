// From guest addresses to where their data are: L1 and L2 tables walked into runs. Everything that reads,
// reports extents or copies on write asks here. Nothing in here reads guest data.
#pragma once

#include "drivers/image/qcow2/image_state.hpp"

#include <array>

namespace diskferry::qcow2 {

/// A piece of the disk that is all of one kind and, for data, contiguous in the storage.
struct Run {
  ClusterKind kind = ClusterKind::unallocated;  ///< never `subclusters`
  std::uint64_t offset = 0;                     ///< in the guest's disk
  std::uint64_t length = 0;
  std::uint64_t host_offset = 0;   ///< of `offset`, for data and zero_allocated
  CompressedCluster compressed{};  ///< for compressed, whose runs are (parts of) one cluster each
};

/// The runs from some offset on, without gaps, as many as fit.
struct Runs {
  static constexpr std::size_t max = 24;
  std::array<Run, max> runs;
  std::size_t count = 0;

  /// Appends or merges; false when full.
  bool add(const Run& run) noexcept;
  std::span<const Run> span() const noexcept { return {runs.data(), count}; }
  bool empty() const noexcept { return count == 0; }
  std::uint64_t end() const noexcept { return runs[count - 1].offset + runs[count - 1].length; }
};

/// Why mapping stopped before the end of the range, other than a full list.
struct Stop {
  /// A slice that is not in memory: load it and go on. no_slice: none.
  static constexpr std::uint64_t no_slice = UINT64_MAX;
  std::uint64_t missing_slice = no_slice;
  /// An L1 entry that is not in memory: load it and go on. no_slice: none.
  std::uint64_t missing_l1 = no_slice;
  std::optional<Error> error;  ///< an entry that cannot be believed, at the first address that is not mapped
};

/// How many entries one walk looks at: a request of 32 MiB at clusters of 512 bytes, and less than a
/// millisecond. A hostile image has a table that is all one run, and 4 million references to it.
inline constexpr std::uint64_t walk_entries_max = 65536;

/// Maps `range` (inside the disk, not empty) as far as tables in memory go and 65536 entries reach, appending
/// to `into`. Never waits.
Stop map_cached(ImageState& image, Range range, Runs& into);

/// Maps the start of `range`, loading tables as needed, until the list is full, or `slices_max` slices were
/// read, or an entry is broken: then it returns what lies before, and an error only when that is nothing.
/// Errors: corrupt, with the guest's address; as BlockDevice::read.
/// Lifetime: `image` and `into` until the task ends.
Task<Result<void>> map(ImageState& image, Range range, Runs& into, unsigned slices_max = 1024);

}  // namespace diskferry::qcow2
