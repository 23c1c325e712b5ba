// The migration itself: libvirt works, and at the end it is found out which host has the machine.
#include "gateway/move/intercept_way.hpp"

#include "diskferry/image_uri.hpp"

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

void InterceptWay::heard(bool is_source, const LibvirtEvent& event) {
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
  LibvirtMigration migration = memory_migration();
  migration.post_copy = move_.request.post_copy;
  // The window answers at once; and a guest that writes more than the link carries waits, rather than fill a
  // backlog that is a pause in the end.
  migration.synchronous_disk_writes = true;
  for (const MoveDiskState& disk : move_.state.disks)
    if (disk.route != DiskRoute::shared) migration.disks.push_back(disk.target);
  if (migration.disks.empty())
    migration.memory_bytes_per_s = move_.bytes_per_s;
  else
    migration.disks_uri = "unix://" + move_.socket;
  return migration;
}

Task<Result<void>> InterceptWay::migrate() {
  DISKFERRY_CO_CHECK(co_await watch());
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
    DISKFERRY_CO_CHECK(co_await settle_failure(std::move(moved).error(),
                                               "allow more time, or --auto-converge, or --post-copy"));
  measure_pause();
  // The supervisor may have been too slow to see every phase of a small machine.
  if (move_.state.phase < Phase::synchronized) DISKFERRY_CO_CHECK(co_await move_.enter(Phase::synchronized));
  co_return co_await move_.enter(Phase::switching);
}

Task<void> InterceptWay::before_asking() {
  if (auto fenced = co_await fence_source(); !fenced)
    spdlog::warn("move {}: {}", move_.job.id, fenced.error().message());
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

Task<void> InterceptWay::close() {
  if (guest_) co_await guest_->close();
  co_await ends_.close();
}

}  // namespace diskferry
