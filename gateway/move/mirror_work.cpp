#include "gateway/move/mirror_work.hpp"

namespace diskferry {

/// A planned unit in pieces: where a guest has written since, it is read, whatever the plan says.
std::optional<Work> MirrorWork::next_planned() {
  std::lock_guard lock(guard_);
  while (!planned_.empty()) {
    Work& unit = planned_.front();
    const auto found = mirror_.begin_planned_copy(unit.range, options_.request_bytes);
    if (!found) {
      planned_.pop_front();
      continue;
    }
    // What the target held when that was planned is no matter: guests have written to it since. The window
    // knows what need not be sent.
    const Work piece{.kind = found->is_planned ? unit.kind : WorkKind::copy, .range = found->range};
    // What lies between was copied, or is being copied, by others.
    const std::uint64_t next = found->range.end();
    unit.range = {next, unit.range.end() > next ? unit.range.end() - next : 0};
    if (unit.range.empty()) planned_.pop_front();
    return piece;
  }
  return std::nullopt;
}

std::optional<Work> MirrorWork::next_dirty() {
  std::lock_guard lock(guard_);
  const auto found = mirror_.begin_next_copy(offset_, options_.request_bytes, options_.skip_recent);
  if (!found) return std::nullopt;
  offset_ = found->end();
  return Work{.kind = WorkKind::copy, .range = *found};
}

/// Before a unit is taken, for what is in a copy cannot be mirrored.
Task<Result<std::optional<Work>>> MirrorWork::next() {
  if (options_.paced_by == nullptr || !mirror_.makes_room()) co_return co_await next_now();
  Clock& clock = *options_.paced_by;
  CopyPace& pace = mirror_.copy_pace();
  const auto begin = pace.book(options_.request_bytes, clock.now());
  if (begin) {
    DISKFERRY_CO_CHECK(co_await clock.sleep_until(*begin));
    pace.woke(*begin, clock.now());
  }
  auto unit = co_await next_now();
  // Zeros cost next to nothing.
  if (begin && !(unit && *unit && (*unit)->kind == WorkKind::copy)) pace.give_back(options_.request_bytes);
  co_return unit;
}

Task<Result<std::optional<Work>>> MirrorWork::next_now() {
  if (plan_ == nullptr) co_return next_dirty();
  while (true) {
    if (auto piece = next_planned()) co_return piece;
    DISKFERRY_CO_TRY(const auto unit, co_await plan_->next());
    if (!unit) co_return std::nullopt;
    std::lock_guard lock(guard_);
    planned_.push_back(*unit);
  }
}

}  // namespace diskferry
