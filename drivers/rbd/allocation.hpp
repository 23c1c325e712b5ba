// Which parts of an image have storage, as extents. An object that was never written reads as zeros, which is
// all that a cluster knows: zeros inside objects are data here.
#pragma once

#include "drivers/rbd/image.hpp"

namespace diskferry::rbd {

/// Makes extents of the pieces with data that the library tells, in any order. Pure.
class Allocation {
 public:
  void add(Range data);
  bool has_data() const noexcept { return !data_.empty(); }
  /// What lies inside `range`, at most `extents_max` of them.
  std::vector<Extent> extents(Range range, std::size_t extents_max) &&;

 private:
  std::vector<Range> data_;
};

/// Begins where `range` begins, and ends with it or after as much as is asked at once. Blocks.
Result<std::vector<Extent>> ask_extents(const Image& image, Range range, std::size_t extents_max);
/// True where the cluster says that nothing was ever written, and says it at once. Blocks.
Result<bool> ask_whether_empty(const Image& image);

}  // namespace diskferry::rbd
