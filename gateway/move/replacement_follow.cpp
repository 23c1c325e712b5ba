// Having the targets follow, and steering that.
#include "diskferry/image_uri.hpp"
#include "gateway/move/replacement_disk.hpp"

#include <algorithm>
#include <fmt/format.h>

#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

namespace diskferry {
namespace {
constexpr Duration look_interval = std::chrono::milliseconds(100);
constexpr Duration steer_interval = std::chrono::seconds(1);
/// A window smaller than this would hold up copies.
constexpr std::uint64_t window_bytes_min = 4u << 20;

/// Ends the supervision when a target does not follow any more.
Task<Result<void>> end_with(Task<Result<void>> task, TaskGroup& supervision) {
  auto ended = co_await std::move(task);
  supervision.cancel();
  co_return ended;
}

std::uint64_t grown(std::uint64_t now, std::uint64_t before) noexcept {
  return now > before ? now - before : 0;
}

ConvergenceSample sample_of(const ReplacedDiskStats& now, const ReplacedDiskStats& before) {
  const std::uint64_t copied = grown(now.mirror.copied_bytes, before.mirror.copied_bytes);
  return {.left_bytes = now.mirror.dirty_bytes,
          .copied_bytes = copied,
          .dirtied_bytes = grown(now.mirror.dirty_bytes + copied, before.mirror.dirty_bytes),
          .guest_bytes = grown(now.mirror.guest_bytes, before.mirror.guest_bytes),
          .sent_bytes =
              grown(now.window.sent_bytes + now.window.sent_zero_bytes + now.window.unchanged_bytes,
                    before.window.sent_bytes + before.window.sent_zero_bytes + before.window.unchanged_bytes),
          .pending_bytes = now.window.pending_bytes,
          .added_p99_us = now.mirror.added_p99_now_us,
          .rounds = grown(now.rounds, before.rounds)};
}

}  // namespace

bool Replacement::is_in_step() const {
  return std::ranges::all_of(disks_, [](const Disk& each) { return each.disk.is_in_step(); });
}

Duration Replacement::predicted_pause() const {
  Duration longest = Duration::zero();
  for (const Disk& each : disks_) longest = std::max(longest, each.step.pause);
  return longest;
}

bool Replacement::can_change_places() const {
  return environment_.drivers.clock.now() >= next_attempt_ && is_in_step() &&
         !std::ranges::any_of(disks_, [](const Disk& each) { return each.disk.has_loss_to_take_up(); }) &&
         predicted_pause() <= std::chrono::milliseconds(limits().max_pause_ms);
}

bool Replacement::is_time_to_commit() const {
  const bool is_wanted =
      is_commit_wanted_ || (!request_.commit_by_hand && environment_.now_ms() >= request_.commit_at_ms);
  return is_wanted && can_change_places();
}

/// Or it is not wanted any more.
bool Replacement::is_time_to_fall_back() const {
  return is_fallback_off() || can_change_places();
}

/// The time of the old storage, which a fallback is the end of as well.
bool Replacement::is_time_to_end() const {
  if (is_release_wanted_ || request_.retain_s == 0) return true;
  if (is_fallback_wanted_) return true;
  const auto committed = std::ranges::find(state_.timeline, Phase::committed, &PhaseTime::phase);
  return committed != state_.timeline.end() &&
         environment_.now_ms() - committed->at_ms >= static_cast<std::int64_t>(request_.retain_s) * 1000;
}

ConvergenceLimits Replacement::limits_now() const {
  const ReplaceLimits now = limits();
  ConvergenceLimits limits{.latency_max = std::chrono::milliseconds(now.max_write_latency_ms),
                           .pause_max = std::chrono::milliseconds(now.max_pause_ms),
                           // Nobody is slowed down for the sake of what is only kept.
                           .may_slow_guests = !is_committed_};
  if (now.deadline_at_ms != 0)
    limits.deadline =
        std::chrono::milliseconds(std::max<std::int64_t>(1000, now.deadline_at_ms - environment_.now_ms()));
  return limits;
}

/// The first pass has a large window, which keeps far targets busy. What waits in it at the end has time to
/// be sent: guests would have no room if it became small at once.
std::uint64_t Replacement::fitting_window(const WindowStats& now, std::uint64_t wanted) const {
  const std::uint64_t most = environment_.window_bytes;
  return std::clamp(std::max(wanted, now.window_bytes / 4 * 3), std::min(window_bytes_min, most), most);
}

/// Guests' writes wait behind copies in the window: no more than a second of these, where they are limited.
std::uint64_t Replacement::first_window(std::uint64_t copy_bytes_per_s) const {
  const std::uint64_t most = environment_.window_bytes;
  return copy_bytes_per_s == 0 ? most : std::clamp(copy_bytes_per_s, std::min(window_bytes_min, most), most);
}

/// What the last second was like, and what follows from it.
void Replacement::steer() {
  const std::uint64_t bytes_per_s = limits().bytes_per_s;
  const std::uint64_t share = bytes_per_s == 0 ? 0 : std::max<std::uint64_t>(1, bytes_per_s / disks_.size());
  const ConvergenceLimits limits = limits_now();
  set_skips();
  for (Disk& each : disks_) {
    const ReplacedDiskStats now = each.disk.stats();
    each.control.set_limits(limits);
    each.step = each.control.observe(sample_of(now, each.before));
    each.before = now;
    if (!each.step.reason.empty()) {
      each.why = each.step.reason;
      spdlog::info("replacement {} of {}: {}", job_.id, printable(now.name), each.why);
    }
    MirrorDevice& mirror = each.disk.mirror();
    mirror.set_mode(each.step.mode);
    mirror.set_latency_max(limits.latency_max);
    mirror.set_guest_bytes_per_s(each.step.guest_bytes_per_s);
    mirror.set_copy_bytes_per_s(share);
    mirror.set_makes_room(each.step.makes_room);
    if (!each.disk.is_in_step())
      mirror.set_window_bytes(first_window(share));
    else if (each.step.window_bytes_max != 0)
      mirror.set_window_bytes(fitting_window(now.window, each.step.window_bytes_max));
  }
}

Task<Result<void>> Replacement::note_phase() {
  if (state_.phase == Phase::bulk && is_in_step()) co_return co_await enter(Phase::delta);
  const bool waits = request_.commit_by_hand || now_ms() < request_.commit_at_ms;
  if (state_.phase == Phase::delta && waits && is_in_step()) co_return co_await enter(Phase::synchronized);
  co_return Result<void>{};
}

Task<Result<void>> Replacement::supervise(IsEnough is_enough, TaskGroup& followers, bool& was_enough) {
  Clock& clock = environment_.drivers.clock;
  TimePoint steered = clock.now();
  // That all of it is dirty at the beginning, and what was written during a pause, is not of one second.
  for (Disk& each : disks_) each.before = each.disk.stats();
  steer();
  while (true) {
    DISKFERRY_CO_CHECK(co_await clock.sleep_for(look_interval));
    if (clock.now() - steered >= steer_interval) {
      steer();
      steered = clock.now();
      environment_.bus.publish(
          {.job = job_.id, .sequence = 0, .kind = std::string(progress_event), .text = progress()});
    }
    if (is_end_wanted()) co_return unexpected(cancelled_error("replace", job_.subject));
    // That the disks are in step is worth telling, and no reason to end; so is what follows.
    auto noted = co_await note_phase();
    if (noted) noted = co_await note_limits();
    if (noted) noted = co_await note_losses();
    if (!noted) spdlog::warn("replacement {}: {}", job_.id, noted.error().message());
    was_enough = (this->*is_enough)();
    // It runs: what is said from now on is about the pause that may follow.
    is_resume_wanted_ = false;
    if (was_enough || is_pause_wanted_.exchange(false)) break;
  }
  followers.cancel();
  if (was_enough) co_return Result<void>{};
  co_return unexpected(fail(ErrorKind::timed_out, "replace", job_.subject).why("it was paused"));
}

/// Success: `is_enough`, and targets are attached and hold still. Else nothing follows any more.
Task<Result<void>> Replacement::follow_until(IsEnough is_enough) {
  const Executor executor = co_await boost::asio::this_coro::executor;
  Result<void> result;
  if (is_end_wanted()) result = unexpected(cancelled_error("replace", job_.subject));
  for (Disk& each : disks_) {
    if (!result) break;
    if (each.disk.mirror().copy_target()) continue;
    result = co_await each.disk.attach(targets_are_in_charge());
    if (!result) break;
  }
  bool was_enough = false;
  set_skips();
  if (result) {
    TaskGroup followers(executor);
    TaskGroup supervision(executor);
    for (Disk& each : disks_) followers.spawn(end_with(each.disk.follow(), supervision));
    supervision.spawn(supervise(is_enough, followers, was_enough));
    const auto watched = co_await supervision.join();
    followers.cancel();
    const auto followed = co_await followers.join();
    if (!followed && followed.error().kind() != ErrorKind::cancelled) {
      result = followed;
      was_enough = false;
    } else if (!was_enough) {
      result = watched ? Result<void>(unexpected(cancelled_error("replace", job_.subject))) : watched;
    }
  }
  if (was_enough) co_return co_await note_losses();
  for (Disk& each : disks_) co_await each.disk.detach();
  co_return result;
}

/// Until somebody resumes it, or `is_off`. Nothing follows meanwhile; what guests write is noted.
Task<Result<void>> Replacement::wait_while_paused(Error why, IsEnough is_off) {
  why = paused_error(std::move(why));
  spdlog::warn("replacement {} of {} is paused: {}", job_.id, printable(job_.subject), why.message());
  for (Disk& each : disks_)
    if (each.is_begun) co_await each.disk.detach();
  bool is_noted = false;
  while (!is_resume_wanted_.exchange(false)) {
    if (is_end_wanted()) co_return unexpected(cancelled_error("replace", job_.subject));
    if ((this->*is_off)()) break;
    if (is_noted) (void)co_await note_limits();
    if (!is_noted)
      is_noted =
          (co_await save({.status = JobStatus::paused, .error = why.message(), .event = paused_event(why)}))
              .has_value();
    DISKFERRY_CO_CHECK(co_await environment_.drivers.clock.sleep_for(look_interval));
  }
  (void)co_await save({.status = JobStatus::running, .error = std::string()});
  co_return Result<void>{};
}

}  // namespace diskferry
