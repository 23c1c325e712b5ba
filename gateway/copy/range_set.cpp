// See range_set.hpp.
#include "gateway/copy/range_set.hpp"

namespace diskferry {

void RangeSet::add(Range range) {
  if (range.empty()) return;
  std::uint64_t begin = range.offset;
  std::uint64_t end = range.end();
  auto at = ends_.upper_bound(begin);
  if (at != ends_.begin() && std::prev(at)->second >= begin) --at;
  while (at != ends_.end() && at->first <= end) {
    begin = std::min(begin, at->first);
    end = std::max(end, at->second);
    bytes_ -= at->second - at->first;
    at = ends_.erase(at);
  }
  ends_.emplace_hint(at, begin, end);
  bytes_ += end - begin;
}

void RangeSet::remove(Range range) {
  if (range.empty()) return;
  auto at = ends_.upper_bound(range.offset);
  if (at != ends_.begin()) --at;
  while (at != ends_.end() && at->first < range.end()) {
    const Range piece{at->first, at->second - at->first};
    const Range part = intersect(piece, range);
    if (part.empty()) {
      ++at;
      continue;
    }
    at = ends_.erase(at);
    bytes_ -= part.length;
    if (piece.offset < part.offset) ends_.emplace(piece.offset, part.offset);
    if (part.end() < piece.end()) at = ends_.emplace(part.end(), piece.end()).first;
  }
}

std::vector<Range> RangeSet::inside(Range range) const {
  std::vector<Range> found;
  auto at = ends_.upper_bound(range.offset);
  if (at != ends_.begin()) --at;
  for (; at != ends_.end() && at->first < range.end(); ++at) {
    const Range part = intersect({at->first, at->second - at->first}, range);
    if (!part.empty()) found.push_back(part);
  }
  return found;
}

std::vector<Range> RangeSet::outside(Range range) const {
  std::vector<Range> found;
  std::uint64_t at = range.offset;
  for (const Range& part : inside(range)) {
    if (part.offset > at) found.push_back({at, part.offset - at});
    at = part.end();
  }
  if (at < range.end()) found.push_back({at, range.end() - at});
  return found;
}

}  // namespace diskferry
