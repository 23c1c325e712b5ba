#include "gateway/move/supervisor.hpp"

#include "gateway/move/flush_ahead.hpp"

#include <algorithm>
#include <chrono>

#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {

constexpr Duration look_pause = std::chrono::milliseconds(200);
/// Of the pause that is allowed, how much the window may take to drain; the rest is for device state and
/// resuming.
constexpr double drain_share = 0.4;
/// QEMU counts in milliseconds and wants some; an idle guest needs no more.
constexpr std::uint64_t memory_pause_min_ms = 20;
/// More in the window than goes over in this time gains nothing, and the guest's writes wait until it is less
/// when the memory's turn has come.
constexpr double window_seconds_max = 0.25;
constexpr Duration stall_limit = std::chrono::seconds(1);

}  // namespace

std::uint64_t memory_pause_ms(std::uint64_t max_pause_ms) noexcept {
  // The window drains first, then goes the rest of the memory: one after the other.
  const auto memory = static_cast<std::uint64_t>(static_cast<double>(max_pause_ms) * (1 - drain_share));
  return std::max(memory, memory_pause_min_ms);
}

void Supervisor::guest_stopped() {
  if (move_.disks) move_.disks->set_bytes_per_s(move_.bytes_per_s);
}

Task<void> Supervisor::begin() {
  is_over_ = false;
  side_.emplace(co_await boost::asio::this_coro::executor);
  side_->spawn(watch());
  side_->spawn(flush_ahead(
      move_.clock(),
      {.make_durable = [this] { return move_.disks->make_all_durable(); },
       .sent_bytes = [this] { return move_.disks->sent_bytes(); },
       .is_near = [this] { return move_.state.phase >= Phase::delta || move_.disks->are_copied_once(); }}));
}

Task<void> Supervisor::end() {
  is_over_ = true;
  side_->cancel();
  (void)co_await side_->join();
}

Task<Result<void>> Supervisor::watch() {
  const TimePoint began = move_.clock().now();
  const auto limit = std::chrono::seconds(move_.request.timeout_s);
  while (!is_over_) {
    if (co_await is_cancelled()) co_return Result<void>{};
    if (auto looked = co_await look_once(); !looked)
      spdlog::debug("move {}: {}", move_.job.id, looked.error().message());
    if (auto looked = co_await machine_.looked(); !looked)
      spdlog::debug("move {}: {}", move_.job.id, looked.error().message());
    if (move_.request.timeout_s != 0 && move_.clock().now() - began > limit && !is_over_) {
      if (auto acted = co_await act_on_timeout(); !acted)
        spdlog::warn("move {}: {}", move_.job.id, acted.error().message());
    }
    if (!co_await move_.clock().sleep_for(look_pause)) co_return Result<void>{};
  }
  co_return Result<void>{};
}

Task<Result<void>> Supervisor::act_on_timeout() {
  const MoveRequest& request = move_.request;
  if (request.timeout_action == TimeoutAction::suspend && !has_suspended_) {
    has_suspended_ = true;
    spdlog::warn("move {}: takes too long: the guest is paused until it is over", move_.job.id);
    co_return co_await machine_.suspend();
  }
  if (request.timeout_action == TimeoutAction::post_copy && move_.state.phase == Phase::delta &&
      !has_post_copied_) {
    has_post_copied_ = true;
    spdlog::warn("move {}: takes too long: the memory follows after the switchover", move_.job.id);
    co_return co_await machine_.start_post_copy();
  }
  if (request.timeout_action != TimeoutAction::abort || has_timed_out_) co_return Result<void>{};
  has_timed_out_ = true;
  spdlog::warn("move {}: takes too long: given up", move_.job.id);
  co_return co_await machine_.abort();
}

Supervisor::DisksNow Supervisor::look_at_disks() const {
  DisksNow now;
  for (const auto& [target, size, window, verified] : move_.disks->stats()) {
    now.bytes_per_s += window.bytes_per_s;
    now.sent_bytes += window.sent_bytes + window.sent_zero_bytes;
    now.are_pending = now.are_pending || window.pending_bytes > 0;
    const bool is_half_full = window.pending_bytes > 0 && window.pending_bytes * 2 >= window.window_bytes;
    now.does_guest_wait = now.does_guest_wait || is_half_full;
  }
  return now;
}

Task<Result<void>> Supervisor::look_once() {
  DISKFERRY_CO_TRY(move_.memory, co_await machine_.memory_job());
  const LibvirtJob& job = move_.memory;
  const bool memory_goes = job.is_active && job.memory_processed_bytes > 0;
  if (memory_goes && move_.state.phase == Phase::bulk) DISKFERRY_CO_CHECK(co_await move_.enter(Phase::delta));
  const DisksNow disks = look_at_disks();
  const double pause = static_cast<double>(move_.max_pause_ms) / 1000.0 * drain_share;
  fit_window(disks, memory_goes ? pause : std::max(pause, window_seconds_max));
  // Before all mirrors have begun libvirt would take the memory's rate for theirs.
  if (job.is_active && move_.disks->have_begun()) {
    DISKFERRY_CO_CHECK(co_await apply_rate(disks, memory_goes));
    DISKFERRY_CO_CHECK(co_await apply_pause());
  }
  move_.tell_progress(move_.progress());
  co_return Result<void>{};
}

bool Supervisor::are_stalled(const DisksNow& disks) {
  const TimePoint now = move_.clock().now();
  if (!disks.are_pending || disks.sent_bytes != last_progress_.sent_bytes)
    last_progress_ = {.at = now, .sent_bytes = disks.sent_bytes};
  return now - last_progress_.at >= stall_limit;
}

/// What is in the window when the guest stops is part of the pause: as much as goes over in its share of it.
/// While nothing gets through, the guest is not to wait for the window if there is memory left to write to.
void Supervisor::fit_window(const DisksNow& disks, double seconds) {
  const auto fits = static_cast<std::uint64_t>(static_cast<double>(disks.bytes_per_s) * seconds);
  const std::uint64_t most = move_.environment.window_bytes;
  move_.disks->set_window_bytes(are_stalled(disks) ? most : std::min(fits, most));
}

std::uint64_t Supervisor::share_link(const DisksNow& disks) {
  const TimePoint now = move_.clock().now();
  const std::uint64_t sent = move_.memory.memory_processed_bytes;
  const std::chrono::duration<double> passed = now - last_look_.at;
  const std::uint64_t grown = sent > last_look_.memory_bytes ? sent - last_look_.memory_bytes : 0;
  const bool is_first = last_look_.memory_bytes == 0;
  last_look_ = {.at = now, .memory_bytes = sent};
  if (is_first || passed.count() <= 0) return 0;
  const auto memory_rate = static_cast<std::uint64_t>(static_cast<double>(grown) / passed.count());
  return share_.next(disks.does_guest_wait, disks.bytes_per_s, memory_rate);
}

Task<Result<void>> Supervisor::apply_rate(const DisksNow& disks, bool memory_goes) {
  const std::uint64_t share = memory_goes ? share_link(disks) : 0;
  // The operator may have changed the budget meanwhile.
  const std::uint64_t budget = move_.bytes_per_s;
  const LinkRates rates = rates_within(budget, machine_.is_guest_stopped() ? 0 : share, disks.bytes_per_s);
  move_.disks->set_bytes_per_s(rates.disks);
  if (budget == 0 && !has_told_rate()) co_return Result<void>{};
  DISKFERRY_CO_CHECK(co_await machine_.set_memory_rate(rates.memory));
  told_bytes_per_s_ = budget;
  co_return Result<void>{};
}

Task<Result<void>> Supervisor::apply_pause() {
  const std::uint64_t pause_ms = move_.max_pause_ms;
  if (pause_ms == told_pause_ms_) co_return Result<void>{};
  DISKFERRY_CO_CHECK(co_await machine_.set_memory_pause_ms(memory_pause_ms(pause_ms)));
  told_pause_ms_ = pause_ms;
  co_return Result<void>{};
}

}  // namespace diskferry
