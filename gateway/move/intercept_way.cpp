// The migration itself: libvirt works, and at the end it is found out which host has the machine.
#include "gateway/move/intercept_way.hpp"

#include "diskferry/image_uri.hpp"
#include "gateway/move/move_failure.hpp"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

/// Runs a task on another executor and waits for it here; a cancellation goes with it.
template <class T>
Task<Result<T>> on_executor(Executor executor, Task<Result<T>> task) {
  co_return co_await boost::asio::co_spawn(executor, top_frame(std::move(task)),
                                           boost::asio::use_awaitable_t<Executor>{});
}

TimePoint time_of(const LibvirtEvent& event) {
  return TimePoint(std::chrono::nanoseconds(event.at_ns));
}

}  // namespace

BarrierHooks InterceptWay::barrier_hooks(Executor own) {
  // Flushes come on the reactors of the NBD server's sessions; what belongs to the move is touched on its
  // own.
  return {.is_guest_stopped = [this] { return guest_->is_stopped(); },
          .make_all_durable = [this] { return move_.disks->make_all_durable(); },
          .record = [this, own] { return on_executor(own, move_.enter(Phase::synchronized)); }};
}

Task<Result<bool>> InterceptWay::ask_whether_stopped() {
  if (!ends_.source)
    co_return unexpected(
        fail(ErrorKind::gone, "ask whether the guest is stopped", printable(move_.job.subject))
            .why("libvirt on this host does not answer any more"));
  DISKFERRY_CO_TRY(const VmState state, co_await ends_.source->state(move_.job.subject));
  co_return state != VmState::running;
}

Task<Result<void>> InterceptWay::prepare() {
  DISKFERRY_CO_CHECK(co_await ends_.prepare(move_));
  const Executor own = co_await boost::asio::this_coro::executor;
  guest_ = std::make_unique<GuestWatch>(
      own, [this] { return ask_whether_stopped(); }, [this] { supervisor_.guest_stopped(); });
  barrier_ = std::make_unique<Barrier>(move_.clock(), barrier_hooks(own));
  co_return co_await move_.open_sources(
      {.flushed = [this] { return barrier_->flushed(); },
       .drop_caches = [this, own] { return on_executor(own, move_.gateway->drop_caches(move_.job.id)); }});
}

void InterceptWay::on_event(bool is_source, const LibvirtEvent& event) {
  if (event.domain != move_.job.subject) return;
  using enum LibvirtEvent::Kind;
  if (is_source && event.kind == suspended) guest_->stopped(time_of(event));
  if (is_source && event.kind == resumed) guest_->resumed();
  std::lock_guard lock(guard_);
  // The first counts: with post-copy there is another one when the last of the memory has come.
  if (!is_source && event.kind == resumed && !target_resumed_) target_resumed_ = time_of(event);
  if (is_source && event.kind == stopped) source_ended_ = event.detail;
  if (!is_source && event.kind == stopped && !target_resumed_) target_ended_ = event.detail;
}

LibvirtMigration InterceptWay::what_to_migrate() const {
  const MoveRequest& request = move_.request;
  LibvirtMigration migration{.domain = request.domain,
                             .destination = request.destination,
                             .destination_xml = move_.state.destination_xml,
                             .persistent_xml = move_.state.persistent_xml,
                             .memory_uri = request.memory_uri,
                             .tls = request.memory_tls,
                             .auto_converge = request.auto_converge,
                             .post_copy = request.post_copy,
                             .parallel_connections = request.parallel,
                             .compression = request.compression,
                             // The window answers at once; and a guest that writes more than the link carries
                             // waits, rather than fill a backlog that is a pause in the end.
                             .synchronous_disk_writes = true,
                             .persist_destination = move_.state.is_persistent};
  for (const MoveDiskState& disk : move_.state.disks) {
    if (disk.route != DiskRoute::shared) migration.disks.push_back(disk.target);
    // Of network storage libvirt thinks the same as we do.
    if (disk.route == DiskRoute::shared && disk.source.starts_with('/')) migration.is_storage_proved = true;
  }
  if (migration.disks.empty())
    migration.memory_bytes_per_s = move_.bytes_per_s;
  else
    migration.disks_uri = "unix://" + move_.socket;
  return migration;
}

Task<Result<void>> InterceptWay::migrate() {
  DISKFERRY_CO_CHECK(
      co_await ends_.source->watch([this](const LibvirtEvent& event) { on_event(true, event); }));
  DISKFERRY_CO_CHECK(
      co_await ends_.target->watch([this](const LibvirtEvent& event) { on_event(false, event); }));
  LibvirtMigration migration = what_to_migrate();
  // libvirt would bind each mirror to the memory's rate, too, and then the granules of a guest that writes
  // are more than the mirror may send: it would never be done. The windows keep to the rate, and the
  // supervisor sets the memory's. What an earlier attempt set is still in force.
  if (!migration.disks.empty()) DISKFERRY_CO_CHECK(co_await set_memory_rate(0));
  // From here on only both hosts can tell who has the machine: nothing may fail between this and the
  // question.
  DISKFERRY_CO_CHECK(co_await move_.enter(Phase::bulk));
  barrier_->arm();
  co_await supervisor_.begin();
  auto moved = co_await ends_.source->migrate(std::move(migration));
  co_await supervisor_.end();
  if (moved)
    outcome_ = Outcome::committed;
  else
    DISKFERRY_CO_CHECK(co_await settle_failure(std::move(moved).error()));
  measure_pause();
  // The supervisor may have been too slow to see every phase of a small machine.
  if (move_.state.phase < Phase::synchronized) DISKFERRY_CO_CHECK(co_await move_.enter(Phase::synchronized));
  co_return co_await move_.enter(Phase::switching);
}

/// libvirt says that the migration failed. A success where it has gone over all the same.
Task<Result<void>> InterceptWay::settle_failure(Error said) {
  const bool was_cancelled = co_await is_cancelled();
  co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
  spdlog::info("move {}: the hypervisor says: {}{}", move_.job.id, said.message(),
               was_cancelled ? " (cancelled)" : "");
  if (auto fenced = co_await fence_source(); !fenced)
    spdlog::warn("move {}: {}", move_.job.id, fenced.error().message());
  DISKFERRY_CO_CHECK(co_await find_out());
  if (outcome_ == Outcome::committed) co_return Result<void>{};
  if (outcome_ == Outcome::split) co_return unexpected(runs_twice());
  if (supervisor_.has_timed_out())
    co_return unexpected(took_too_long("allow more time, or --auto-converge, or --post-copy"));
  // Then that is the cause: that the target's machine has ended is what undoing the move looks like.
  if (was_cancelled && outcome_ != Outcome::ended)
    co_return unexpected(cancelled_error("migrate", move_.job.subject));
  co_return unexpected(first_cause_of(std::move(said)));
}

Error InterceptWay::first_cause_of(Error said) {
  MoveEnding seen{.machine = move_.job.subject,
                  .source_host = move_.environment.here.name,
                  .target_host = host_of(move_.request.destination),
                  .has_ended = outcome_ == Outcome::ended,
                  .was_given_up = was_given_up_,
                  .has_lost_source = ends_.has_lost_source,
                  .has_lost_target = ends_.has_lost_target};
  {
    std::lock_guard lock(guard_);
    seen.source_ended = source_ended_;
    seen.target_ended = target_ended_;
  }
  auto cause = cause_of_ending(said, seen);
  is_cause_known_ = cause.has_value();
  return cause ? *std::move(cause) : std::move(said);
}

Task<Result<void>> InterceptWay::set_memory_rate(std::uint64_t bytes_per_s) {
  return ends_.source->set_memory_bytes_per_s(move_.job.subject, bytes_per_s);
}

Task<Result<void>> InterceptWay::set_memory_pause_ms(std::uint64_t ms) {
  return ends_.source->set_downtime_max_ms(move_.job.subject, ms);
}

Task<Result<void>> InterceptWay::looked() {
  {
    std::lock_guard lock(guard_);
    if (target_ended_.empty() || was_given_up_) co_return Result<void>{};
  }
  // libvirt would notice only when all disks are copied. Where it is undoing the move by itself, which ends
  // the target's machine, too, there is nothing to abort.
  DISKFERRY_CO_CHECK(co_await abort());
  was_given_up_ = true;
  spdlog::warn("move {}: the machine that waits at the target has ended: given up", move_.job.id);
  co_return Result<void>{};
}

void InterceptWay::measure_pause() {
  const BarrierTimes held = barrier_->times();
  const auto stopped = guest_->stopped_at();
  std::lock_guard lock(guard_);
  if (!stopped || !target_resumed_) return;
  PauseParts parts{.total_us = us_between(*stopped, *target_resumed_)};
  if (held.first_flush && held.last_answer) {
    parts.until_flush_us = us_between(*stopped, *held.first_flush);
    parts.drain_us = us_between(*held.first_flush, *held.last_answer);
    parts.device_state_us = us_between(*held.last_answer, *target_resumed_);
  }
  move_.state.pause = parts;
}

void InterceptWay::refuse() {
  if (barrier_) barrier_->refuse();
}

Task<void> InterceptWay::undo() {
  // libvirt would keep the memory's rate for the machine's next migration, whoever asks for that.
  if (supervisor_.has_told_rate() && ends_.source) (void)co_await set_memory_rate(0);
}

Task<void> InterceptWay::take_measures() {
  if (!ends_.source) co_return;
  if (auto done = co_await ends_.source->completed_job(move_.job.subject);
      done && done->downtime_ms && move_.state.pause)
    move_.state.pause->hypervisor_ms = *done->downtime_ms;
}

Task<void> InterceptWay::close() {
  if (guest_) co_await guest_->close();
  co_await ends_.close();
}

}  // namespace diskferry
