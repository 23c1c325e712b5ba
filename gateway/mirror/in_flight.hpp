// What is on its way: the writes of guests, which must not overlap each other, since two storages would see
// them in different orders; and copies, which nobody waits for. A write that was under way at any time
// together with a copy of the same bytes is *overtaken*: what the target has of them is either's. Pure.
#pragma once

#include "diskferry/extent.hpp"

#include <algorithm>
#include <vector>

namespace diskferry {

/// Lies in the frame of who writes.
struct GuestWrite {
  Range range{};
  bool is_overtaken = false;
};

/// Not thread-safe. There are as many as requests are in flight, so that lists are searched.
class InFlight {
 public:
  /// A write of the same bytes is under way: this one has to wait for its end.
  bool has_write(Range range) const noexcept {
    return std::ranges::any_of(writes_, [&](const GuestWrite* one) { return one->range.overlaps(range); });
  }
  bool has_copy(Range range) const noexcept {
    return std::ranges::any_of(copies_, [&](Range one) { return one.overlaps(range); });
  }
  /// Precondition: no write of the same bytes. Lifetime: until end_write().
  void begin_write(GuestWrite& write) {
    write.is_overtaken = has_copy(write.range);
    writes_.push_back(&write);
  }
  void end_write(GuestWrite& write) noexcept { std::erase(writes_, &write); }
  void begin_copy(Range range) {
    for (GuestWrite* one : writes_) one->is_overtaken = one->is_overtaken || one->range.overlaps(range);
    copies_.push_back(range);
  }
  /// Precondition: begin_copy() with this range, once for each end.
  void end_copy(Range range) noexcept {
    const auto found = std::ranges::find(copies_, range);
    if (found != copies_.end()) copies_.erase(found);
  }
  const std::vector<GuestWrite*>& writes() const noexcept { return writes_; }
  const std::vector<Range>& copies() const noexcept { return copies_; }

 private:
  std::vector<GuestWrite*> writes_;
  std::vector<Range> copies_;
};

}  // namespace diskferry
