// Changing places: guests' writes are held, what is left is copied, everything is made durable, the commit is
// written down, and guests go on. All disks or none.
#include "diskferry/image_uri.hpp"
#include "gateway/move/replacement_disk.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
constexpr Duration ask_again_after = std::chrono::seconds(1);
}  // namespace

Task<Result<void>> Replacement::for_each(Task<Result<void>> (ReplacedDisk::*act)()) {
  TaskGroup all(co_await boost::asio::this_coro::executor);
  for (Disk& each : disks_) all.spawn((each.disk.*act)());
  co_return co_await all.join();
}

Task<Result<void>> Replacement::hold_and_copy(HoldParts& parts, TimePoint since) {
  // With guests waiting nothing is saved by going slowly; steer() sets the bound again.
  for (Disk& each : disks_) each.disk.mirror().set_copy_bytes_per_s(0);
  Clock& clock = environment_.drivers.clock;
  DISKFERRY_CO_CHECK(co_await for_each(&ReplacedDisk::hold));
  DISKFERRY_CO_CHECK(co_await for_each(&ReplacedDisk::copy_rest));
  DISKFERRY_CO_CHECK(co_await note_losses());
  const TimePoint copied = clock.now();
  parts.drain_us = us_between(since, copied);
  DISKFERRY_CO_CHECK(co_await for_each(&ReplacedDisk::make_durable));
  parts.flush_us = us_between(copied, clock.now());
  co_return Result<void>{};
}

/// Where the exports are after this.
std::vector<EndpointRecord> Replacement::records() const {
  std::vector<EndpointRecord> all;
  for (const ReplaceDiskState& disk : state_.disks)
    all.push_back(targets_are_in_charge() ? EndpointRecord{.name = disk.name,
                                                           .uri = disk.uri,
                                                           .format = disk.format,
                                                           .size_bytes = disk.size_bytes,
                                                           .configured = disk.configured}
                                          : EndpointRecord{.name = disk.name,
                                                           .uri = disk.source,
                                                           .format = disk.source_format,
                                                           .size_bytes = disk.size_bytes,
                                                           .configured = disk.configured});
  return all;
}

/// The commit. Whoever comes after a crash goes by what is written then, and that may be a record whose
/// writing failed: guests wait until none can be found.
Task<Result<void>> Replacement::record(Phase next) {
  ++state_.switchovers;
  auto written = co_await enter(next, {.endpoints = records()});
  if (written) co_return written;
  --state_.switchovers;
  is_record_unsure_ = true;
  while (true) {
    const auto settled = co_await environment_.journal.settle(job_.id);
    if (settled) {
      is_record_unsure_ = false;
      if (settled->phase != to_string(next)) co_return written;
      // It is there after all.
      ++state_.switchovers;
      record_.has_entered(next);
      co_return Result<void>{};
    }
    // The next process finds what there is.
    if (is_gateway_stopping_) co_return written;
    spdlog::error("replacement {}: {}; guests' writes wait until it is known that it is not committed",
                  job_.id, settled.error().message());
    (void)co_await environment_.drivers.clock.sleep_for(ask_again_after);
  }
}

void Replacement::let_go() {
  if (is_record_unsure_) return;
  for (Disk& each : disks_) each.disk.let_go();
}

namespace {
Task<Result<void>> then_end(Task<Result<void>> task, TaskGroup& timer) {
  auto ended = co_await std::move(task);
  timer.cancel();
  co_return ended;
}
}  // namespace

/// Guests wait for the longest pause and no longer, whatever cannot be cut short then.
Task<Result<void>> Replacement::hold_within_pause(HoldParts& parts, TimePoint since) {
  const Executor executor = co_await boost::asio::this_coro::executor;
  TaskGroup work(executor);
  TaskGroup timer(executor);
  bool is_over = false;
  work.spawn(then_end(hold_and_copy(parts, since), timer));
  timer.spawn(
      let_go_at(Clock::after(since, std::chrono::milliseconds(limits().max_pause_ms)), work, is_over));
  const auto held = co_await work.join();
  timer.cancel();
  (void)co_await timer.join();
  if (is_over)
    co_return unexpected(fail(ErrorKind::timed_out, "change places", job_.subject).why("the pause was over"));
  if (held && is_end_wanted()) co_return unexpected(cancelled_error("replace", job_.subject));
  co_return held;
}

Task<Result<void>> Replacement::let_go_at(TimePoint end, TaskGroup& work, bool& is_over) {
  DISKFERRY_CO_CHECK(co_await environment_.drivers.clock.sleep_until(end));
  is_over = true;
  let_go();
  work.cancel();
  co_return Result<void>{};
}

/// From the record on. In a task of its own, which nothing cuts short.
Task<Result<void>> Replacement::commit(Phase next, HoldParts& parts) {
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  Clock& clock = environment_.drivers.clock;
  const TimePoint durable = clock.now();
  DISKFERRY_CO_CHECK(co_await record(next));
  const TimePoint recorded = clock.now();
  const bool keep = next == Phase::committed && request_.retain_s != 0;
  for (Disk& each : disks_) co_await each.disk.switch_over(keep);
  let_go();
  parts.record_us = us_between(durable, recorded);
  parts.switch_us = us_between(recorded, clock.now());
  co_return Result<void>{};
}

/// False: it would take longer than it may, and everything is as it was.
Task<Result<bool>> Replacement::change_places(Phase next) {
  Clock& clock = environment_.drivers.clock;
  // So that little is left to be made durable while guests wait.
  DISKFERRY_CO_CHECK(co_await for_each(&ReplacedDisk::make_durable));
  if (next == Phase::committed) {
    // An attempt before this one, of this process or an earlier one, may have ended right there.
    if (state_.phase == Phase::switching) DISKFERRY_CO_CHECK(co_await enter(Phase::delta));
    DISKFERRY_CO_CHECK(co_await enter(Phase::synchronized));
    DISKFERRY_CO_CHECK(co_await enter(Phase::switching));
  }
  HoldParts parts;
  const TimePoint begin = clock.now();
  auto changed = co_await hold_within_pause(parts, begin);
  if (changed) {
    TaskGroup whole(co_await boost::asio::this_coro::executor);
    whole.spawn(commit(next, parts));
    changed = co_await whole.join();
  }
  if (is_record_unsure_) co_return unexpected(std::move(changed).error());
  let_go();
  if (changed) {
    parts.total_us = us_between(begin, clock.now());
    state_.hold = parts;
    spdlog::info("replacement {} of {}: writes were held for {} us", job_.id, printable(job_.subject),
                 parts.total_us);
    co_return true;
  }
  if (next == Phase::committed) DISKFERRY_CO_CHECK(co_await enter(Phase::delta));
  if (changed.error().kind() != ErrorKind::timed_out) co_return unexpected(std::move(changed).error());
  spdlog::info("replacement {} of {}: not within {} ms", job_.id, printable(job_.subject),
               limits().max_pause_ms);
  co_return false;
}

}  // namespace diskferry
