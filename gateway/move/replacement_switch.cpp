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
  Clock& clock = environment_.drivers.clock;
  DISKFERRY_CO_CHECK(co_await for_each(&ReplacedDisk::hold));
  DISKFERRY_CO_CHECK(co_await for_each(&ReplacedDisk::copy_rest));
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
    all.push_back(targets_are_in_charge()
                      ? EndpointRecord{.name = disk.name, .uri = disk.uri, .format = disk.format}
                      : EndpointRecord{.name = disk.name, .uri = disk.source, .format = disk.source_format});
  return all;
}

/// The commit. Whoever comes after a crash goes by what is written, so that an error alone says nothing:
/// guests wait until it is known.
Task<Result<void>> Replacement::record(Phase next) {
  ++state_.switchovers;
  auto written = co_await enter(next, {.endpoints = records()});
  if (written) co_return written;
  while (true) {
    const auto found = co_await environment_.jobs.load(job_.id);
    if (found && found->phase == to_string(next)) {
      state_.phase = next;
      co_return Result<void>{};
    }
    if (found || found.error().kind() == ErrorKind::not_found) break;
    spdlog::error("replacement {}: {}; guests' writes wait until it is known whether it is committed",
                  job_.id, found.error().message());
    (void)co_await environment_.drivers.clock.sleep_for(ask_again_after);
  }
  --state_.switchovers;
  co_return written;
}

/// False: it would take longer than it may, and everything is as it was.
Task<Result<bool>> Replacement::change_places(Phase next) {
  Clock& clock = environment_.drivers.clock;
  if (next == Phase::committed) {
    DISKFERRY_CO_CHECK(co_await enter(Phase::synchronized));
    DISKFERRY_CO_CHECK(co_await enter(Phase::switching));
  }
  // So that little is left to be made durable while guests wait.
  DISKFERRY_CO_CHECK(co_await for_each(&ReplacedDisk::make_durable));
  HoldParts parts;
  const TimePoint begin = clock.now();
  auto held = co_await with_deadline(clock, std::chrono::milliseconds(max_pause_ms_.load()),
                                     "hold the guests' writes", hold_and_copy(parts, begin));
  // From here to the end nothing is cut short: the record decides.
  const auto cancelled = co_await boost::asio::this_coro::cancellation_state;
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  const TimePoint durable = clock.now();
  if (held && cancelled.cancelled() != boost::asio::cancellation_type::none)
    held = unexpected(cancelled_error("replace", job_.subject));
  if (held) held = co_await record(next);
  const TimePoint recorded = clock.now();
  if (held) {
    const bool keep = next == Phase::committed && request_.retain_s != 0;
    for (Disk& each : disks_) co_await each.disk.switch_over(keep);
  }
  for (Disk& each : disks_) each.disk.let_go();
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::enable_total_cancellation());
  if (held) {
    parts.record_us = us_between(durable, recorded);
    parts.switch_us = us_between(recorded, clock.now());
    parts.total_us = us_between(begin, clock.now());
    state_.hold = parts;
    spdlog::info("replacement {} of {}: writes were held for {} us", job_.id, printable(job_.subject),
                 parts.total_us);
    co_return true;
  }
  if (next == Phase::committed) DISKFERRY_CO_CHECK(co_await enter(Phase::delta));
  if (held.error().kind() != ErrorKind::timed_out) co_return unexpected(std::move(held).error());
  spdlog::info("replacement {} of {}: not within {} ms, once more", job_.id, printable(job_.subject),
               max_pause_ms_.load());
  co_return false;
}

}  // namespace diskferry
