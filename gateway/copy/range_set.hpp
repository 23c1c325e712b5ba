// A set of bytes as merged ranges. Memory grows with the number of gaps, not with bytes.
#pragma once

#include "diskferry/extent.hpp"

#include <cstdint>
#include <map>
#include <vector>

namespace diskferry {

class RangeSet {
 public:
  void add(Range range);
  void remove(Range range);
  std::uint64_t bytes() const noexcept { return bytes_; }
  std::size_t pieces() const noexcept { return ends_.size(); }
  bool empty() const noexcept { return ends_.empty(); }
  /// The parts of `range` that are in the set, in order.
  std::vector<Range> inside(Range range) const;
  /// The parts of `range` that are not.
  std::vector<Range> outside(Range range) const;

 private:
  std::map<std::uint64_t, std::uint64_t> ends_;  // begin -> end; neither overlapping nor touching
  std::uint64_t bytes_ = 0;
};

}  // namespace diskferry
