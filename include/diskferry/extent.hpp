// Ranges of a device and what is known about them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace diskferry {

/// Bytes [offset, offset + length).
struct Range {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  constexpr std::uint64_t end() const noexcept { return offset + length; }
  constexpr bool empty() const noexcept { return length == 0; }
  constexpr bool overlaps(Range other) const noexcept { return offset < other.end() && other.offset < end(); }
  constexpr bool contains(Range other) const noexcept {
    return offset <= other.offset && other.end() <= end();
  }
  constexpr bool operator==(const Range&) const noexcept = default;
};
constexpr Range intersect(Range a, Range b) noexcept {
  const std::uint64_t from = std::max(a.offset, b.offset);
  const std::uint64_t to = std::min(a.end(), b.end());
  return to > from ? Range{from, to - from} : Range{from, 0};
}
/// True when the range lies inside a device of `size_bytes`, without overflow.
constexpr bool is_inside(Range range, std::uint64_t size_bytes) noexcept {
  return range.offset <= size_bytes && range.length <= size_bytes - range.offset;
}

/// What a device says of a range. `reads_zero` is a promise; a hole alone is not ("undefined content" in
/// NBD), so only `reads_zero` lets a copy skip the range.
struct Extent {
  static constexpr std::uint32_t depth_none = UINT32_MAX;
  static constexpr std::uint64_t no_host_offset = UINT64_MAX;

  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool reads_zero = false;  ///< reading gives zeros
  bool is_hole = false;     ///< no storage is allocated for it
  bool is_compressed = false;
  std::uint32_t depth = 0;  ///< layer of the chain that decides: 0 is the top; depth_none: no layer has it
  std::uint64_t host_offset =
      no_host_offset;  ///< where in the storage of that layer, if it is there verbatim

  constexpr std::uint64_t end() const noexcept { return offset + length; }
  constexpr Range range() const noexcept { return {offset, length}; }
  constexpr bool operator==(const Extent&) const noexcept = default;
};

/// True when `next` goes on where `first` ends and says the same.
bool continues(const Extent& first, const Extent& next) noexcept;
/// Appends, merging with the last extent where it goes on. Empty extents are dropped.
void append_merged(std::vector<Extent>& extents, const Extent& next);
/// Cuts the list to what lies inside `range`.
std::vector<Extent> clip(std::vector<Extent> extents, Range range);

}  // namespace diskferry
