// See recorded_bitmap.hpp.
#include "drivers/image/qcow2/recorded_bitmap.hpp"

#include "diskferry/units.hpp"

#include <algorithm>

namespace diskferry::qcow2 {
namespace {
constexpr std::size_t bytes_per_call_max = 4 * mib;  // a call does not hold its thread for long
}  // namespace

RecordedBitmap::RecordedBitmap(BitmapEntry entry, std::uint64_t size_bytes)
    : entry_(std::move(entry)), bits_(divide_up(divide_up(size_bytes, entry_.granularity_bytes()), 8)) {}

void RecordedBitmap::note(Range range) noexcept {
  if (range.empty()) return;
  const std::uint64_t last = (range.end() - 1) >> entry_.granularity_bits;
  for (std::uint64_t bit = range.offset >> entry_.granularity_bits; bit <= last; ++bit) {
    auto& byte = bits_[bit / 8];
    const auto mask = static_cast<std::uint8_t>(1u << bit % 8);
    // Most writes find their bit set; looking is cheaper than setting.
    if ((byte.load(std::memory_order_relaxed) & mask) != 0) continue;
    byte.fetch_or(mask, std::memory_order_relaxed);
    is_changed_.store(true, std::memory_order_relaxed);
  }
}

std::vector<DirtyRange> RecordedBitmap::ranges(Range range, std::size_t ranges_max) const {
  std::vector<DirtyRange> found;
  const std::uint64_t granularity = entry_.granularity_bytes();
  std::size_t bytes_left = bytes_per_call_max;
  for (std::uint64_t at = range.offset; at < range.end() && bytes_left != 0; --bytes_left) {
    // One look at each byte: what is set meanwhile shows in the next answer.
    const std::uint64_t first = at / granularity;
    const unsigned bits = byte(first / 8);
    const bool is_uniform = first % 8 == 0 && (bits == 0 || bits == 0xff);
    for (std::uint64_t bit = first; bit / 8 == first / 8 && at < range.end(); bit += is_uniform ? 8 : 1) {
      const std::uint64_t end = std::min(range.end(), (bit + (is_uniform ? 8 : 1)) * granularity);
      const bool is_dirty = (bits >> bit % 8 & 1) != 0;
      if (found.empty() || found.back().is_dirty != is_dirty) {
        if (found.size() == ranges_max) return found;
        found.push_back({at, 0, is_dirty});
      }
      found.back().length += end - at;
      at = end;
    }
  }
  return found;
}

}  // namespace diskferry::qcow2
