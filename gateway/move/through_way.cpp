// The steps, and the memory: libvirt migrates it and leaves the guest paused on the other host.
#include "gateway/move/through_way.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/move_failure.hpp"

#include <algorithm>

#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
TimePoint time_of(const LibvirtEvent& event) {
  return TimePoint(std::chrono::nanoseconds(event.at_ns));
}
}  // namespace

Task<Result<void>> ThroughWay::prepare() {
  DISKFERRY_CO_CHECK(co_await ends_.prepare(move_));
  // Nothing is mirrored: the supervisor has disks to look at, and there are none.
  co_return co_await move_.open_sources({});
}

Task<Result<void>> ThroughWay::migrate() {
  DISKFERRY_CO_CHECK(co_await move_.enter(Phase::bulk));
  DISKFERRY_CO_CHECK(co_await replace_storage());
  auto moved = co_await prove_storage();
  if (moved) moved = co_await migrate_memory();
  if (moved) co_return co_await hand_over();
  // The guest is here, but not where it was.
  if (may_undo() && !move_.state.replacement.empty())
    co_return unexpected(std::move(moved).error().in("move it, with its disks on the new storage by now"));
  co_return moved;
}

// --- the memory -------------------------------------------------------------------------------------------

void ThroughWay::on_event(bool is_source, const LibvirtEvent& event) {
  if (event.domain != move_.job.subject) return;
  using enum LibvirtEvent::Kind;
  std::lock_guard lock(guard_);
  if (is_source && event.kind == suspended) source_stopped_ = time_of(event);
  if (is_source && event.kind == resumed) source_stopped_.reset();
  if (is_source && event.kind == stopped) source_ended_ = event.detail;
  if (!is_source && event.kind == resumed && !target_resumed_) target_resumed_ = time_of(event);
  if (!is_source && event.kind == stopped) target_ended_ = event.detail;
}

LibvirtMigration ThroughWay::what_to_migrate() const {
  const MoveRequest& request = move_.request;
  LibvirtMigration migration{.domain = request.domain,
                             .destination = request.destination,
                             .destination_xml = move_.state.destination_xml,
                             .persistent_xml = move_.state.persistent_xml,
                             .memory_uri = request.memory_uri,
                             .memory_bytes_per_s = move_.bytes_per_s,
                             .tls = request.memory_tls,
                             .auto_converge = request.auto_converge,
                             .parallel_connections = request.parallel,
                             .compression = request.compression,
                             .arrives_paused = true,
                             .persist_destination = move_.state.is_persistent};
  // Of network storage libvirt thinks the same as we do.
  migration.is_storage_proved = std::ranges::any_of(move_.state.disks, [](const MoveDiskState& disk) {
    return disk.route == DiskRoute::shared && disk.source.starts_with('/');
  });
  return migration;
}

Task<Result<void>> ThroughWay::migrate_memory() {
  DISKFERRY_CO_CHECK(
      co_await ends_.source->watch([this](const LibvirtEvent& event) { on_event(true, event); }));
  DISKFERRY_CO_CHECK(
      co_await ends_.target->watch([this](const LibvirtEvent& event) { on_event(false, event); }));
  // From here on only both hosts can tell who has the machine: nothing may fail between this and the
  // question.
  DISKFERRY_CO_CHECK(co_await move_.enter(Phase::delta));
  co_await supervisor_.begin();
  auto moved = co_await ends_.source->migrate(what_to_migrate());
  co_await supervisor_.end();
  if (!moved) co_return co_await settle_failure(std::move(moved).error());
  // It is there, and waits: a wish to cancel comes too late.
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  outcome_ = Outcome::committed;
  co_return Result<void>{};
}

/// libvirt says that the migration failed. A success where it has gone over all the same.
Task<Result<void>> ThroughWay::settle_failure(Error said) {
  const bool was_cancelled = co_await is_cancelled();
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  spdlog::info("move {}: the hypervisor says: {}{}", move_.job.id, said.message(),
               was_cancelled ? " (cancelled)" : "");
  DISKFERRY_CO_CHECK(co_await find_out());
  if (outcome_ == Outcome::committed) co_return Result<void>{};
  if (outcome_ == Outcome::split) co_return unexpected(runs_twice());
  if (supervisor_.has_timed_out()) co_return unexpected(took_too_long("allow more time, or --auto-converge"));
  if (was_cancelled && outcome_ != Outcome::ended)
    co_return unexpected(cancelled_error("migrate", move_.job.subject));
  co_return unexpected(first_cause_of(said));
}

Error ThroughWay::first_cause_of(const Error& said) {
  MoveEnding seen{.machine = move_.job.subject,
                  .source_host = move_.environment.here.name,
                  .target_host = host_of(move_.request.destination),
                  .has_ended = outcome_ == Outcome::ended,
                  .has_lost_source = ends_.has_lost_source,
                  .has_lost_target = ends_.has_lost_target};
  {
    std::lock_guard lock(guard_);
    seen.source_ended = source_ended_;
    seen.target_ended = target_ended_;
  }
  auto cause = cause_of_ending(said, seen);
  return cause ? *std::move(cause) : said;
}

Task<Result<void>> ThroughWay::set_memory_rate(std::uint64_t bytes_per_s) {
  return ends_.source->set_memory_bytes_per_s(move_.job.subject, bytes_per_s);
}

Task<Result<void>> ThroughWay::set_memory_pause_ms(std::uint64_t ms) {
  return ends_.source->set_downtime_max_ms(move_.job.subject, ms);
}

Task<Result<void>> ThroughWay::start_post_copy() {
  co_return unexpected(fail(ErrorKind::unsupported, "start post-copy", move_.job.subject)
                           .why("the guest waits on the other host until its disks are closed here"));
}

bool ThroughWay::is_guest_stopped() const {
  std::lock_guard lock(guard_);
  return source_stopped_.has_value();
}

void ThroughWay::measure_pause(TimePoint arrived, TimePoint closed) {
  std::lock_guard lock(guard_);
  if (!source_stopped_ || !target_resumed_) return;
  // Its memory and devices went over, then the storage was closed here, then it was let go on.
  move_.state.pause = PauseParts{.until_flush_us = us_between(*source_stopped_, arrived),
                                 .drain_us = us_between(arrived, closed),
                                 .device_state_us = us_between(closed, *target_resumed_),
                                 .total_us = us_between(*source_stopped_, *target_resumed_)};
}

// --- the ends ---------------------------------------------------------------------------------------------

bool ThroughWay::may_undo() const {
  // The hypervisors are asked for nothing before `delta`; and what is closed here stays closed.
  if (move_.state.phase == Phase::switching) return false;
  const bool was_asked = move_.state.phase >= Phase::delta && move_.state.phase < Phase::switching;
  return !was_asked || outcome_ == Outcome::rolled_back || outcome_ == Outcome::ended;
}

Task<void> ThroughWay::undo() {
  if (supervisor_.has_told_rate() && ends_.source) (void)co_await set_memory_rate(0);
  co_await end_replacement();
  note_places();
}

Task<void> ThroughWay::take_measures() {
  if (!ends_.source) co_return;
  if (auto done = co_await ends_.source->completed_job(move_.job.subject);
      done && done->downtime_ms && move_.state.pause)
    move_.state.pause->hypervisor_ms = *done->downtime_ms;
}

Task<void> ThroughWay::let_source_go() {
  co_await ends_.undefine_source(move_);
  for (const MoveDiskState* disk : rehomed())
    if (disk->source != disk->own_storage)
      move_.state.leftovers.push_back("the old storage of " + printable(disk->own_export) + ": " +
                                      printable(disk->source));
}

}  // namespace diskferry
