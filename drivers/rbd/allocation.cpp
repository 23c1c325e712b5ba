#include "drivers/rbd/allocation.hpp"

#include "diskferry/units.hpp"
#include "drivers/rbd/status.hpp"

#include <algorithm>

#include <rbd/librbd.h>

namespace diskferry::rbd {
namespace {

/// With an object map the answer is in memory; without one each object is asked, ten at once.
constexpr std::uint64_t objects_mapped_max = 1u << 20;
constexpr std::uint64_t objects_asked_max = 256;
/// The library takes about 0.7 us for an object that its map says is not there.
constexpr std::uint64_t objects_empty_max = 16u << 20;
/// A parent's objects may be larger than those of its clone, and the library, asked about a part of an
/// object, has been wrong about where the answer begins (Ceph issue 53784). No object is larger than this.
constexpr std::uint64_t align_bytes = object_bytes_max;

int note_data(std::uint64_t offset, std::size_t length, int exists, void* into) {
  if (exists != 0) static_cast<Allocation*>(into)->add({offset, length});
  return 0;
}
int stop_at_data(std::uint64_t, std::size_t, int exists, void*) {
  return exists != 0 ? stop_here : 0;
}

std::uint64_t window_bytes(const ImageFacts& facts) {
  const std::uint64_t objects =
      facts.has_fast_diff && !facts.is_clone ? objects_mapped_max : objects_asked_max;
  return std::max(objects * facts.object_bytes, align_bytes);
}

}  // namespace

void Allocation::add(Range data) {
  if (!data_.empty() && data_.back().end() == data.offset) {
    data_.back().length += data.length;
  } else if (!data.empty()) {
    data_.push_back(data);
  }
}

std::vector<Extent> Allocation::extents(Range range, std::size_t extents_max) && {
  std::ranges::sort(data_, {}, &Range::offset);
  std::vector<Extent> found;
  const auto hole_until = [&](std::uint64_t from, std::uint64_t to) {
    append_merged(found, {.offset = from, .length = to - from, .reads_zero = true, .is_hole = true});
  };
  std::uint64_t at = range.offset;
  for (const Range& data : data_) {
    const std::uint64_t from = std::clamp(data.offset, at, range.end());
    const std::uint64_t to = std::clamp(data.end(), at, range.end());
    if (from == to) continue;
    hole_until(at, from);
    append_merged(found, {.offset = from, .length = to - from});
    at = to;
    if (found.size() > extents_max) break;
  }
  if (found.size() <= extents_max) hole_until(at, range.end());
  if (found.size() > extents_max) found.resize(extents_max);
  return found;
}

Result<std::vector<Extent>> ask_extents(const Image& image, Range range, std::size_t extents_max) {
  const ImageFacts& facts = image.facts();
  const std::uint64_t begin = align_down(range.offset, align_bytes);
  const std::uint64_t end = std::min(range.end(), begin + window_bytes(facts));
  Allocation allocation;
  // Whole objects only where the map is asked: the objects themselves know how far they go.
  const int failed = rbd_diff_iterate2(image.handle(), nullptr, begin, end - begin, 1,
                                       facts.has_fast_diff ? 1 : 0, note_data, &allocation);
  if (failed < 0) return unexpected(status_error(failed, "ask what is allocated", image.name()));
  return std::move(allocation).extents({range.offset, end - range.offset}, extents_max);
}

Result<bool> ask_whether_empty(const Image& image) {
  const ImageFacts& facts = image.facts();
  if (facts.is_clone || facts.is_striped) return false;
  if (facts.size_bytes == 0) return true;  // the library, asked about nothing, ends the process
  const std::uint64_t objects_max = facts.has_fast_diff ? objects_empty_max : objects_asked_max;
  if (divide_up(facts.size_bytes, facts.object_bytes) > objects_max) return false;
  const int failed = rbd_diff_iterate2(image.handle(), nullptr, 0, facts.size_bytes, 1,
                                       facts.has_fast_diff ? 1 : 0, stop_at_data, nullptr);
  if (failed == stop_here) return false;
  if (failed < 0) return unexpected(status_error(failed, "ask what is allocated", image.name()));
  return true;
}

}  // namespace diskferry::rbd
