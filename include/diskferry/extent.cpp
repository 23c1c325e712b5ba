// Merging and clipping of extent lists.
#include "diskferry/extent.hpp"

namespace diskferry {

bool continues(const Extent& first, const Extent& next) noexcept {
  if (first.end() != next.offset || first.reads_zero != next.reads_zero || first.is_hole != next.is_hole ||
      first.is_compressed != next.is_compressed || first.depth != next.depth)
    return false;
  if (first.host_offset == Extent::no_host_offset) return next.host_offset == Extent::no_host_offset;
  return next.host_offset == first.host_offset + first.length;
}

void append_merged(std::vector<Extent>& extents, const Extent& next) {
  if (next.length == 0) return;
  if (!extents.empty() && continues(extents.back(), next)) {
    extents.back().length += next.length;
  } else {
    extents.push_back(next);
  }
}

std::vector<Extent> clip(std::vector<Extent> extents, Range range) {
  std::vector<Extent> clipped;
  clipped.reserve(extents.size());
  for (Extent extent : extents) {
    const Range inside = intersect(extent.range(), range);
    if (inside.empty()) continue;
    if (extent.host_offset != Extent::no_host_offset) extent.host_offset += inside.offset - extent.offset;
    extent.offset = inside.offset;
    extent.length = inside.length;
    append_merged(clipped, extent);
  }
  return clipped;
}

}  // namespace diskferry
