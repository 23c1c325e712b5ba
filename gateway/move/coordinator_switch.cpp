// The migration itself: libvirt works, the supervisor watches disk and memory together, and at the end it is
// found out which host has the machine.
#include "diskferry/image_uri.hpp"
#include "gateway/jobs/event_bus.hpp"
#include "gateway/move/coordinator.hpp"
#include "gateway/move/flush_ahead.hpp"
#include "gateway/move/move_failure.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

constexpr Duration look_pause = std::chrono::milliseconds(200);
/// Of the pause that is allowed, how much the window may take to drain; the rest is for device state and
/// resuming.
constexpr double drain_share = 0.4;
/// QEMU counts in milliseconds and wants some; an idle guest needs no more.
constexpr std::uint64_t memory_pause_min_ms = 20;
/// Of a common budget, what the memory gets at least.
constexpr double memory_share_min = 0.25;

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

BarrierHooks Coordinator::barrier_hooks(Executor own) {
  // Flushes come on the reactors of the NBD server's sessions; what belongs to the move is touched on its
  // own.
  return {.is_guest_stopped = [this] { return guest_->is_stopped(); },
          .make_all_durable = [this] { return disks_->make_all_durable(); },
          .record = [this, own] { return on_executor(own, record_synchronized()); }};
}

std::function<Task<Result<void>>()> Coordinator::drop_caches_hook(Executor own) {
  return [this, own] { return on_executor(own, gateway_->drop_caches(job_.id)); };
}

Task<Result<bool>> Coordinator::ask_whether_stopped() {
  DISKFERRY_CO_TRY(const VmState state, co_await source_->state(job_.subject));
  co_return state != VmState::running;
}

Task<Result<void>> Coordinator::record_synchronized() {
  co_return co_await enter(Phase::synchronized);
}

void Coordinator::on_event(bool is_source, const LibvirtEvent& event) {
  if (event.domain != job_.subject) return;
  using enum LibvirtEvent::Kind;
  if (is_source && event.kind == suspended) guest_->stopped(time_of(event));
  if (is_source && event.kind == resumed) guest_->resumed();
  std::lock_guard lock(guard_);
  // The first counts: with post-copy there is another one when the last of the memory has come.
  if (!is_source && event.kind == resumed && !target_resumed_) target_resumed_ = time_of(event);
  if (is_source && event.kind == stopped) source_ended_ = event.detail;
  if (!is_source && event.kind == stopped && !target_resumed_) target_ended_ = event.detail;
}

Task<Result<void>> Coordinator::migrate() {
  if (request_.cold) co_return co_await copy_cold();
  if (ends_) co_return co_await migrate_by_monitors();
  DISKFERRY_CO_CHECK(co_await source_->watch([this](const LibvirtEvent& event) { on_event(true, event); }));
  DISKFERRY_CO_CHECK(co_await target_->watch([this](const LibvirtEvent& event) { on_event(false, event); }));
  DISKFERRY_CO_CHECK(co_await enter(Phase::bulk));
  LibvirtMigration migration{.domain = request_.domain,
                             .destination = request_.destination,
                             .destination_xml = state_.destination_xml,
                             .persistent_xml = state_.persistent_xml,
                             .memory_uri = request_.memory_uri,
                             .tls = request_.memory_tls,
                             .auto_converge = request_.auto_converge,
                             .post_copy = request_.post_copy,
                             .parallel_connections = request_.parallel,
                             .compression = request_.compression,
                             .persist_destination = state_.is_persistent};
  for (const MoveDiskState& disk : state_.disks) {
    if (disk.route != DiskRoute::shared) migration.disks.push_back(disk.target);
    // Of network storage libvirt thinks the same as we do.
    if (disk.route == DiskRoute::shared && disk.source.starts_with('/')) migration.is_storage_proved = true;
  }
  // libvirt would bind each mirror to the same rate, too, and then the granules of a guest that writes are
  // more than the mirror may send: it would never be done. The windows keep to the rate, and apply_limits()
  // sets the memory's. What an earlier attempt set is still in force.
  if (migration.disks.empty()) {
    migration.memory_bytes_per_s = bytes_per_s_;
  } else {
    migration.disks_uri = "unix://" + socket();
    DISKFERRY_CO_CHECK(co_await source_->set_memory_bytes_per_s(job_.subject, 0));
  }
  barrier_->arm();
  is_over_ = false;
  TaskGroup side(co_await boost::asio::this_coro::executor);
  side.spawn(supervise());
  side.spawn(
      flush_ahead(environment_.drivers.clock,
                  {.make_durable = [this] { return disks_->make_all_durable(); },
                   .sent_bytes = [this] { return disks_->sent_bytes(); },
                   .is_near = [this] { return state_.phase >= Phase::delta || disks_->are_copied_once(); }}));
  auto moved = co_await source_->migrate(std::move(migration));
  is_over_ = true;
  side.cancel();
  (void)co_await side.join();
  if (moved) {
    outcome_ = Outcome::committed;
  } else {
    co_await boost::asio::this_coro::reset_cancellation_state(boost::asio::disable_cancellation());
    spdlog::info("move {}: the hypervisor says: {}", job_.id, moved.error().message());
    if (auto fenced = co_await fence_source(); !fenced)
      spdlog::warn("move {}: {}", job_.id, fenced.error().message());
    DISKFERRY_CO_CHECK(co_await find_out());
    if (outcome_ == Outcome::split)
      co_return unexpected(fail(ErrorKind::internal, "migrate", printable(job_.subject))
                               .why("both hosts say that they run it")
                               .remedy("stop the one on the target at once, and look at its log"));
    if (outcome_ != Outcome::committed && has_timed_out_)
      co_return unexpected(fail(ErrorKind::timed_out, "migrate", printable(job_.subject))
                               .why(fmt::format("it took longer than {} s", request_.timeout_s))
                               .remedy("allow more time, or --auto-converge, or --post-copy"));
    if (outcome_ != Outcome::committed) co_return unexpected(first_cause_of(std::move(moved).error()));
  }
  measure_pause();
  // The supervisor may have been too slow to see every phase of a small machine.
  if (state_.phase < Phase::synchronized) DISKFERRY_CO_CHECK(co_await enter(Phase::synchronized));
  co_return co_await enter(Phase::switching);
}

Error Coordinator::first_cause_of(Error said) {
  MoveEnding seen{.machine = job_.subject,
                  .source_host = environment_.here.name,
                  .target_host = host_of(request_.destination),
                  .has_ended = outcome_ == Outcome::ended,
                  .was_given_up = was_given_up_,
                  .has_lost_source = has_lost_source_,
                  .has_lost_target = has_lost_target_};
  {
    std::lock_guard lock(guard_);
    seen.source_ended = source_ended_;
    seen.target_ended = target_ended_;
  }
  auto cause = cause_of_ending(said, seen);
  is_cause_known_ = cause.has_value();
  return cause ? *std::move(cause) : std::move(said);
}

Error Coordinator::cancelled_by() const {
  const std::string here = printable(environment_.here.name);
  if (is_gateway_stopping_)
    return fail(ErrorKind::cancelled, "migrate", printable(job_.subject))
        .why("the gateway on " + here + " was stopped before the commit; the machine stays there")
        .remedy("begin again when the gateway runs");
  return fail(ErrorKind::cancelled, "migrate", printable(job_.subject))
      .why("it was cancelled; the machine stays on " + here);
}

Task<Result<void>> Coordinator::give_up_without_target() {
  {
    std::lock_guard lock(guard_);
    if (target_ended_.empty() || was_given_up_) co_return Result<void>{};
  }
  // libvirt would notice only when all disks are copied. Where it is undoing the move by itself, which ends
  // the target's machine, too, there is nothing to abort.
  DISKFERRY_CO_CHECK(co_await source_->abort_job(job_.subject));
  was_given_up_ = true;
  spdlog::warn("move {}: the machine that waits at the target has ended: given up", job_.id);
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::supervise() {
  const TimePoint began = environment_.drivers.clock.now();
  while (!is_over_) {
    if (co_await is_cancelled()) co_return Result<void>{};
    if (auto looked = co_await look_once(); !looked)
      spdlog::debug("move {}: {}", job_.id, looked.error().message());
    if (auto given_up = co_await give_up_without_target(); !given_up)
      spdlog::debug("move {}: {}", job_.id, given_up.error().message());
    const auto limit = std::chrono::seconds(request_.timeout_s);
    if (request_.timeout_s != 0 && environment_.drivers.clock.now() - began > limit && !is_over_) {
      if (auto acted = co_await act_on_timeout(); !acted)
        spdlog::warn("move {}: {}", job_.id, acted.error().message());
    }
    if (!co_await environment_.drivers.clock.sleep_for(look_pause)) co_return Result<void>{};
  }
  co_return Result<void>{};
}

Task<Result<void>> Coordinator::act_on_timeout() {
  if (request_.timeout_action == TimeoutAction::suspend && !has_suspended_) {
    has_suspended_ = true;
    spdlog::warn("move {}: takes too long: the guest is paused until it is over", job_.id);
    co_return co_await source_->suspend(job_.subject);
  }
  if (request_.timeout_action == TimeoutAction::post_copy && state_.phase == Phase::delta &&
      !has_post_copied_) {
    has_post_copied_ = true;
    spdlog::warn("move {}: takes too long: the memory follows after the switchover", job_.id);
    co_return co_await source_->start_post_copy(job_.subject);
  }
  if (request_.timeout_action != TimeoutAction::abort || has_timed_out_) co_return Result<void>{};
  has_timed_out_ = true;
  spdlog::warn("move {}: takes too long: given up", job_.id);
  co_return co_await abort_at_source();
}

Task<Result<void>> Coordinator::look_once() {
  DISKFERRY_CO_TRY(const LibvirtJob job, co_await memory_job());
  {
    std::lock_guard lock(guard_);
    memory_ = job;
  }
  const bool memory_goes = job.is_active && job.memory_processed_bytes > 0;
  if (memory_goes && state_.phase == Phase::bulk) {
    DISKFERRY_CO_CHECK(co_await enter(Phase::delta));
  }
  std::uint64_t disk_rate = 0;
  for (const auto& disk : disks_->stats()) disk_rate += disk.window.bytes_per_s;
  if (memory_goes) {
    // What is in the window when the guest stops is part of the pause: as much as goes over in its share of
    // it.
    const double seconds = static_cast<double>(max_pause_ms_) / 1000.0 * drain_share;
    const auto fits = static_cast<std::uint64_t>(static_cast<double>(disk_rate) * seconds);
    disks_->set_window_bytes(std::min(fits, environment_.window_bytes));
  }
  // Before all mirrors have begun libvirt would take the memory's rate for theirs.
  if (job.is_active && disks_->have_begun()) DISKFERRY_CO_CHECK(co_await apply_limits(disk_rate));
  environment_.bus.publish(
      {.job = job_.id, .sequence = 0, .kind = std::string(progress_event), .text = progress()});
  co_return Result<void>{};
}

/// What the operator set, or has changed meanwhile, as the parts of the move understand it.
Task<Result<void>> Coordinator::apply_limits(std::uint64_t disk_rate) {
  if (const std::uint64_t budget = bytes_per_s_; budget != 0 || told_bytes_per_s_ != 0) {
    disks_->set_bytes_per_s(budget);
    const auto least = static_cast<std::uint64_t>(static_cast<double>(budget) * memory_share_min);
    const std::uint64_t memory = std::max(least, budget > disk_rate ? budget - disk_rate : 0);
    DISKFERRY_CO_CHECK(co_await set_memory_rate(memory));
    told_bytes_per_s_ = budget;
  }
  const std::uint64_t pause_ms = max_pause_ms_;
  // Without libvirt the monitors were told at the start.
  if (pause_ms == told_pause_ms_ || !source_) co_return Result<void>{};
  // The window drains first, then goes the rest of the memory: one after the other.
  const auto memory_ms = static_cast<std::uint64_t>(static_cast<double>(pause_ms) * (1 - drain_share));
  DISKFERRY_CO_CHECK(
      co_await source_->set_downtime_max_ms(job_.subject, std::max(memory_ms, memory_pause_min_ms)));
  told_pause_ms_ = pause_ms;
  co_return Result<void>{};
}

void Coordinator::measure_pause() {
  const BarrierTimes held = barrier_->times();
  std::lock_guard lock(guard_);
  const auto stopped = guest_->stopped_at();
  if (!stopped || !target_resumed_) return;
  PauseParts parts{.total_us = us_between(*stopped, *target_resumed_)};
  if (held.first_flush && held.last_answer) {
    parts.until_flush_us = us_between(*stopped, *held.first_flush);
    parts.drain_us = us_between(*held.first_flush, *held.last_answer);
    parts.device_state_us = us_between(*held.last_answer, *target_resumed_);
  }
  state_.pause = parts;
}

}  // namespace diskferry
