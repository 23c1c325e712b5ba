// The mirror towards who copies: dirty granules out, and what became of them back. See mirror_device.hpp.
#include "diskferry/assert.hpp"
#include "gateway/mirror/mirror_device.hpp"

#include <algorithm>

namespace diskferry {

/// guard_ is held.
void MirrorDevice::begin_copy_of(Range range) {
  differences_.begin_copy(range);
  in_flight_.begin_copy(range);
  counters_.copied_bytes += range.length;
}

/// What of `range`, from its beginning on, no copy has in flight: a second one could come to the target
/// before the first, which has read older bytes. guard_ is held.
Range MirrorDevice::free_part(Range range) const noexcept {
  for (const Range copy : in_flight_.copies()) {
    if (!copy.overlaps(range)) continue;
    if (copy.offset > range.offset) {
      range.length = copy.offset - range.offset;
    } else {
      range = {copy.end(), range.end() > copy.end() ? range.end() - copy.end() : 0};
    }
    if (range.empty()) return range;
  }
  return range;
}

std::optional<Range> MirrorDevice::begin_next_copy(std::uint64_t from, std::uint64_t bytes_max,
                                                   bool skip_recent) {
  std::lock_guard lock(guard_);
  while (const auto found = differences_.first_dirty(from, bytes_max, skip_recent)) {
    const Range range = free_part(*found);
    if (!range.empty() && !(skip_recent && in_flight_.has_write(range))) {
      begin_copy_of(range);
      return range;
    }
    from = found->end();
  }
  return std::nullopt;
}

std::optional<MirrorDevice::PlannedCopy> MirrorDevice::begin_planned_copy(Range bytes,
                                                                          std::uint64_t bytes_max) {
  std::lock_guard lock(guard_);
  DISKFERRY_ASSERT(differences_.is_whole(bytes), "a plan for granules is one of whole granules");
  while (!bytes.empty()) {
    const auto planned = differences_.first_part(bytes, false);
    const auto written = differences_.first_part(bytes, true);
    if (!planned && !written) return std::nullopt;
    const bool is_planned = planned && (!written || planned->offset < written->offset);
    const Range found = is_planned ? *planned : *written;
    Range range = free_part(found);
    if (range.empty()) {
      bytes = {found.end(), bytes.end() > found.end() ? bytes.end() - found.end() : 0};
      continue;
    }
    const std::uint64_t granule = differences_.shape().granule_bytes;
    if (!is_planned) range.length = std::min(range.length, std::max(granule, bytes_max / granule * granule));
    begin_copy_of(range);
    return PlannedCopy{range, is_planned};
  }
  return std::nullopt;
}

void MirrorDevice::end_copy(Range range, bool is_copied) {
  std::lock_guard lock(guard_);
  in_flight_.end_copy(range);
  if (!is_copied) differences_.mark_dirty(range);
  if (in_flight_.copies().empty()) exits_.wake_all();
}

void MirrorDevice::mark_dirty(Range range) {
  std::lock_guard lock(guard_);
  differences_.mark_dirty(range);
}

void MirrorDevice::next_age() {
  std::lock_guard lock(guard_);
  differences_.next_age();
}

/// Keeps take_target() waiting.
class MirrorDevice::TargetUse {
 public:
  /// guard_ is held.
  explicit TargetUse(MirrorDevice& mirror) : mirror_(mirror) { ++mirror_.target_users_; }
  ~TargetUse() {
    std::lock_guard lock(mirror_.guard_);
    if (--mirror_.target_users_ == 0) mirror_.exits_.wake_all();
  }
  TargetUse(const TargetUse&) = delete;
  TargetUse& operator=(const TargetUse&) = delete;

 private:
  MirrorDevice& mirror_;
};

Task<Result<void>> MirrorDevice::checkpoint() {
  DISKFERRY_CO_TRY(const AsyncMutex::Lock turn, co_await checkpointing_.lock());
  Target followed;
  std::optional<TargetUse> use;
  {
    std::lock_guard lock(guard_);
    if (target_failure_) co_return unexpected(*target_failure_);
    if (!target_.device)
      co_return unexpected(fail(ErrorKind::gone, "flush the target", info_.name).why("there is no target"));
    followed = target_;
    use.emplace(*this);
    differences_.flush_begins();
    // What is under way may be told after the flush has begun.
    for (const GuestWrite* one : in_flight_.writes()) differences_.mark_unsettled(one->range);
    for (const Range one : in_flight_.copies()) differences_.mark_unsettled(one);
  }
  const auto flushed = co_await followed.window->make_durable();
  std::lock_guard lock(guard_);
  // Of a target that was taken away meanwhile nothing is left to settle.
  if (target_.device != followed.device) co_return flushed;
  if (flushed) {
    differences_.flush_succeeded();
  } else if (flushed.error().kind() != ErrorKind::cancelled) {
    fail_target(flushed.error());
  }
  co_return flushed;
}

}  // namespace diskferry
