// The steps, and the memory: libvirt migrates it and leaves the guest paused on the other host.
#include "gateway/move/through_way.hpp"

#include "diskferry/image_uri.hpp"

#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {

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

void ThroughWay::heard(bool is_source, const LibvirtEvent& event) {
  using enum LibvirtEvent::Kind;
  std::lock_guard lock(guard_);
  if (is_source && event.kind == suspended) source_stopped_ = time_of(event);
  if (is_source && event.kind == resumed) source_stopped_.reset();
  if (is_source && event.kind == stopped) source_ended_ = event.detail;
  if (!is_source && event.kind == resumed && !target_resumed_) target_resumed_ = time_of(event);
  if (!is_source && event.kind == stopped) target_ended_ = event.detail;
}

LibvirtMigration ThroughWay::what_to_migrate() const {
  LibvirtMigration migration = memory_migration();
  migration.memory_bytes_per_s = move_.bytes_per_s;
  migration.arrives_paused = true;
  return migration;
}

Task<Result<void>> ThroughWay::migrate_memory() {
  DISKFERRY_CO_CHECK(co_await watch());
  // From here on only both hosts can tell who has the machine: nothing may fail between this and the
  // question.
  DISKFERRY_CO_CHECK(co_await move_.enter(Phase::delta));
  co_await supervisor_.begin();
  auto moved = co_await ends_.source->migrate(what_to_migrate());
  co_await supervisor_.end();
  if (!moved)
    co_return co_await settle_failure(std::move(moved).error(), "allow more time, or --auto-converge");
  // It is there, and waits: a wish to cancel comes too late.
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  outcome_ = Outcome::committed;
  co_return Result<void>{};
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
  co_await take_rate_back();
  co_await end_replacement();
  note_places();
}

Task<void> ThroughWay::let_source_go() {
  co_await ends_.undefine_source(move_);
  for (const MoveDiskState* disk : rehomed())
    if (disk->source != disk->own_storage)
      move_.state.leftovers.push_back("the old storage of " + printable(disk->own_export) + ": " +
                                      printable(disk->source));
}

}  // namespace diskferry
