// The plan: pure decisions first, the walk over both devices below.
#include "gateway/copy/plan.hpp"

#include "diskferry/units.hpp"

#include <algorithm>

namespace diskferry {

void RunBuilder::feed(const Extent& extent, std::vector<Run>& runs) {
  if (rules_.top_only && extent.depth != 0) {
    feed_rest(WorkKind::leave, extent.offset, extent.end(), runs);
  } else if (extent.reads_zero) {
    feed_rest(WorkKind::zero, extent.offset, extent.end(), runs);
  } else if (rules_.top_only) {
    feed_data(extent.offset, extent.end(), runs);
  } else {
    // A hole alone may read as anything: it is data. Only the promise of zeros lets us not read it.
    feed_data(align_down(extent.offset, rules_.align_bytes),
              std::min(align_up(extent.end(), rules_.align_bytes), rules_.target_bytes), runs);
  }
}

void RunBuilder::feed_data(std::uint64_t begin, std::uint64_t end, std::vector<Run>& runs) {
  begin = std::max(begin, data_.end());
  if (end <= begin) return;
  // Widened data takes the end of the zeros before it; zeros too short for a request of their own go with it.
  rest_.range.length = begin > rest_.range.offset ? begin - rest_.range.offset : 0;
  const bool is_short = !rules_.top_only && rest_.range.length <= rules_.gap_bytes_max;
  if (rest_.range.empty() || (is_short && !data_.empty())) {
    if (data_.empty()) data_.offset = begin;
  } else {
    close(runs);
    data_.offset = begin;
  }
  data_.length = end - data_.offset;
  rest_ = {WorkKind::zero, {end, 0}};
}

void RunBuilder::feed_rest(WorkKind kind, std::uint64_t begin, std::uint64_t end, std::vector<Run>& runs) {
  begin = std::max(begin, rest_.range.end());
  if (end <= begin) return;
  if (rest_.kind != kind && !rest_.range.empty()) close(runs);
  if (rest_.range.empty()) rest_ = {kind, {begin, 0}};
  rest_.range.length = end - rest_.range.offset;
}

void RunBuilder::close(std::vector<Run>& runs) {
  if (!data_.empty()) runs.push_back({WorkKind::copy, data_});
  if (!rest_.range.empty()) runs.push_back(rest_);
  data_ = {rest_.range.end(), 0};
  rest_ = {WorkKind::zero, {rest_.range.end(), 0}};
}

void RunBuilder::drain(std::vector<Run>& runs) {
  const std::uint64_t until = align_down(data_.end(), rules_.request_bytes);
  if (until <= data_.offset) return;
  runs.push_back({WorkKind::copy, {data_.offset, until - data_.offset}});
  data_ = {until, data_.end() - until};
}

void RunBuilder::finish(std::vector<Run>& runs) {
  feed_rest(WorkKind::zero, rules_.source_bytes, rules_.target_bytes, runs);
  close(runs);
}

Range first_request(Range run, std::uint64_t request_bytes) noexcept {
  const std::uint64_t boundary = align_down(run.offset, request_bytes) + request_bytes;
  return {run.offset, std::min(run.length, boundary - run.offset)};
}

CopyPlan::CopyPlan(Devices devices, PlanRules rules, RangeSet done)
    : devices_(devices),
      rules_(rules),
      done_(std::move(done)),
      zero_bytes_max_(devices.target == nullptr || devices.target->info().zero >= ZeroSupport::fast
                          ? fast_zero_bytes_max
                          : slow_zero_bytes_max),
      builder_(rules) {}

std::optional<Work> CopyPlan::try_next() {
  std::lock_guard lock(guard_);
  if (ready_.empty()) return std::nullopt;
  Work& first = ready_.front();
  Work unit = first;
  if (first.kind == WorkKind::copy) {
    unit.range = first_request(first.range, rules_.request_bytes);
  } else if (first.kind == WorkKind::zero) {
    unit.range.length = std::min(first.range.length, zero_bytes_max_);
  }
  first.range.offset += unit.range.length;
  first.range.length -= unit.range.length;
  if (first.range.empty()) ready_.pop_front();
  return unit;
}

Task<Result<std::optional<Work>>> CopyPlan::next() {
  // Most calls end here, under a mutex that is held for a moment; only a refill waits.
  if (auto unit = try_next()) co_return unit;
  DISKFERRY_CO_TRY(const auto lock, co_await refilling_.lock());
  while (true) {
    if (auto unit = try_next()) co_return unit;
    if (is_finished_) co_return std::nullopt;
    if (co_await is_cancelled()) co_return unexpected(cancelled_error("plan"));
    DISKFERRY_CO_CHECK(co_await refill());
  }
}

Task<Result<void>> CopyPlan::refill() {
  std::vector<RunBuilder::Run> runs;
  if (source_offset_ < rules_.source_bytes) {
    const Range rest{source_offset_, rules_.source_bytes - source_offset_};
    auto found = co_await devices_.source.extents(rest, extents_per_call);
    if (!found) co_return unexpected(std::move(found).error().in("map the source"));
    for (const Extent& extent : *found) builder_.feed(extent, runs);
    source_offset_ = found->back().end();
  }
  builder_.drain(runs);
  if (source_offset_ >= rules_.source_bytes) {
    builder_.finish(runs);
    is_finished_ = true;
  }
  const bool target_reads_zero = devices_.target == nullptr || devices_.target->info().starts_zeroed;
  for (const auto& run : runs) {
    for (const Range& part : done_.outside(run.range)) {
      if (run.kind == WorkKind::zero) {
        DISKFERRY_CO_CHECK(co_await add_zeros(part));
      } else {
        push({run.kind, part, target_reads_zero});
      }
    }
  }
  co_return Result<void>{};
}

/// Afterwards target_ begins where `range` does, and has at least one extent. Runs come in order: what lies
/// before is dropped.
Task<Result<void>> CopyPlan::look_at_target(Range range) {
  while (!target_.empty() && target_.front().end() <= range.offset) target_.pop_front();
  if (!target_.empty()) co_return Result<void>{};
  range.length = std::max(range.length, std::min(target_bytes_per_call, rules_.target_bytes - range.offset));
  auto found = co_await devices_.target->extents(range, extents_per_call);
  if (!found) co_return unexpected(std::move(found).error().in("map the target"));
  target_.assign(found->begin(), found->end());
  co_return Result<void>{};
}

/// Zeros at the source: skipped where the target has promised zeros, written elsewhere.
Task<Result<void>> CopyPlan::add_zeros(Range range) {
  BlockDevice* const target = devices_.target;
  if (target == nullptr || target->info().starts_zeroed) {
    push({WorkKind::skip, range, true});
    co_return Result<void>{};
  }
  if (!target->info().can_report_extents) {
    push({WorkKind::zero, range, false});
    co_return Result<void>{};
  }
  // Units begin and end where those of data do, who works them off may know nothing finer.
  const std::uint64_t block_bytes = std::max<std::uint64_t>(target->info().block_bytes, rules_.align_bytes);
  while (!range.empty()) {
    DISKFERRY_CO_CHECK(co_await look_at_target(range));
    const std::uint64_t first = range.offset;
    for (const Extent& extent : target_) {
      if (range.empty()) break;
      // Extents may be finer than that: a block that is zero in part is zeroed as a whole.
      std::uint64_t end =
          extent.reads_zero ? align_down(extent.end(), block_bytes) : align_up(extent.end(), block_bytes);
      if (extent.end() >= range.end()) end = range.end();
      end = std::min(end, range.end());
      if (end <= range.offset) continue;
      push({extent.reads_zero ? WorkKind::skip : WorkKind::zero,
            {range.offset, end - range.offset},
            extent.reads_zero});
      range = {end, range.end() - end};
    }
    if (range.offset == first) {  // less than a block was reported: it is not worth a second question
      const std::uint64_t now = std::min(block_bytes, range.length);
      push({WorkKind::zero, {range.offset, now}, false});
      range = {range.offset + now, range.length - now};
    }
  }
  co_return Result<void>{};
}

void CopyPlan::push(const Work& work) {
  std::lock_guard lock(guard_);
  if (!ready_.empty()) {
    Work& last = ready_.back();
    if (last.kind == work.kind && last.target_reads_zero == work.target_reads_zero &&
        last.range.end() == work.range.offset) {
      last.range.length += work.range.length;
      return;
    }
  }
  ready_.push_back(work);
}

Task<Result<PlanTotals>> total(WorkSource& plan) {
  PlanTotals totals;
  while (true) {
    DISKFERRY_CO_TRY(const auto unit, co_await plan.next());
    if (!unit) co_return totals;
    switch (unit->kind) {
      case WorkKind::copy:
        totals.copy_bytes += unit->range.length;
        break;
      case WorkKind::zero:
        totals.zero_bytes += unit->range.length;
        break;
      case WorkKind::skip:
        totals.skip_bytes += unit->range.length;
        break;
      case WorkKind::leave:
        totals.leave_bytes += unit->range.length;
        break;
    }
  }
}

}  // namespace diskferry
